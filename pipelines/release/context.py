"""What every step of a release works with, opened once and closed together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.config import ReleaseConfig, Settings
from pipelines.online.client import FerryClient
from pipelines.online.store import OnlineStore
from pipelines.patience import Patience
from pipelines.release.objects import ObjectStore
from pipelines.release.registry import Registry


@dataclass(frozen=True)
class ReleaseContext:
    """The services of a release; `owner` names the run, or the person, in leases and the history.

    `client` reads as every reader does.
    """

    settings: Settings
    config: ReleaseConfig
    registry: Registry
    online: OnlineStore
    client: FerryClient
    owner: str


@contextmanager
def release_context(
    settings: Settings, config: ReleaseConfig, owner: str, patience: Patience = Patience.STEP
) -> Iterator[ReleaseContext]:
    """Connect to Redis and object storage for the time of the block."""
    with FerryClient(settings, patience) as client:
        registry = Registry(ObjectStore.connect(settings, patience))
        yield ReleaseContext(settings, config, registry, client.online, client, owner)

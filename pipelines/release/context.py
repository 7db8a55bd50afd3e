"""What every step of a release works with, opened once and closed together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipelines.config import ReleaseConfig, Settings
from pipelines.online.store import OnlineStore
from pipelines.release.objects import ObjectStore
from pipelines.release.registry import Registry


@dataclass(frozen=True)
class ReleaseContext:
    """The services of a release; `owner` names the run in locks and in the history."""

    settings: Settings
    config: ReleaseConfig
    registry: Registry
    online: OnlineStore
    owner: str


@contextmanager
def release_context(
    settings: Settings, config: ReleaseConfig, owner: str
) -> Iterator[ReleaseContext]:
    """Connect to Redis and object storage for the time of the block."""
    online = OnlineStore.connect(settings)
    try:
        registry = Registry(ObjectStore.connect(settings))
        yield ReleaseContext(settings, config, registry, online, owner)
    finally:
        online.close()

"""What the pages read from: one set of connections for all requests of a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipelines.config import PipelineConfig, Settings, load_pipeline_config
from pipelines.online.client import FerryClient
from pipelines.release.context import ReleaseContext
from pipelines.release.objects import ObjectStore
from pipelines.release.registry import Registry


class Services:
    """Opens what a request needs when it needs it; opened again when the settings change.

    Requests run in threads. Redis and object storage may be used by many at once; what scores may
    not (:meth:`scoring`).
    """

    def __init__(self, load_settings: Callable[[], Settings]) -> None:
        self._load_settings = load_settings
        self._opening = threading.Lock()
        self._scoring = threading.Lock()
        self._open: tuple[Settings, FerryClient, Registry] | None = None

    def context(self) -> ReleaseContext:
        """Return Redis and object storage as the settings of this moment name them.

        Raises:
            ConfigError: the settings or `pipeline.yaml` are wrong.
        """
        settings = self._load_settings()
        config = self._config(settings)
        with self._opening:
            if self._open is None or self._open[0] != settings:
                self._close()
                registry = Registry(ObjectStore.connect(settings))
                self._open = (settings, FerryClient(settings), registry)
            _, client, registry = self._open
        return ReleaseContext(
            settings, config.release, registry, client.online, client, "the Airflow UI"
        )

    @contextmanager
    def scoring(self) -> Iterator[FerryClient]:
        """Give the client to one request at a time."""
        client = self.context().client
        with self._scoring:
            yield client

    def config(self) -> PipelineConfig:
        """Return `pipeline.yaml` as it is now."""
        return self._config(self._load_settings())

    @staticmethod
    def _config(settings: Settings) -> PipelineConfig:
        return load_pipeline_config(settings.config)

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()

    def close(self) -> None:
        """Close what is open."""
        with self._opening:
            self._close()
            self._open = None

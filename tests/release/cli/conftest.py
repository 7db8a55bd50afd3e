"""`ferry` on the services of a test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.cli_output import console
from pipelines.config import Settings
from pipelines.release.context import ReleaseContext
from tests.release.cli.command import (
    Ferry,
    Output,
)


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """A command configures logging as a process of its own may."""
    loggers = [logging.getLogger(name) for name in (None, "ferry", "pipelines")]
    handlers, levels = list(loggers[0].handlers), [logger.level for logger in loggers]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


@pytest.fixture
def ferry_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[[Settings], Ferry]:
    """Return a function that makes a `ferry` whose environment names these settings."""
    monkeypatch.setattr(console, "width", 80)

    def use(settings: Settings) -> Ferry:
        for name, value in {
            "FERRY_HOME": tmp_path / "no embedded services",
            "FERRY_LAKE": settings.lake_root,
            "FERRY_CONFIG": settings.config,
            "FERRY_REDIS_URL": settings.redis_url.get_secret_value(),
            "FERRY_REDIS_PREFIX": settings.redis_prefix,
            "FERRY_S3_ENDPOINT_URL": settings.s3_endpoint_url,
            "FERRY_BUCKET": settings.bucket,
            "FERRY_TF_SERVING": ",".join(":".join(map(str, r)) for r in settings.tf_serving),
            "FERRY_MODEL_DIR": settings.model_dir,
        }.items():
            monkeypatch.setenv(name, str(value))

        def run(*arguments: object) -> Output:
            capsys.readouterr()
            code = 0
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as ended:
                code = int(ended.code or 0)
            return Output(code, *capsys.readouterr())

        return run

    return use


@pytest.fixture
def ferry(tables_only: ReleaseContext, ferry_for: Callable[[Settings], Ferry]) -> Ferry:
    """`ferry` on the services of `tables_only`."""
    return ferry_for(tables_only.settings)

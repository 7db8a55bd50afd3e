from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.spark_archive import archive_options, archive_path

_SUBMIT = Path(sys.executable).parent / "spark-submit"


def spark_version(java_options: str) -> subprocess.CompletedProcess[str]:
    """Start Spark's Java with the options, and have it say its version."""
    return subprocess.run(
        [_SUBMIT, "--version"],
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_SUBMIT_OPTS": java_options},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_archive_fits_the_spark_that_is_installed() -> None:
    # Java ends if it can't use it.
    done = spark_version(f"{archive_options()} -Xshare:on")
    assert done.returncode == 0, (archive_options(), done)
    assert "version" in done.stderr
    assert str(archive_path()) in archive_options()


def test_an_archive_of_something_else_is_passed_over_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = spark_version("")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    archive_path().write_bytes(b"no archive" * 1000)
    done = spark_version(archive_options())
    assert str(tmp_path) in archive_options()
    assert (done.returncode, done.stdout, done.stderr) == (0, usual.stdout, usual.stderr)


def test_without_an_archive_there_is_no_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert archive_options() == ""

"""`ferry data` as somebody types it; reread runs as the process that it is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli import app
from pipelines.config import PROJECT_ROOT, Settings
from pipelines.data.identity import LakeSource, Origin
from pipelines.errors import DataError, OtherSourceError, ReleaseError
from pipelines.online.store import OnlineStore
from tests.data.landing import D2, D3, at, config, put_events, put_items


@pytest.fixture
def settings(settings_for: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Settings:
    settings = settings_for(model_server=False)
    for name, value in {
        "FERRY_HOME": Path(settings.lake_root).parent / "no embedded services",
        "FERRY_LAKE": settings.lake_root,
        "FERRY_CONFIG": settings.config,
        "FERRY_REDIS_URL": settings.redis_url.get_secret_value(),
        "FERRY_REDIS_PREFIX": settings.redis_prefix,
        "FERRY_S3_ENDPOINT_URL": settings.s3_endpoint_url,
        "FERRY_BUCKET": settings.bucket,
        "FERRY_TF_SERVING": "127.0.0.1:1:1",
        "FERRY_MODEL_DIR": settings.model_dir,
    }.items():
        monkeypatch.setenv(name, str(value))
    return settings


def data(*arguments: str, answer: str = "") -> str:
    """Return what a command prints; its error is raised."""
    result = CliRunner().invoke(app, ["data", *arguments], input=answer)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_synthetic_data_set_ends_yesterday_and_goes_on(settings: Settings) -> None:
    size = ("--users", "5", "--items", "9", "--days", "3")
    today = datetime.now(UTC).date()
    data("synth", *size, "--end-date", str(today - timedelta(days=3)))
    assert "2 days added" in data("synth", *size)
    origin = Origin.of_landing(settings.lake)
    assert origin is not None
    assert origin.last_day == today - timedelta(days=1)
    assert "0 days added" in data("synth", *size)


def test_reset_asks_and_keeps_away_from_a_run_at_work(settings: Settings) -> None:
    data("synth", "--users", "5", "--items", "9", "--days", "3")
    ratings = Path(settings.lake.landing) / "ratings"
    data("reset", answer="n\n")
    assert ratings.exists()
    store = OnlineStore.connect(settings)
    with (
        store.leases.hold("lake", "a run"),
        pytest.raises(ReleaseError, match="lake is being changed by a run"),
    ):
        data("reset", "--yes")
    store.close()
    assert ratings.exists()
    assert "removed: landing" in data("reset", answer="y\n")
    assert not ratings.exists()
    assert "the lake is empty" in data("reset", "--yes")


def test_adopt_goes_on_with_data_that_have_moved(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataError, match="no source of this lake is known"):
        data("adopt", "--yes")
    before = LakeSource.configured(config(), settings.lake)
    before.model_copy(update={"events_path": "/old/ratings"}).save(settings.lake.made_from)
    assert "goes on with {landing}/ratings" in data("adopt", answer="y\n")
    # Rows of another time zone have other days: these can't stand beside each other.
    before.model_copy(update={"time_zone": "Asia/Tokyo"}).save(settings.lake.made_from)
    with pytest.raises(DataError, match=r"time_zone UTC \(was Asia/Tokyo\)"):
        data("adopt", "--yes")


def test_another_data_set_is_refused_where_it_is_brought_in(settings: Settings) -> None:
    lake = settings.lake
    data("synth", "--users", "5", "--items", "9", "--days", "3")
    # As an ingest leaves it before it writes the first row.
    LakeSource.configured(config(), lake).save(lake.made_from)
    with pytest.raises(OtherSourceError, match="users, 9 items"):
        data("synth", "--users", "6", "--items", "9", "--days", "3")


def test_data_are_not_brought_in_under_a_run_that_reads(settings: Settings) -> None:
    store = OnlineStore.connect(settings)
    with (
        store.leases.hold("lake", "a run"),
        pytest.raises(ReleaseError, match="lake is being changed by a run"),
    ):
        data("synth", "--users", "5", "--items", "9", "--days", "3")
    store.close()
    assert not Path(settings.lake.landing).exists()


def test_reread_finds_the_days_and_reads_them_again(settings: Settings) -> None:
    """A process with a Java of its own: some 15 seconds of a processor."""
    from pipelines.data.ingest import ingest
    from pipelines.spark import build_session

    lake = settings.lake
    put_items(lake)
    put_events(lake, f"1,1,4.0,{at(D2)}", f"1,1,4.0,{at(D3)}")
    noon = datetime(D3.year, D3.month, D3.day, 12, tzinfo=UTC)
    ingest(build_session("ferry-tests", "local[2]"), config(), lake, D3, noon)
    put_events(lake, f"1,1,4.0,{at(D2)}", f"1,1,4.0,{at(D3)}", f"2,1,4.0,{at(D3, 80_000)}")
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "data", "reread"],
        cwd=PROJECT_ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{D3}: read at {noon:%Y-%m-%d %H:%M} UTC",
        f"{D3}: 1 added",
    ]

"""Whether what is live is from this lake: rules, and lakes that can't be read."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from pipelines.lake import Lake
from pipelines.models.base import Built
from pipelines.release import origin
from pipelines.release.context import ReleaseContext
from pipelines.release.manifest import Manifest
from pipelines.release.origin import (
    CurrentLake,
    are_of_different_lakes,
    is_from_another_lake,
    lake_note,
    read_current_lake,
)
from pipelines.release.publish import publish
from tests.release.versions import plan


@pytest.fixture
def manifest(tables_only: ReleaseContext, tmp_path: Path) -> Manifest:
    return publish(
        tables_only.registry,
        plan("recs", 1),
        "recs",
        Built(metrics={}, params={}),
        [],
        {},
        tmp_path,
    )


def of_lake(manifest: Manifest, lake: Any) -> Manifest:
    return manifest.model_copy(update={"data": {"training": {"lake_id": lake}}})


FOREIGN = (
    "from another lake: it was trained on data that /lake does not hold; "
    "'ferry retire recs --reason …' takes it offline, a newer version replaces it"
)
UNREADABLE = "whether it is from this lake is unknown: /lake can't be read (refused)"


def test_what_is_from_another_lake(manifest: Manifest) -> None:
    for trained_on, lake, expected, note in (
        ("demo", CurrentLake("/lake", "demo"), False, None),
        ("demo", CurrentLake("/lake", "own"), True, FOREIGN),
        # It was emptied.
        ("demo", CurrentLake("/lake"), True, FOREIGN),
        # An earlier Ferry built it.
        (None, CurrentLake("/lake", "own"), None, None),
        (None, CurrentLake("/lake", problem="refused"), None, None),
        ("demo", CurrentLake("/lake", problem="refused"), None, UNREADABLE),
    ):
        of = of_lake(manifest, trained_on)
        assert (is_from_another_lake(of, lake), lake_note(of, lake)) == (expected, note)
    # Neither data nor a name of the lake.
    assert is_from_another_lake(manifest, CurrentLake("/lake", "own")) is None
    demo, own, unknown = (of_lake(manifest, lake) for lake in ("demo", "own", None))
    assert are_of_different_lakes(demo, own)
    assert not any(are_of_different_lakes(demo, other) for other in (demo, unknown, manifest))


def test_the_lake_of_this_moment(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    assert read_current_lake(lake) == CurrentLake(lake.root)
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "_lake_id").write_text("demo\n")
    assert read_current_lake(lake) == CurrentLake(lake.root, "demo")


def test_a_lake_that_can_t_be_read_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "ratings" / "_lake_id").mkdir(parents=True)
    lake = read_current_lake(Lake(str(tmp_path)))
    assert lake.lake_id is None
    assert "_lake_id' is a directory" in str(lake.problem)
    unknown = read_current_lake(Lake("nothing://lake"))
    assert "nothing://lake" in str(unknown.problem)
    assert "\n" not in str(unknown.problem)


def test_a_lake_in_object_storage(tables_only: ReleaseContext) -> None:
    objects = tables_only.registry.objects
    objects.put_text("lake/ratings/_lake_id", "demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", str(tables_only.settings.s3_endpoint_url))
        bucket = tables_only.settings.bucket
        assert read_current_lake(Lake(f"s3a://{bucket}/lake")).lake_id == "demo"
        assert read_current_lake(Lake(f"s3a://{bucket}/empty")) == CurrentLake(
            f"s3a://{bucket}/empty"
        )


def test_a_lake_that_never_answers_does_not_hold_up_a_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(origin, "_SECONDS", 1.0)
    # It takes connections, and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "test",
        }.items():
            monkeypatch.setenv(name, value)
        assert read_current_lake(Lake("s3a://bucket/lake")).problem == "no answer within 1 seconds"

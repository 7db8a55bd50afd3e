"""A SavedModel through the whole release, on a real model server."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.health import free_ports
from pipelines.config import ReleaseConfig, Replica, Settings
from pipelines.errors import FerryError, ReleaseError, ServiceError, VerificationError
from pipelines.models.base import Built, ScoredRequest
from pipelines.online.ranking_inputs import serving_inputs
from pipelines.online.tf_serving import ModelServer
from pipelines.release.activate import activate
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.manifest import Manifest
from pipelines.release.publish import publish
from pipelines.release.serving_config import read_config
from pipelines.release.stage_model import bring_model, load_model
from pipelines.run import RunPlan, make_version
from tests.release.versions import raw_row, save_model

if TYPE_CHECKING:
    from collections.abc import Callable

UNIT = "embedding_mlp"
DAY = date(2026, 3, 1)
ROWS: list[dict[str, Any]] = [
    raw_row(user_id="1", item_id="2", user_rating_mean=3.5),
    raw_row(user_id="nobody", item_id="nothing"),
]


@pytest.fixture
def context(settings: Settings) -> Iterator[ReleaseContext]:
    with release_context(settings, ReleaseConfig(load_timeout_seconds=10), "test run") as opened:
        yield opened


def build(
    context: ReleaseContext, folder: Path, attempt: int, *, golden_weight: float | None = None
) -> Manifest:
    weight = attempt / 10
    version = make_version(DAY, attempt)
    plan = RunPlan(
        run_date=DAY, version=version, run_type="manual", run_id=f"run {attempt}", units=(UNIT,)
    )
    workdir = folder / str(version)
    workdir.mkdir()
    answers = golden_weight or weight
    golden = [
        ScoredRequest(inputs=row, score=answers * (row["user_rating_mean"] or 0.0)) for row in ROWS
    ]
    built = Built(
        metrics={},
        params={},
        files={"saved_model": save_model(workdir / "model", weight)},
        golden=golden,
    )
    return publish(context.registry, plan, UNIT, built, [], {}, workdir)


def release(context: ReleaseContext, folder: Path, attempt: int) -> Manifest:
    manifest = build(context, folder, attempt)
    bring_model(context, manifest)
    load_model(context, manifest)
    assert activate(context, manifest).outcome == "live"
    return manifest


def labels(context: ReleaseContext) -> dict[str, int]:
    (model,) = read_config(context.settings.model_dir).model_config_list.config
    return dict(model.version_labels)


def test_three_versions_go_live_one_after_another(context: ReleaseContext, tmp_path: Path) -> None:
    released = [release(context, tmp_path, attempt).version for attempt in (1, 2, 3)]
    with ModelServer(context.settings.tf_serving[0]) as server:
        inputs = serving_inputs(ROWS)
        for predict in (server.predict_grpc, server.predict_rest):
            assert predict(UNIT, released[2], inputs) == pytest.approx([0.3 * 3.5, 0.0])
            # The predecessor stays loaded for a rollback.
            assert predict(UNIT, released[1], inputs) == pytest.approx([0.2 * 3.5, 0.0])
    assert labels(context) == {"stable": released[2], "canary": released[2]}


def test_what_no_pointer_needs_is_unloaded_when_the_next_version_is_loaded(
    context: ReleaseContext, tmp_path: Path
) -> None:
    released = [release(context, tmp_path, attempt).version for attempt in (1, 2, 3)]
    candidate = build(context, tmp_path, 4)
    bring_model(context, candidate)
    load_model(context, candidate)
    with ModelServer(context.settings.tf_serving[0]) as server:
        states = {version: state for version, (state, _) in server.versions(UNIT).items()}
    assert states[candidate.version] == states[released[2]] == states[released[1]] == "AVAILABLE"
    assert states.get(released[0], "END") in ("UNLOADING", "END")


def test_staging_labels_the_canary_and_leaves_stable(
    context: ReleaseContext, tmp_path: Path
) -> None:
    live = release(context, tmp_path, 1).version
    candidate = build(context, tmp_path, 2)
    bring_model(context, candidate)
    load_model(context, candidate)
    assert labels(context) == {"stable": live, "canary": candidate.version}
    assert context.online.pointers.get(UNIT).version == live  # type: ignore[union-attr]


def test_wrong_scores_keep_the_old_version_live(context: ReleaseContext, tmp_path: Path) -> None:
    live = release(context, tmp_path, 1).version
    wrong = build(context, tmp_path, 2, golden_weight=0.2001)
    bring_model(context, wrong)
    load_model(context, wrong)
    with pytest.raises(
        VerificationError, match=r"through gRPC at .* scores 0.69999\d*, the trainer"
    ):
        activate(context, wrong)
    assert context.online.pointers.get(UNIT).version == live  # type: ignore[union-attr]
    with ModelServer(context.settings.tf_serving[0]) as server:
        assert server.predict_rest(UNIT, live, serving_inputs(ROWS))


def test_a_model_that_does_not_load_is_named_and_the_config_put_back(
    context: ReleaseContext, tmp_path: Path
) -> None:
    live = release(context, tmp_path, 1).version
    before = read_config(context.settings.model_dir)
    broken = build(context, tmp_path, 2)
    target = bring_model(context, broken)
    (target / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(FerryError, match=f"{UNIT} {broken.version}"):
        load_model(context, broken)
    assert read_config(context.settings.model_dir) == before
    with ModelServer(context.settings.tf_serving[0]) as server:
        assert server.versions(UNIT)[live][0] == "AVAILABLE"


def test_an_unreachable_replica_is_named_and_nothing_switches(
    context: ReleaseContext, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    live = release(context, tmp_path, 1).version
    before = read_config(context.settings.model_dir)
    two = (*context.settings.tf_serving, Replica("127.0.0.1", port, port))
    settings = context.settings.model_copy(update={"tf_serving": two})
    half = replace(context, settings=settings)
    candidate = build(context, tmp_path, 2)
    bring_model(half, candidate)
    with pytest.raises(ServiceError, match=f"model server at 127.0.0.1:{port}"):
        load_model(half, candidate)
    assert read_config(settings.model_dir) == before
    assert context.online.pointers.get(UNIT).version == live  # type: ignore[union-attr]


def test_a_corrupt_saved_model_never_reaches_the_disk(
    context: ReleaseContext, tmp_path: Path
) -> None:
    manifest = build(context, tmp_path, 1)
    key = context.registry.key(UNIT, manifest.version, "saved_model/saved_model.pb")
    context.registry.objects.put_text(key, "spoiled")
    with pytest.raises(ReleaseError, match="SHA-256 differs"):
        bring_model(context, manifest)
    assert not (context.settings.model_dir / UNIT / str(manifest.version)).exists()


def test_missing_values_become_nan_and_empty_text() -> None:
    columns = serving_inputs(ROWS)
    assert columns["user_id"] == ["1", "nobody"]
    assert columns["item_genre_1"] == ["", ""]
    assert columns["user_rating_mean"][0] == 3.5
    assert math.isnan(float(columns["user_rating_mean"][1]))


def test_the_empty_configuration_is_never_sent(settings_for: Callable[..., Settings]) -> None:
    from pipelines.online import serving_protos as pb

    replica = settings_for(model_server=False).tf_serving[0]
    with ModelServer(replica) as server, pytest.raises(ValueError, match="unload every model"):
        server.reload(pb.model_server_config_pb2.ModelServerConfig(), 1.0)

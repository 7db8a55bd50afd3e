"""A unit of tables through the whole release, on real Spark, object storage and Redis."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from pipelines.config import ReleaseConfig, Settings
from pipelines.errors import CapacityError, ReleaseError, ServiceError, VerificationError
from pipelines.online.client import FerryClient
from pipelines.release.activate import activate, refusal
from pipelines.release.context import ReleaseContext, release_context
from pipelines.release.manifest import Manifest
from pipelines.release.origin import read_current_lake
from pipelines.release.runners import SparkRunner
from pipelines.release.stage_tables import stage_tables
from pipelines.release.status import unit_status
from pipelines.release.verify import verify_version

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

from tests.release.spark_tables import USERS, build, release


@pytest.fixture
def context(settings_for: Callable[..., Settings]) -> Iterator[ReleaseContext]:
    settings = settings_for(model_server=False)
    with release_context(settings, ReleaseConfig(golden_size=16), "test run") as opened:
        yield opened


def test_a_version_goes_live_and_answers(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path
) -> None:
    first = release(spark, context, tmp_path, 1)
    with FerryClient(context.settings) as client:
        answer = client.recommend("7")
        assert [item.item_id for item in answer.items] == ["1007", "7", "1"]
        assert answer.version == first.version
        assert [item.title for item in answer.items] == [None, 'Title, "7" é', 'Title, "1" é']
        cold = client.recommend("nobody")
        assert [item.item_id for item in cold.items] == ["3", "1"]
        assert "nobody" in (cold.note or "")

        second = release(spark, context, tmp_path, 2)
        assert client.recommend("7").items[0].item_id == "2007"
    status = unit_status(context, "recs", read_current_lake(context.settings.lake), second.run_date)
    assert status.live is not None
    assert (status.live.version, status.live.previous) == (second.version, first.version)
    assert status.rows == {"user_items": USERS, "popular": 1, "titles": USERS}
    active = context.registry.active("recs")
    assert active is not None
    assert (active.version, active.previous) == (second.version, first.version)
    assert [a.version for a in context.registry.history("recs")] == [first.version, second.version]


def test_the_manifest_seals_every_file(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path
) -> None:
    manifest = build(spark, context, tmp_path, 1)
    stored = set(context.registry.objects.list_keys("models/recs/"))
    folder = f"models/recs/{manifest.version}/"
    assert stored == {f"{folder}{e.name}" for e in manifest.files} | {f"{folder}manifest.json"}
    assert context.registry.sealed("recs", manifest.version) == manifest
    assert json.loads(manifest.model_dump_json())["metrics"]["ndcg_at_10"]["baselines"]


def test_wrong_answers_keep_the_old_version_live(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path
) -> None:
    first = release(spark, context, tmp_path, 1)
    second = build(spark, context, tmp_path, 2)
    stage_tables(context, second, SparkRunner(spark))
    golden = context.registry.golden(second, tmp_path)
    rows = next(t.rows for t in golden.tables if t.table == "user_items")
    spoil(context, second, next(iter(rows)))

    with pytest.raises(VerificationError, match=r"table user_items, id \d+: Redis at .* answers"):
        activate(context, second)
    pointer = context.online.pointers.get("recs")
    assert pointer is not None
    assert pointer.version == first.version
    assert context.registry.active("recs").version == first.version  # type: ignore[union-attr]


def spoil(context: ReleaseContext, manifest: Manifest, user: str) -> None:
    from pipelines.online.layout import bucket_of

    meta = next(t for t in manifest.tables if t.name == "user_items")
    key = context.online.keys("recs").bucket(
        "user_items", manifest.version, bucket_of(user, meta.buckets)
    )
    assert context.online._redis.hexists(key, user)
    context.online._redis.hset(key, user, b"\x01" + b"\x00" * 7)


def spoil_at_the_move(
    context: ReleaseContext, monkeypatch: pytest.MonkeyPatch, manifest: Manifest, user: str
) -> None:
    move = context.online.pointers.move

    def spoiling_move(*args: Any, **kwargs: Any) -> None:
        spoil(context, manifest, user)
        move(*args, **kwargs)

    monkeypatch.setattr(context.online.pointers, "move", spoiling_move)


def test_a_disagreement_after_the_switch_goes_back(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = release(spark, context, tmp_path, 1)
    former = context.online.pointers.get("recs")
    second = build(spark, context, tmp_path, 2)
    stage_tables(context, second, SparkRunner(spark))
    golden = context.registry.golden(second, tmp_path)
    user = next(iter(next(t.rows for t in golden.tables if t.table == "user_items")))

    # What goes wrong in the instant of the switch: real data, spoiled between the two looks.
    spoil_at_the_move(context, monkeypatch, second, user)
    with pytest.raises(VerificationError):
        activate(context, second)
    pointer = context.online.pointers.get("recs")
    assert pointer is not None
    assert former is not None
    # Who was live is live again, since when it was; that it moved meanwhile can be seen.
    assert (pointer.version, pointer.since) == (former.version, former.since)
    assert (pointer.replaced, pointer.epoch) == (second.version, former.epoch + 2)
    active = context.registry.active("recs")
    assert active is not None
    assert active.version == first.version
    assert (active.kind, active.state) == ("went_back", "live")
    assert f"{second.version} went back: recs {second.version}, table user_items" in active.why


def test_the_first_version_ever_goes_back_to_nothing(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = build(spark, context, tmp_path, 1)
    stage_tables(context, manifest, SparkRunner(spark))
    golden = context.registry.golden(manifest, tmp_path)
    user = next(iter(next(t.rows for t in golden.tables if t.table == "user_items")))
    spoil_at_the_move(context, monkeypatch, manifest, user)
    with pytest.raises(VerificationError):
        activate(context, manifest)
    assert context.online.pointers.get("recs") is None
    active = context.registry.active("recs")
    assert active is not None
    assert (active.version, active.state) == (None, "live")


def test_an_older_version_is_refused_with_the_reason(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path
) -> None:
    older = build(spark, context, tmp_path, 1)
    stage_tables(context, older, SparkRunner(spark))
    newer = release(spark, context, tmp_path, 2)
    activation = activate(context, older)
    assert activation.outcome == "refused"
    assert f"{older.version} is older than {newer.version}" in activation.reason
    assert refusal(context, newer, "if_newest") is None


def test_staging_and_activating_again_change_nothing(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path
) -> None:
    manifest = release(spark, context, tmp_path, 1)
    pointer = context.online.pointers.get("recs")
    stage_tables(context, manifest, SparkRunner(spark))
    assert activate(context, manifest).reason.endswith("already live")
    assert context.online.pointers.get("recs") == pointer
    assert len(context.registry.history("recs")) == 1
    assert any("user_items" in check for check in verify_version(context, manifest))


def test_a_corrupt_artifact_is_not_staged(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path
) -> None:
    manifest = build(spark, context, tmp_path, 1)
    part = manifest.table_parts("titles")[0]
    context.registry.objects.put_text(
        context.registry.key("recs", manifest.version, part.name), "spoiled"
    )
    with pytest.raises(ReleaseError, match=r"^object storage at .*titles.*SHA-256 differs"):
        stage_tables(context, manifest, SparkRunner(spark))
    assert context.online.table_meta("recs", manifest.version) == {}
    assert context.online.pointers.get("recs") is None


def test_a_redis_that_refuses_is_named_also_by_the_executors(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path, redis_client: redis.Redis
) -> None:
    manifest = build(spark, context, tmp_path, 1)
    redis_client.config_set("min-replicas-to-write", "1")
    try:
        with pytest.raises(ServiceError, match=r"Redis at 127\.0\.0\.1:\d+: .*replicas"):
            stage_tables(context, manifest, SparkRunner(spark))
    finally:
        redis_client.config_set("min-replicas-to-write", "0")
    assert context.online.table_meta("recs", manifest.version) == {}
    stage_tables(context, manifest, SparkRunner(spark))
    assert activate(context, manifest).outcome == "live"


def test_a_version_that_does_not_fit_is_refused_before_anything_is_written(
    spark: SparkSession, context: ReleaseContext, tmp_path: Path, redis_client: redis.Redis
) -> None:
    manifest = build(spark, context, tmp_path, 1)
    before = redis_client.config_get("maxmemory")["maxmemory"] or "0"
    redis_client.config_set("maxmemory", redis_client.info("memory")["used_memory"] + 1000)
    try:
        with pytest.raises(CapacityError, match=r"needed, .* free of maxmemory .*ferry retention"):
            stage_tables(context, manifest, SparkRunner(spark))
    finally:
        redis_client.config_set("maxmemory", before)
    assert not any(b":recs:" in key for key in redis_client.scan_iter())

"""The steps that read and write the lake: ingest, and features."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.config import PipelineConfig, Settings, load_pipeline_config
from pipelines.errors import IdleDayError, NoDataError, NothingToDoError, ServiceError
from pipelines.models.base import BuildInputs
from pipelines.online.leases import Lease
from pipelines.patience import Patience
from pipelines.release.context import release_context
from pipelines.release.gating import judge_data
from pipelines.release.tables import PreparedTables, prepare_tables
from pipelines.run import RunPlan
from pipelines.spark import size_shuffles, stored_bytes
from pipelines.steps import unchanged
from pipelines.steps.run_folder import reopen
from pipelines.work_time import timed

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger(__name__)

#: Runs that read or change the lake wait so long for each other: several days of a backfill.
_LAKE_WAIT_SECONDS = 3600.0
#: Of so few ratings (Parquet, some three million) the features take less time than another start
#: of Spark, with its code still to be compiled.
_SMALL_BYTES = 32 << 20


@contextmanager
def _lake(settings: Settings, config: PipelineConfig, plan: RunPlan) -> Iterator[Lease]:
    """Keep other runs from the lake: none may read a day that another one is writing."""
    with (
        release_context(settings, config.release, plan.run_id) as context,
        context.online.leases.hold(
            "lake", plan.run_id, label=f"the lake {settings.lake.root}", wait=_LAKE_WAIT_SECONDS
        ) as lease,
    ):
        yield lease
        # Whoever took it meanwhile may have written what was read.
        lease.require()


@contextmanager
def lake_to_itself(settings: Settings, owner: str) -> Iterator[None]:
    """Keep runs from the lake while somebody changes it, or its landing area, by hand.

    Without Redis no run can be at work, so that there is nobody to keep from it.

    Raises:
        ReleaseError: a run is reading or writing it.
    """
    config = load_pipeline_config(settings.config)
    with release_context(settings, config.release, owner, Patience.READER) as context:
        try:
            context.online.ping()
        except ServiceError as error:
            log.info("%s: no run can be at work", error)
            yield
            return
        label = f"the lake {settings.lake.root}"
        with context.online.leases.hold("lake", owner, label=label) as lease:
            yield
            lease.require()


@timed
def ingest_step(spark: SparkSession, settings: Settings, plan: RunPlan) -> None:
    """Bring the run date's data into the lake, and the catalogue of that moment into the run.

    Then it is decided which units have something new (:mod:`pipelines.steps.unchanged`).

    Raises:
        NoDataError: the day has no data, and is not passed over as an idle one.
        NothingToDoError: in a backfill, the day has no data.
    """
    from pipelines.data.ingest import ingest
    from pipelines.data.synthetic import go_on

    config = load_pipeline_config(settings.config)
    paths = settings.lake.run(plan.version)
    reopen(paths)
    for earlier in (paths.features_done, paths.inputs):
        Path(earlier).unlink(missing_ok=True)
    try:
        with _lake(settings, config, plan):
            if config.data.events.is_landed and (days := go_on(settings.lake, plan.run_date)):
                log.info("the synthetic data set goes on: %s days more", days)
            try:
                summary = ingest(spark, config.data, settings.lake, plan.run_date)
            except IdleDayError as error:
                if plan.run_type == "backfill":
                    raise
                unchanged.decide_idle(settings, config, plan, error)
                return
            # Another day's ingest replaces the lake's, maybe before this run's features read it.
            spark.read.parquet(settings.lake.items).write.mode("overwrite").parquet(paths.catalogue)
            unchanged.decide(settings, config, plan)
    except NoDataError as error:
        if plan.run_type != "backfill":
            raise
        raise NothingToDoError(f"{plan.run_date} is left out: {error}") from error
    path = Path(paths.ingest_summary)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(summary.model_dump_json(indent=2), encoding="utf-8")
    for line in summary.describe_days():
        log.info("ingest: %s", line)


@timed
def features_step(spark: SparkSession, settings: Settings, plan: RunPlan) -> None:
    """Compute samples and features, the rankers' feature tables, and the verdicts on the data."""
    from pipelines.features.samples import build_features
    from pipelines.models.feature_tables import feature_tables

    config = load_pipeline_config(settings.config)
    paths = settings.lake.run(plan.version)
    reopen(paths)
    size_shuffles(spark, settings.lake.ratings)
    with _lake(settings, config, plan):
        build_features(
            spark,
            config,
            settings.lake,
            paths,
            plan.run_date,
            plan.training_days,
            catalogue=paths.catalogue,
            keep=True,
        )
        unchanged.note_data(settings, config, plan)
    inputs = BuildInputs(plan.run_date, paths, config, Path(paths.unit("features")))
    judge_data(spark, inputs)
    prepare(config, feature_tables(spark, inputs), Path(paths.feature_tables))


def features_at_once(spark: SparkSession, settings: Settings, plan: RunPlan) -> None:
    """Compute the features of a small lake in the session of its ingest: Spark starts only once.

    What fails here fails again in the task of the features, which says so.
    """
    if stored_bytes(settings.lake.ratings) > _SMALL_BYTES:
        return
    if unchanged.reason_to_skip(settings, plan, None):
        return
    try:
        features_step(spark, settings, plan)
    except Exception as error:  # noqa: BLE001
        log.warning("the features are left to their own task: %s", error)
        return
    Path(settings.lake.run(plan.version).features_done).touch()


def take_features(settings: Settings, plan: RunPlan) -> bool:
    """Tell whether ingest has computed this run's features, and nobody has asked before.

    So whoever clears the task of the features has them computed anew.
    """
    try:
        Path(settings.lake.run(plan.version).features_done).unlink()
    except FileNotFoundError:
        return False
    log.info("the features were computed with the ingest")
    return True


def prepare(config: PipelineConfig, tables: Any, folder: Path) -> PreparedTables:
    """Write tables below `folder` as `pipeline.yaml` wants them published."""
    return prepare_tables(
        tables,
        folder,
        item_id_type=config.data.item_id_type,
        bucket_size=config.release.bucket_size,
        golden_size=config.release.golden_size,
    )

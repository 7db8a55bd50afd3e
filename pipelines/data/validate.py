"""Which rows of the events keep the contract, and what is wrong with the others."""

from __future__ import annotations

from datetime import date, timedelta

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sf

from pipelines.config import DataConfig
from pipelines.data.contract import DAY, EARLIEST, LATEST, Reason
from pipelines.data.source import FILE, IS_MALFORMED, RAW
from pipelines.data.values import as_epoch_seconds, as_id, as_number, as_text, day_of, is_blank


def validate(rows: DataFrame, config: DataConfig, file_day: date) -> DataFrame:
    """Return the rows as events, each with ``reason`` (null if accepted), ``detail``, ``raw``, dt.

    ``dt`` is the day that the row belongs to, in the data's time zone: the timestamp's, or
    `file_day` where that can't be read. Where the source has files for each day, `file_day` is the
    day of the file: a good row that came up to ``late_days`` later has its own day, one that is
    rejected that of its file. The file that it stands in is passed on.
    """
    types = {field.name: field.dataType for field in rows.schema.fields}
    texts = {n: as_text(sf.col(n), types[n]) for n in ("user_id", "item_id", "rating", "timestamp")}
    seconds = as_epoch_seconds(
        sf.col("timestamp"), types["timestamp"], config.events.timestamp_format
    )
    in_range = (sf.col("_seconds") >= EARLIEST.timestamp()) & (
        sf.col("_seconds") < LATEST.timestamp()
    )
    values = rows.select(
        as_id(texts["user_id"], config.user_id_type).alias("user_id"),
        as_id(texts["item_id"], config.item_id_type).alias("item_id"),
        as_number(texts["rating"]).alias("rating"),
        seconds.alias("_seconds"),
        *(text.alias(f"_{name}") for name, text in texts.items()),
        RAW,
        IS_MALFORMED,
        FILE,
    ).withColumn(
        "timestamp",
        sf.when(
            in_range & ~sf.col(IS_MALFORMED),
            sf.timestamp_micros(sf.round(sf.col("_seconds") * 1e6).try_cast("bigint")),
        ),
    )
    day = sf.lit(file_day)
    own_day = sf.coalesce(day_of(sf.col("timestamp"), config.time_zone), day)
    if config.events.is_daily:
        own_day = sf.when(sf.col("_problem").isNull(), own_day).otherwise(day)
    return values.withColumn("_problem", sf.coalesce(*_problems(config, file_day))).select(
        "user_id",
        "item_id",
        "rating",
        "timestamp",
        sf.col("_problem.reason").alias("reason"),
        sf.col("_problem.detail").alias("detail"),
        sf.when(sf.col("_problem").isNotNull(), sf.col(RAW)).alias("raw"),
        own_day.alias(DAY),
        FILE,
    )


def _problems(config: DataConfig, file_day: date) -> list[Column]:
    """Return one expression a rule, in the order of :class:`Reason`: null or what is wrong."""
    rating, seconds = sf.col("rating"), sf.col("_seconds")
    expected = {"int64": "a 64-bit integer", "string": "a text"}
    limits = f"{config.min_rating:g} to {config.max_rating:g}"
    problems = [
        _problem(
            sf.col(IS_MALFORMED),
            Reason.MALFORMED_ROW,
            sf.lit("the row can't be split into columns"),
        ),
        *_id_problems("user_id", expected[config.user_id_type]),
        *_id_problems("item_id", expected[config.item_id_type]),
        _missing("rating", Reason.RATING_MISSING),
        _problem(rating.isNull(), Reason.RATING_INVALID, _says("rating", "is not a number")),
        _problem(
            sf.isnan(rating) | (sf.abs(rating) == float("inf")),
            Reason.RATING_NOT_FINITE,
            _says("rating", "is not finite"),
        ),
        _problem(
            ~rating.between(config.min_rating, config.max_rating),
            Reason.RATING_OUT_OF_RANGE,
            _says("rating", f"is not in {limits}"),
        ),
        _missing("timestamp", Reason.TIMESTAMP_MISSING),
        _problem(
            seconds.isNull(),
            Reason.TIMESTAMP_INVALID,
            _says("timestamp", f"is not {config.events.timestamp_format}"),
        ),
        _problem(
            sf.col("timestamp").isNull(),
            Reason.TIMESTAMP_OUT_OF_RANGE,
            _says("timestamp", f"is not in {EARLIEST:%Y} to {LATEST.year - 1}"),
        ),
    ]
    if config.events.is_daily:
        own_day = day_of(sf.col("timestamp"), config.time_zone)
        zone, days = config.time_zone, config.late_days
        problems += [
            _problem(
                own_day > sf.lit(file_day),
                Reason.OUTSIDE_DAY,
                _says("timestamp", f"is after {file_day} (data.time_zone {zone})"),
            ),
            _problem(
                own_day < sf.lit(file_day - timedelta(days=days)),
                Reason.TOO_LATE,
                _says("timestamp", f"is over {days} days before {file_day} (data.late_days)"),
            ),
        ]
    return problems


def _id_problems(name: str, expected: str) -> list[Column]:
    return [
        _missing(name, Reason(f"{name}_missing")),
        _problem(
            sf.col(name).isNull(), Reason(f"{name}_invalid"), _says(name, f"is not {expected}")
        ),
    ]


def _missing(name: str, reason: Reason) -> Column:
    return _problem(is_blank(sf.col(f"_{name}")), reason, sf.lit(f"{name} is missing"))


def _says(name: str, what: str) -> Column:
    return sf.concat(sf.lit(f"{name} '"), sf.col(f"_{name}"), sf.lit(f"' {what}"))


def _problem(condition: Column, reason: Reason, detail: Column) -> Column:
    return sf.when(
        condition, sf.struct(sf.lit(reason.value).alias("reason"), detail.alias("detail"))
    )

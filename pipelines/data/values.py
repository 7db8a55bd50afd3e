"""Reading values of a source: every expression gives null, and never fails, where it can't.

Texts must look like what they are read as. A plain cast would also take ``4d`` for a number and
``12:00`` for today's noon.
"""

from __future__ import annotations

from typing import Literal

from pyspark.sql import Column
from pyspark.sql import functions as sf
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DateType,
    DoubleType,
    FloatType,
    TimestampNTZType,
    TimestampType,
)

from pipelines.config import IdType

TimestampFormat = Literal["epoch_seconds", "epoch_millis", "iso8601"]

_INTEGER = r"^\s*[+-]?[0-9]+\s*$"
_NUMBER = r"^\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*$"
_NOT_FINITE = r"^\s*[+-]?(nan|inf|infinity)\s*$"
_DATE_FIRST = r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TWO_TO_63 = float(2**63)


def as_text(column: Column, data_type: DataType) -> Column:
    """Return a value as text; a whole floating-point number as an integer.

    (A table with missing ids often carries them as floating-point numbers.)
    """
    if isinstance(data_type, ArrayType):
        return sf.to_json(column)
    if isinstance(data_type, DoubleType | FloatType):
        is_whole = (sf.floor(column.cast("double")) == column) & (sf.abs(column) < _TWO_TO_63)
        return sf.when(is_whole, column.try_cast("bigint").cast("string")).otherwise(
            column.cast("string")
        )
    return column.cast("string")


def is_blank(text: Column) -> Column:
    """Whether a text is null or blank."""
    return text.isNull() | (sf.trim(text) == "")


def as_id(text: Column, kind: IdType) -> Column:
    """Return an id: an int64 or the text itself; null if it is none."""
    if kind == "string":
        return sf.when(~is_blank(text), text)
    return sf.when(text.rlike(_INTEGER), text.try_cast("bigint"))


def as_number(text: Column) -> Column:
    """Return a double; may be infinite or NaN if the text says so or is too large."""
    # Not left to the cast, which is particular about the spelling of infinities.
    infinity = sf.when(sf.trim(text).startswith("-"), float("-inf")).otherwise(float("inf"))
    is_nan = sf.lower(text).contains("nan")
    return sf.when(text.rlike(_NUMBER), text.try_cast("double")).when(
        sf.lower(text).rlike(_NOT_FINITE), sf.when(is_nan, float("nan")).otherwise(infinity)
    )


def as_epoch_seconds(column: Column, data_type: DataType, kind: TimestampFormat) -> Column:
    """Return seconds since 1970 as a double, exact to the microsecond.

    A column that already is a timestamp or a date is taken as such, whatever `kind` says; one
    without a time zone is UTC.
    """
    if isinstance(data_type, TimestampType | TimestampNTZType | DateType):
        return sf.unix_micros(column.cast("timestamp")) / 1e6
    text = as_text(column, data_type)
    if kind == "iso8601":
        return sf.when(
            text.rlike(_DATE_FIRST), sf.unix_micros(sf.trim(text).try_cast("timestamp")) / 1e6
        )
    return as_number(text) / (1000.0 if kind == "epoch_millis" else 1.0)


def day_of(timestamp: Column, time_zone: str) -> Column:
    """Return the day in `time_zone` on which a timestamp falls, as a date."""
    # The session's own time zone is UTC, and from_utc_timestamp shifts the wall clock against it.
    return sf.to_date(sf.from_utc_timestamp(timestamp, time_zone))


def as_year(text: Column) -> Column:
    """Return a release year as an int, or null."""
    return sf.when(text.rlike(_INTEGER), text.try_cast("int"))


def as_genres(column: Column, data_type: DataType, separator: str) -> Column:
    """Return genres as array<string>: trimmed, without repeats, in their order; empty if none."""
    if isinstance(data_type, ArrayType):
        raw = column.cast("array<string>")
    else:
        # JSON lines give a list as its JSON text.
        listed = sf.from_json(column, "array<string>")
        split = sf.split(column, f"\\Q{separator}\\E")
        raw = sf.when(sf.ltrim(column).startswith("["), listed).otherwise(split)
    trimmed = sf.transform(raw, lambda genre: sf.trim(genre))
    kept = sf.filter(trimmed, lambda g: (g != "") & (g != "(no genres listed)"))
    return sf.coalesce(sf.array_distinct(kept), sf.array().cast("array<string>"))

"""The fields of the PMML, and what every pipeline makes of those that are text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.ml.feature import StringIndexer
from pyspark.sql import functions as sf

from pipelines.errors import DataError
from pipelines.features.schema import GENRES, NUMBERS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

#: The fields of the PMML. The ids of recently liked items are left out: neither a linear model nor
#: trees can relate them to the candidate.
INPUTS = (*NUMBERS, *GENRES)


@dataclass(frozen=True)
class PresentInputs:
    """The inputs that have a value at least once: nothing can be learnt from the others."""

    numbers: tuple[str, ...]
    genres: tuple[str, ...]

    @classmethod
    def of(cls, samples: DataFrame) -> PresentInputs:
        """Return the inputs that are not null in some row of `samples`.

        Raises:
            DataError: there is none.
        """
        counts = samples.agg(*[sf.count(name).alias(name) for name in INPUTS]).first()
        present = {name for name in INPUTS if counts and counts[name]}
        if not present:
            raise DataError("samples: no feature has a value")
        return cls(
            tuple(name for name in NUMBERS if name in present),
            tuple(name for name in GENRES if name in present),
        )


def indexed(names: Sequence[str]) -> list[str]:
    """Return the columns that :func:`genre_indexer` makes of `names`."""
    return [f"{name}_index" for name in names]


def genre_indexer(names: Sequence[str]) -> StringIndexer:
    """Return the stage that numbers the values of `names`, with one number more for the others.

    That one stands for missing values and for those that the fit has not seen.
    """
    return StringIndexer(handleInvalid="keep", inputCols=list(names), outputCols=indexed(names))

"""Samples as numbers on local disk, in an order at random, to train from in constant memory.

Looking up texts in the graph would cost more than the training itself. So ids become numbers
once, by Arrow, with the numbering of the lookups in :mod:`pipelines.models.rankers.inputs`. The
rows are dealt out to files at random while they are written, and each file is shuffled as a whole
when it is read: two steps that give a uniformly random order of any number of rows, of which two
files are in memory at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import tensorflow as tf

from pipelines.features.schema import (
    ITEM_GENRES,
    ITEM_ID,
    LABEL,
    NUMBERS,
    USER_GENRES,
    USER_HISTORY,
    USER_ID,
    USER_RECENT_ITEMS,
)
from pipelines.models.rankers.samples import WINDOW_ROWS, Samples, Statistics

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Numbers of the lookups: 0 is a missing word, 1 one that is not in the vocabulary.
MISSING, UNKNOWN = 0, 1
RESERVED = 2

#: Open at once while they are written; from 134 million rows on the files grow instead.
_MAX_FILES = 512

USER, ITEM, HISTORY = "user", "item", "history"
OF_USER, OF_ITEM, NUMBERS_IN = "user_genres", "item_genres", "numbers"


@dataclass(frozen=True)
class Shape:
    """How wide the encoded inputs are: latest items of a user, from which column."""

    history: int
    has_list: bool

    @classmethod
    def of(cls, history_length: int | None) -> Shape:
        """Return the shape for ``user_history``, or with None for ``user_rated_1..5``."""
        return cls(history_length or len(USER_RECENT_ITEMS), history_length is not None)

    @property
    def ids(self) -> dict[str, int]:
        """Encoded inputs of int32 and how many of them a row has, in the order of the files."""
        return {
            USER: 1,
            ITEM: 1,
            OF_USER: len(USER_GENRES),
            OF_ITEM: len(ITEM_GENRES),
            HISTORY: self.history,
        }

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the samples that are read."""
        history = (USER_HISTORY,) if self.has_list else USER_RECENT_ITEMS
        return (USER_ID, ITEM_ID, *USER_GENRES, *ITEM_GENRES, *history, *NUMBERS, LABEL)

    @property
    def dtype(self) -> np.dtype[np.void]:
        """One row in the files."""
        return np.dtype(
            [
                ("ids", "<i4", (sum(self.ids.values()),)),
                (NUMBERS_IN, "<f4", (len(NUMBERS),)),
                (LABEL, "<f4"),
            ]
        )


def encode_words(words: pa.Array | pa.ChunkedArray, vocabulary: pa.Array) -> NDArray[np.int32]:
    """Return the numbers [n] of words: 0 for null and '', 1 for unknown ones."""
    found = pc.add(pc.index_in(words, value_set=vocabulary), RESERVED)
    numbers = pc.fill_null(found, UNKNOWN)
    missing = pc.is_null(words)
    if pa.types.is_string(words.type):
        missing = pc.or_kleene(missing, pc.equal(words, ""))
    encoded: NDArray[np.int32] = pc.if_else(missing, MISSING, numbers).to_numpy(
        **({} if isinstance(words, pa.ChunkedArray) else {"zero_copy_only": False})
    )
    return encoded.astype(np.int32, copy=False)


def encode_lists(lists: pa.ChunkedArray, vocabulary: pa.Array, length: int) -> NDArray[np.int32]:
    """Return the numbers [n, length] of lists of words, cut or filled up with 0 at the end."""
    cut = pc.list_slice(lists, 0, length)
    sizes = pc.fill_null(pc.list_value_length(cut), 0).to_numpy()
    encoded = np.zeros((len(lists), length), np.int32)
    encoded[np.arange(length) < sizes[:, None]] = encode_words(pc.list_flatten(cut), vocabulary)
    return encoded


def encode(rows: pa.Table, statistics: Statistics, shape: Shape) -> NDArray[np.void]:
    """Return `rows` with the columns of `shape` as rows of its dtype."""
    encoded = np.empty(len(rows), shape.dtype)
    columns = [
        encode_words(rows[USER_ID], statistics.users),
        encode_words(rows[ITEM_ID], statistics.items),
        *(encode_words(rows[name], statistics.genres) for name in (*USER_GENRES, *ITEM_GENRES)),
    ]
    if shape.has_list:
        columns += [*encode_lists(rows[USER_HISTORY], statistics.items, shape.history).T]
    else:
        columns += [encode_words(rows[name], statistics.items) for name in USER_RECENT_ITEMS]
    encoded["ids"] = np.stack(columns, axis=1)
    for i, name in enumerate(NUMBERS):
        encoded[NUMBERS_IN][:, i] = pc.fill_null(pc.cast(rows[name], pa.float32()), np.nan)
    encoded[LABEL] = rows[LABEL].to_numpy()
    return encoded


class EncodedSamples:
    """Encoded rows in files below one folder."""

    def __init__(self, folder: Path, shape: Shape, rows: int) -> None:
        self.shape = shape
        self.rows = rows
        self._files = sorted(folder.glob("*.bin"))

    @classmethod
    def write(
        cls,
        samples: Samples,
        chosen: ds.Expression | None,
        statistics: Statistics,
        shape: Shape,
        folder: Path,
        seed: int,
    ) -> EncodedSamples:
        """Encode the chosen rows of `samples` into an empty `folder`, dealt out at random."""
        count = samples.count(chosen)
        files = min(_MAX_FILES, max(1, -(-count // WINDOW_ROWS)))
        rng = np.random.default_rng(seed)
        with ExitStack() as stack:
            outputs = [
                stack.enter_context((folder / f"{number:05d}.bin").open("wb"))
                for number in range(files)
            ]
            for table in samples.tables(chosen, shape.columns):
                encoded = encode(table, statistics, shape)
                dealt = rng.integers(files, size=len(encoded))
                order = np.argsort(dealt, kind="stable")
                ends = np.searchsorted(dealt[order], np.arange(files + 1))
                for output, start, end in zip(outputs, ends[:-1], ends[1:], strict=True):
                    encoded[order[start:end]].tofile(output)
        return cls(folder, shape, count)

    def parts(
        self, size: int, seed: int | None = None, number: int = 0
    ) -> Iterator[NDArray[np.void]]:
        """Yield all rows, `size` at once; the last rows of a file may be fewer.

        With a `seed` the pass of each `number` has a random order of its own, the same for the same
        seed and number; without one, the order is that of the files.
        """
        for rows in _read_ahead(self._blocks(seed, number)):
            for start in range(0, len(rows), size):
                yield rows[start : start + size]

    def _blocks(self, seed: int | None, number: int) -> Iterator[NDArray[np.void]]:
        rng = None if seed is None else np.random.default_rng([seed, number])
        files = self._files if rng is None else rng.permutation(np.array(self._files))
        for file in files:
            rows = np.fromfile(file, self.shape.dtype)
            yield rows if rng is None else rows[rng.permutation(len(rows))]


def _read_ahead(blocks: Iterator[NDArray[np.void]]) -> Iterator[NDArray[np.void]]:
    """Yield `blocks`; while one is in use, the next is read by a thread."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = pool.submit(next, blocks, None)
            yield block


def columns(rows: NDArray[np.void]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return ids [n, any], numbers [n, len(NUMBERS)] and labels [n] of encoded rows."""
    # Contiguous, so that TensorFlow takes them over without looking at each row.
    ids, numbers, labels = (np.ascontiguousarray(rows[name]) for name in ("ids", NUMBERS_IN, LABEL))
    return ids, numbers, labels


def named(ids: Any, numbers: Any, shape: Shape) -> dict[str, Any]:
    """Return the encoded inputs by name; those that a row has one of are [n]."""
    parts = tf.split(ids, list(shape.ids.values()), axis=1)
    return {
        **{
            name: tf.squeeze(part, 1) if size == 1 else part
            for (name, size), part in zip(shape.ids.items(), parts, strict=True)
        },
        NUMBERS_IN: numbers,
    }

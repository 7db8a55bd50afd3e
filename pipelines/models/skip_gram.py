"""The step that item2vec and graph embeddings share: skip-gram vectors from sequences of items.

Skip-gram with hierarchical softmax (Mikolov et al. 2013), by gensim on the driver where the
sequences fit there, by Spark's Word2Vec where they don't. Both learn the same: from each word
those that are up to a random width of at most the window away, at a rate that falls from 0.025 in
proportion to the words that are done, over all passes. Only Spark begins each pass at the first
rate again, for its first 10,000 words.

Vectors have length 1, so that a dot product is a cosine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.ml.feature import Normalizer, Word2Vec
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as sf

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

# As Spark has it: the rate at the start, the least share of it, how long a sentence may be before
# it is cut, and how often the rate is lowered. gensim leaves out what is beyond this in a batch.
_LEARNING_RATE = 0.025
_LEAST_SHARE = 1e-4
_LONGEST_SENTENCE = 1000
_WORDS_PER_BATCH = 10_000


@dataclass(frozen=True)
class SkipGram:
    """How vectors of `dimension` components are fitted, in `iterations` passes.

    Sequences of up to `local_words` words together are fitted on the driver, on one core; longer
    ones by Spark, in `partitions` at once.
    """

    dimension: int
    window: int
    iterations: int
    partitions: int
    local_words: int
    seed: int

    def fit(self, sequences: DataFrame, order: Sequence[str], words: int) -> DataFrame:
        """Return ``word`` and ``vector`` (array<float> of length 1) for each word of `sequences`.

        `sequences` has ``sentence`` (array<string>) and the columns `order`, by which its rows are
        put in one order; together they have at most `words` words. On the driver, and with one
        partition, the same rows and seed give the same vectors. With more it is faster, but no
        longer so: Spark's tasks write to arrays that those of one executor share.
        """
        # One task only sorts: Spark deals the rows out to its partitions itself, one after the
        # other. Merely coalesced it would also do all that comes before, and hold the hash tables
        # of every partition's joins until its end: with hundreds of partitions more than a driver
        # has.
        ordered = sequences.repartition(1).sortWithinPartitions(*order).select("sentence")
        if words > self.local_words:
            return self._by_spark(ordered)
        # Only the numbers of the words stay: 4 bytes each.
        sentences = ordered.toArrow()["sentence"].combine_chunks()
        return sequences.sparkSession.createDataFrame(self.local_vectors(sentences))

    def _by_spark(self, ordered: DataFrame) -> DataFrame:
        model = Word2Vec(
            vectorSize=self.dimension,
            windowSize=self.window,
            maxIter=self.iterations,
            minCount=1,
            numPartitions=self.partitions,
            stepSize=_LEARNING_RATE,
            maxSentenceLength=_LONGEST_SENTENCE,
            seed=self.seed,
            inputCol="sentence",
            outputCol="unused",
        ).fit(ordered)
        return normalised(model.getVectors(), "word")

    def local_vectors(self, sentences: pa.Array) -> pa.Table:
        """Return ``word`` and ``vector`` (list of float32) for each word of `sentences`.

        `sentences` are lists of strings. The same ones and the same seed give the same vectors.
        """
        from gensim.models.word2vec import Word2Vec as LocalWord2Vec
        from gensim.models.word2vec import train_batch_sg

        corpus = _Corpus.of(sentences)
        model = LocalWord2Vec(
            vector_size=self.dimension,
            window=self.window,
            sg=1,
            hs=1,
            negative=0,
            sample=0,
            min_count=1,
            seed=self.seed % 2**32,
            # Its own sort leaves words of the same count in any order.
            sorted_vocab=0,
        )
        model.build_vocab_from_freq(dict(enumerate(corpus.counts)))
        # gensim's start is twice as wide as Spark's and the original's.
        model.wv.vectors *= 0.5
        # Its `train` hands the batches to threads, and waits for ever for one that has failed.
        work = np.zeros(self.dimension, np.float32)
        total = self.iterations * len(corpus.numbers)
        done = 0
        for _ in range(self.iterations if len(corpus.counts) > 1 else 0):
            for batch in corpus.batches():
                rate = _LEARNING_RATE * max(_LEAST_SHARE, 1 - done / total)
                train_batch_sg(model, batch, rate, work, False)
                done += sum(map(len, batch))
        vectors = model.wv.vectors.astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        flat = pa.array(vectors.astype(np.float32).ravel())
        lists = pa.FixedSizeListArray.from_arrays(flat, self.dimension)
        return pa.table({"word": corpus.words, "vector": lists.cast(pa.list_(pa.float32()))})


@dataclass(frozen=True)
class _Corpus:
    """Sentences of numbered words.

    A word's number is its place among the `words`, the most frequent first, of equals the lesser;
    `counts` are beside them. `numbers` int32 are those of all sentences, one after the other, which
    end at `ends`.
    """

    words: pa.Array
    counts: list[int]
    numbers: NDArray[np.int32]
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, sentences: pa.Array) -> _Corpus:
        encoded = sentences.flatten().dictionary_encode()
        codes = encoded.indices.to_numpy()
        counts = np.bincount(codes, minlength=len(encoded.dictionary))
        by_name = pc.rank(encoded.dictionary, tiebreaker="first").to_numpy()
        order = np.lexsort((by_name, -counts))
        number = np.empty(len(counts), np.int32)
        number[order] = np.arange(len(counts), dtype=np.int32)
        return cls(
            words=encoded.dictionary.take(pa.array(order)),
            counts=counts[order].tolist(),
            numbers=number[codes],
            ends=np.cumsum(sentences.value_lengths().to_numpy(zero_copy_only=False)),
        )

    def batches(self) -> Iterator[list[list[int]]]:
        """Give all sentences, in batches of at most 10,000 words."""
        batch: list[list[int]] = []
        size = 0
        for sentence in self._sentences():
            if size + len(sentence) > _WORDS_PER_BATCH:
                yield batch
                batch, size = [], 0
            batch.append(sentence)
            size += len(sentence)
        yield batch

    def _sentences(self) -> Iterator[list[int]]:
        start = 0
        for end in self.ends.tolist():
            for part in range(start, end, _LONGEST_SENTENCE):
                yield self.numbers[part : min(part + _LONGEST_SENTENCE, end)].tolist()
            start = end


def normalised(frame: DataFrame, key: str) -> DataFrame:
    """Return `key` and ``vector`` (array<float> of length 1), from a column of Spark's vectors."""
    unit = Normalizer(inputCol="vector", outputCol="unit").transform(frame)
    return unit.select(key, vector_to_array(sf.col("unit"), "float32").alias("vector"))

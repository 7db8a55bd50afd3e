"""Fitting a network: the same for all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import pyarrow.dataset as ds
import tensorflow as tf

from pipelines.models.rankers.encoded import EncodedSamples, Shape
from pipelines.models.rankers.inputs import encoded_inputs
from pipelines.models.rankers.loop import TrainingLoop
from pipelines.models.rankers.samples import FITTING, VALIDATION, Samples, Statistics
from pipelines.models_config import RankerConfig
from pipelines.progress import progress

#: From encoded inputs, what was learned of the samples, configuration and seed to an untrained
#: network: a probability [n] for encoded inputs of n rows. Statistics may change nothing but the
#: first axis of its weights, how many words a vocabulary has, and the values of weights.
Network = Callable[[dict[str, Any], Statistics, Any, int], keras.Model]


@dataclass(frozen=True)
class Fitted:
    """A fitted network, and what was learned of the samples before it."""

    network: keras.Model
    statistics: Statistics


@dataclass(frozen=True)
class Trainer:
    """Fits one network to parts of the samples; `folder` is for working files.

    The same samples and seed give the same weights, whatever was fitted before. TensorFlow's seeds
    are set, and its operations made deterministic, for the whole process.
    """

    network: Network
    config: RankerConfig
    samples: Samples
    shape: Shape
    seed: int
    folder: Path
    name: str

    def choose_epochs(self) -> int:
        """Return after how many passes over FITTING the loss on VALIDATION is smallest.

        ``config.epochs`` where there is nothing to watch: no samples, or only one label.
        """
        if not all(map(self.samples.has_both_labels, (FITTING, VALIDATION))):
            return self.config.epochs
        statistics = self.learn(FITTING)
        losses: list[float] = []
        with (
            self.encoded(FITTING, statistics) as fitting,
            self.encoded(VALIDATION, statistics) as validation,
        ):

            def is_enough() -> bool:
                losses.append(self.loop.loss(validation))
                return is_over(losses, self.config.patience)

            most = self.config.epochs
            self._train(statistics, fitting, most, "to choose when to stop", is_enough)
        return best_pass(losses) + 1

    def fit(self, chosen: ds.Expression | None, epochs: int, what: str) -> Fitted:
        """Fit to the chosen samples."""
        statistics = self.learn(chosen)
        with self.encoded(chosen, statistics) as encoded:
            network = self._train(statistics, encoded, epochs, what)
        self.loop.give(network)
        return Fitted(network, statistics)

    def params(self, epochs: int) -> dict[str, Any]:
        """Return what the manifest says of the training."""
        config = self.config.model_dump(mode="json", exclude={"enabled"})
        return {**config, "seed": self.seed, "chosen_epochs": epochs}

    def learn(self, chosen: ds.Expression | None) -> Statistics:
        """Return vocabularies and moments of the chosen samples."""
        return self.samples.statistics(chosen, self.config.max_vocabulary)

    @contextmanager
    def encoded(
        self, chosen: ds.Expression | None, statistics: Statistics
    ) -> Iterator[EncodedSamples]:
        """Give the chosen samples as numbers, in files that are removed after the block."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="encoded-") as folder:
            yield EncodedSamples.write(
                self.samples, chosen, statistics, self.shape, Path(folder), self.seed
            )

    def untrained(self, statistics: Statistics) -> keras.Model:
        """Return the untrained network, with all seeds set."""
        # So that layers have the same names in every network; what is garbage, Python finds itself.
        keras.backend.clear_session(free_memory=False)
        keras.utils.set_random_seed(self.seed)
        tf.config.experimental.enable_op_determinism()
        return self.network(encoded_inputs(self.shape), statistics, self.config, self.seed)

    @cached_property
    def loop(self) -> TrainingLoop:
        """The loop of all fits: no part of the samples has more words than all of them."""
        return TrainingLoop(
            self.untrained(self.learn(None)),
            self.shape,
            self.config.batch_size,
            self.config.learning_rate,
        )

    def _train(
        self,
        statistics: Statistics,
        encoded: EncodedSamples,
        epochs: int,
        what: str,
        is_enough: Callable[[], bool] = lambda: False,
    ) -> keras.Model:
        """Train in the loop for `epochs` passes, or until one of them `is_enough`.

        Returns the network from which it began.
        """
        loop, network = self.loop, self.untrained(statistics)
        loop.take(network)
        with progress(f"{self.name}, {what}", encoded.rows * epochs) as advance:
            for number in range(epochs):
                for rows, loss in loop.train(encoded, self.seed, number):
                    advance(rows, f"epoch {number + 1}, loss {loss:.4f}")
                if is_enough():
                    break
        return network


def best_pass(losses: list[float]) -> int:
    """Return the place of the smallest loss, the first of equal ones."""
    return min(range(len(losses)), key=losses.__getitem__)


def is_over(losses: list[float], patience: int) -> bool:
    """Tell whether the last `patience` passes, and at least one, brought no smaller loss."""
    return len(losses) - 1 - best_pass(losses) >= max(patience, 1)

"""Fitting a network: the same for all of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Both before TensorFlow is imported: its start-up lines, and sums whose order differs by CPU.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import pyarrow.dataset as ds
import tensorflow as tf

from pipelines.models.rankers.encoded import EncodedSamples, Shape
from pipelines.models.rankers.inputs import encoded_inputs
from pipelines.models.rankers.samples import FITTING, VALIDATION, Samples, Statistics
from pipelines.models_config import RankerConfig
from pipelines.progress import Advance, progress

#: From encoded inputs, what was learned of the samples, configuration and seed to an untrained
#: network: a probability [n] for encoded inputs of n rows.
Network = Callable[[dict[str, Any], Statistics, Any, int], keras.Model]

#: Steps that run as one call: between two of them Python has nothing to do.
_STEPS_AT_ONCE = 16
_SCORED_AT_ONCE = 4096


@dataclass(frozen=True)
class Fitted:
    """A fitted network, and what was learned of the samples before it."""

    network: keras.Model
    statistics: Statistics


@dataclass(frozen=True)
class Trainer:
    """Fits one network to parts of the samples; `folder` is for working files.

    The same samples and seed give the same weights. TensorFlow's seeds are set, and its operations
    made deterministic, for the whole process.
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
        model = self.compiled(statistics)
        stop = keras.callbacks.EarlyStopping("val_loss", patience=self.config.patience)
        with (
            self.encoded(FITTING, statistics) as fitting,
            self.encoded(VALIDATION, statistics) as validation,
        ):
            watched = validation.dataset(max(_SCORED_AT_ONCE, self.config.batch_size))
            history = self._fit(
                model, fitting, self.config.epochs, "to choose when to stop", [stop], watched
            )
        losses = history["val_loss"]
        return int(min(range(len(losses)), key=losses.__getitem__)) + 1

    def fit(self, chosen: ds.Expression | None, epochs: int, what: str) -> Fitted:
        """Fit to the chosen samples."""
        statistics = self.learn(chosen)
        model = self.compiled(statistics)
        with self.encoded(chosen, statistics) as encoded:
            self._fit(model, encoded, epochs, what)
        return Fitted(model, statistics)

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

    def compiled(self, statistics: Statistics) -> keras.Model:
        """Return the untrained network, ready to be fitted, with all seeds set."""
        keras.backend.clear_session()
        keras.utils.set_random_seed(self.seed)
        tf.config.experimental.enable_op_determinism()
        model = self.network(encoded_inputs(self.shape), statistics, self.config, self.seed)
        model.compile(
            optimizer=keras.optimizers.Adam(self.config.learning_rate),
            loss="binary_crossentropy",
            steps_per_execution=_STEPS_AT_ONCE,
            jit_compile=False,
        )
        return model

    def _fit(
        self,
        model: keras.Model,
        encoded: EncodedSamples,
        epochs: int,
        what: str,
        callbacks: list[keras.callbacks.Callback] | None = None,
        validation: tf.data.Dataset | None = None,
    ) -> dict[str, list[float]]:
        size = self.config.batch_size
        with progress(f"{self.name}, {what}", encoded.rows * epochs) as advance:
            history = model.fit(
                encoded.dataset(size, self.seed),
                epochs=epochs,
                shuffle=False,
                verbose=0,
                callbacks=[*(callbacks or []), _Progress(advance, encoded.rows, size)],
                validation_data=validation,
            )
        found: dict[str, list[float]] = history.history
        return found


class _Progress(keras.callbacks.Callback):  # type: ignore[misc]
    """Tells how far training is, in rows."""

    def __init__(self, advance: Advance, rows: int, batch_size: int) -> None:
        super().__init__()
        self._advance = advance
        self._rows = rows
        self._size = batch_size
        self._told = 0
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin to count anew."""
        self._epoch, self._told = epoch, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Tell of the steps since the last call."""
        self._tell(min(self._rows, (batch + 1) * self._size), logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Tell of what is left: batches may be smaller than their size."""
        self._tell(self._rows, logs)

    def _tell(self, done: int, logs: Any) -> None:
        loss = f", loss {logs['loss']:.4f}" if logs else ""
        self._advance(done - self._told, f"epoch {self._epoch + 1}{loss}")
        self._told = done

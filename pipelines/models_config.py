"""The section ``models`` of `pipeline.yaml`: the units, their models and how they are tuned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipelines.section import Section

Unit = Literal["recs", "embeddings", "ctr_pmml", "embedding_mlp"]
UNITS: tuple[Unit, ...] = ("recs", "embeddings", "ctr_pmml", "embedding_mlp")


class RecsConfig(Section):
    """Implicit-feedback ALS (Hu, Koren, Volinsky 2008) and the popularity list."""

    enabled: bool = True
    rank: int = Field(32, ge=1)
    iterations: int = Field(10, ge=1)
    regularization: float = Field(0.1, gt=0)
    #: Confidence of a positive event is 1 + alpha.
    alpha: float = Field(1.0, gt=0)
    list_size: int = Field(50, ge=1)


class EmbeddingsConfig(Section):
    """item2vec: skip-gram over each user's time-ordered positives (Barkan, Koenigstein 2016)."""

    enabled: bool = True
    dimension: int = Field(32, ge=1)
    #: Wide, since it is what people like together that matters, not the order in which they rate.
    window: int = Field(50, ge=1)
    iterations: int = Field(10, ge=1)
    min_count: int = Field(2, ge=1)
    neighbours: int = Field(50, ge=1)
    user_half_life_days: float = Field(90.0, gt=0)


class CtrPmmlConfig(Section):
    """Spark ML logistic regression over the point-in-time features, exported as PMML."""

    enabled: bool = True
    regularization: float = Field(0.001, ge=0)
    iterations: int = Field(50, ge=1)
    buckets: int = Field(10, ge=2)


class EmbeddingMlpConfig(Section):
    """Keras Embedding+MLP with its preprocessing inside the SavedModel."""

    enabled: bool = True
    dimension: int = Field(8, ge=1)
    hidden: tuple[int, ...] = (64, 32)
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(512, ge=1)
    learning_rate: float = Field(0.001, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    id_dropout: float = Field(0.3, ge=0, lt=1)
    max_vocabulary: int = Field(1_000_000, ge=1)


class ModelsConfig(Section):
    """One section per unit."""

    recs: RecsConfig = RecsConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    ctr_pmml: CtrPmmlConfig = CtrPmmlConfig()
    embedding_mlp: EmbeddingMlpConfig = EmbeddingMlpConfig()

    def enabled_units(self) -> tuple[Unit, ...]:
        """Return the units to build, in their fixed order."""
        return tuple(u for u in UNITS if getattr(self, u).enabled)

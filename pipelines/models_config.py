"""The section ``models`` of `pipeline.yaml`: the units, their models and how they are tuned."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from pipelines.section import Section

#: The Keras rankers that the model servers serve, each a unit of its own.
Ranker = Literal["embedding_mlp", "neural_cf", "two_tower", "wide_deep", "deepfm", "din", "dien"]
RANKERS: tuple[Ranker, ...] = get_args(Ranker)
#: Those that read the whole ``user_history``; the others read ``user_rated_1..5``.
READ_HISTORY: frozenset[Ranker] = frozenset({"din", "dien"})
Unit = Literal["recs", "embeddings", "interest_ranker", "ctr_pmml", Ranker]
UNITS: tuple[Unit, ...] = ("recs", "embeddings", "interest_ranker", "ctr_pmml", *RANKERS)


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


class RankerConfig(Section):
    """What all Keras rankers have in common."""

    enabled: bool = False
    #: Components of the vectors of users, items and genres.
    dimension: int = Field(8, ge=1)
    hidden: tuple[int, ...] = (64, 32)
    #: Passes at most; training stops earlier when the validation slice says so.
    epochs: int = Field(10, ge=1)
    #: Passes without a smaller loss on the validation slice that are waited for.
    patience: int = Field(1, ge=0)
    batch_size: int = Field(512, ge=1)
    learning_rate: float = Field(0.001, gt=0)
    dropout: float = Field(0.2, ge=0, lt=1)
    #: Share of ids that are replaced by the unknown one in training.
    id_dropout: float = Field(0.3, ge=0, lt=1)
    max_vocabulary: int = Field(1_000_000, ge=1)


class InterestRankerConfig(RankerConfig):
    """Interest vectors of each user in Redis, and a light model that reads them."""

    enabled: bool = True
    interests: int = Field(4, ge=1)


class EmbeddingMlpConfig(RankerConfig):
    """Embedding+MLP."""

    enabled: bool = True


class NeuralCfConfig(RankerConfig):
    """Neural collaborative filtering (NeuMF): ids only."""


class TwoTowerConfig(RankerConfig):
    """Two towers whose vectors meet in a dot product."""

    #: Components of a tower's vector.
    vector_size: int = Field(16, ge=1)


class WideDeepConfig(RankerConfig):
    """Wide&Deep."""

    #: Buckets into which each cross of two features is hashed.
    crossed_buckets: int = Field(10_000, ge=2)


class DeepFmConfig(RankerConfig):
    """DeepFM."""


class DinConfig(RankerConfig):
    """Deep interest network."""

    #: Hidden layers of the activation unit.
    attention: tuple[int, ...] = (32, 16)


class DienConfig(RankerConfig):
    """Deep interest evolution network."""

    #: Weight of the auxiliary loss beside that of the score.
    auxiliary_weight: float = Field(0.5, ge=0)


class ModelsConfig(Section):
    """One section per unit."""

    recs: RecsConfig = RecsConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    interest_ranker: InterestRankerConfig = InterestRankerConfig()
    ctr_pmml: CtrPmmlConfig = CtrPmmlConfig()
    embedding_mlp: EmbeddingMlpConfig = EmbeddingMlpConfig()
    neural_cf: NeuralCfConfig = NeuralCfConfig()
    two_tower: TwoTowerConfig = TwoTowerConfig()
    wide_deep: WideDeepConfig = WideDeepConfig()
    deepfm: DeepFmConfig = DeepFmConfig()
    din: DinConfig = DinConfig()
    dien: DienConfig = DienConfig()

    def enabled_units(self) -> tuple[Unit, ...]:
        """Return the units to build, in their fixed order."""
        return tuple(u for u in UNITS if getattr(self, u).enabled)

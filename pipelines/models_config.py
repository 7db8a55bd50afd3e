"""The section ``models`` of `pipeline.yaml`: the units, their models and how they are tuned."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, model_validator

from pipelines.section import Section

#: The Keras rankers that the model servers serve, each a unit of its own.
Ranker = Literal["embedding_mlp", "neural_cf", "two_tower", "wide_deep", "deepfm", "din", "dien"]
RANKERS: tuple[Ranker, ...] = get_args(Ranker)
#: Those that read the whole ``user_history``; the others read ``user_rated_1..5``.
READ_HISTORY: frozenset[Ranker] = frozenset({"din", "dien"})
Unit = Literal["recs", "embeddings", "interest_ranker", "ctr_pmml", Ranker]
UNITS: tuple[Unit, ...] = ("recs", "embeddings", "interest_ranker", "ctr_pmml", *RANKERS)


class PopularityConfig(Section):
    """The lists for users without one of their own, over everything and per genre."""

    #: A positive event counts half after this time; None counts all the same. New users of
    #: ml-latest-small, each judged on the day they came: NDCG@10 0.445 with a year, 0.386 without.
    half_life_days: float | None = Field(365.0, gt=0)


class AlsConfig(Section):
    """Matrix factorisation for implicit feedback (Hu, Koren, Volinsky 2008), by Spark."""

    enabled: bool = True
    rank: int = Field(64, ge=1)
    iterations: int = Field(10, ge=1)
    #: Times the number of a user's or item's positives, as Spark does it.
    regularization: float = Field(0.1, gt=0)
    #: Confidence of a positive event is 1 + alpha.
    alpha: float = Field(0.5, gt=0)


class EaseConfig(Section):
    """Item-item linear model in closed form (Steck 2019)."""

    enabled: bool = True
    #: Added to the diagonal of the Gram matrix.
    regularization: float = Field(300.0, gt=0)
    #: The most popular items that it knows: n of them take 8 n^2 bytes of the driver (200 MB for
    #: 5,000, 3.2 GB for 20,000), and a time that grows with n^3.
    max_items: int = Field(5000, ge=2, le=40_000)
    #: Items with positives of fewer users are left to the other models.
    min_users: int = Field(3, ge=1)
    #: Weights kept for each item, the largest by size.
    kept: int = Field(300, ge=1)
    #: In a user's scores a positive counts half of one that came this many positives later; None
    #: counts all the same.
    history_half_life: float | None = Field(200.0, gt=0)


class ExplorationConfig(Section):
    """Places in users' lists for items that nothing is known of yet."""

    #: Share of a list's places, rounded to whole ones; 0 turns exploration off.
    share: float = Field(0.06, ge=0, le=0.5)
    #: The first places, which it leaves alone.
    after: int = Field(10, ge=0)
    #: New is what at most this many users have an event with, the first of them in the last
    #: `days`; and what nobody has an event with, whenever it came into the catalogue.
    max_users: int = Field(5, ge=0)
    days: float = Field(30.0, gt=0)


class RecsConfig(Section):
    """The users' lists: a blend of ALS, EASE and popularity, and lists for everybody else."""

    enabled: bool = True
    popularity: PopularityConfig = PopularityConfig()
    als: AlsConfig = AlsConfig()
    ease: EaseConfig = EaseConfig()
    exploration: ExplorationConfig = ExplorationConfig()
    list_size: int = Field(50, ge=1)
    #: Length of the lists of similar items.
    similar_items: int = Field(50, ge=1)

    @model_validator(mode="after")
    def _check_models(self) -> RecsConfig:
        if not (self.als.enabled or self.ease.enabled):
            raise ValueError("one of als and ease must be enabled")
        return self


EmbeddingModel = Literal["item2vec", "graph"]
EMBEDDING_MODELS: tuple[EmbeddingModel, ...] = ("item2vec", "graph")


class Item2VecConfig(Section):
    """Skip-gram over each user's time-ordered positives (Barkan, Koenigstein 2016)."""

    #: Wide, since it is what people like together that matters, not the order in which they rate.
    window: int = Field(50, ge=1)
    iterations: int = Field(10, ge=1)


class GraphEmbeddingConfig(Section):
    """Skip-gram over random walks from item to item: DeepWalk, or node2vec by `p` and `q`."""

    #: Positives of a user that are at most this many places apart share an edge.
    span: int = Field(20, ge=1, le=100)
    #: Edges kept of each item, the heaviest.
    max_neighbours: int = Field(100, ge=1, le=1000)
    #: Walks from each item.
    walks: int = Field(10, ge=1)
    #: Items of a walk.
    walk_length: int = Field(20, ge=2, le=200)
    #: A step back has its weight divided by `p`, one to where no edge led before by `q`.
    p: float = Field(1.0, gt=0)
    q: float = Field(1.0, gt=0)
    window: int = Field(5, ge=1)
    iterations: int = Field(3, ge=1)


class EmbeddingsConfig(Section):
    """Vectors of items and users."""

    enabled: bool = True
    model: EmbeddingModel = "item2vec"
    dimension: int = Field(32, ge=1)
    #: Items with fewer positives get no vector.
    min_count: int = Field(2, ge=1)
    neighbours: int = Field(50, ge=1)
    user_half_life_days: float = Field(90.0, gt=0)
    #: Skip-gram of at most this many words (item2vec: positives; graph: items x walks x
    #: walk_length) is fitted on the driver, on one core, in a quarter of Spark's time; of more, or
    #: with 0, by Spark. 20 million take some 0.6 GB of the driver's Python, and 25 us a word and
    #: pass with a window of 50: 80 minutes for ten passes.
    local_words: int = Field(20_000_000, ge=0)
    #: Parts that Spark's skip-gram trains on at once; with more than one, no two fits are the same.
    partitions: int = Field(1, ge=1)
    item2vec: Item2VecConfig = Item2VecConfig()
    graph: GraphEmbeddingConfig = GraphEmbeddingConfig()


PmmlModel = Literal["logistic_regression", "gradient_boosted_trees"]
PMML_MODELS: tuple[PmmlModel, ...] = ("logistic_regression", "gradient_boosted_trees")


class LogisticRegressionConfig(Section):
    """Spark ML's logistic regression with an L2 penalty."""

    regularization: float = Field(0.001, ge=0)
    iterations: int = Field(50, ge=1)
    #: Quantile buckets of each number.
    buckets: int = Field(10, ge=2)


class GradientBoostedTreesConfig(Section):
    """Spark ML's gradient-boosted trees."""

    trees: int = Field(50, ge=1)
    depth: int = Field(5, ge=1, le=30)
    learning_rate: float = Field(0.1, gt=0, le=1)
    #: Candidate splits of each number; raised to the number of categories where there are more.
    bins: int = Field(64, ge=2)
    min_leaf_samples: int = Field(20, ge=1)


class CtrPmmlConfig(Section):
    """A click model over the point-in-time features, exported as PMML."""

    enabled: bool = True
    model: PmmlModel = "gradient_boosted_trees"
    logistic_regression: LogisticRegressionConfig = LogisticRegressionConfig()
    gradient_boosted_trees: GradientBoostedTreesConfig = GradientBoostedTreesConfig()


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
    attention: tuple[int, ...] = (8,)


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

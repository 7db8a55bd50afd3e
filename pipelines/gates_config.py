"""The section ``gates`` of `pipeline.yaml`: what a version must meet to go live.

The rules are in :mod:`pipelines.evaluation.gates`. The defaults let honest models on small and
uneven data pass; a steady product wants them tighter.
"""

from __future__ import annotations

from pydantic import Field, FiniteFloat, model_validator

from pipelines.section import Section


class DataGatesConfig(Section):
    """Bounds for what ingest took in; shares are of the rows that it read."""

    max_quarantined_share: float = Field(0.05, ge=0, le=1)
    max_duplicate_share: float = Field(0.2, ge=0, le=1)
    #: Of the accepted events, those whose item the catalogue does not have.
    max_unknown_item_share: float = Field(0.05, ge=0, le=1)
    #: Age of the newest event at the end of the run date.
    max_age_days: float = Field(1.0, gt=0)
    #: The run date's events are compared with those of the last so many complete days before it
    #: that have any: with those of its weekday, where there are enough.
    volume_days: int = Field(28, ge=1)
    #: With fewer such days nothing is compared; with fewer of a weekday, all days are.
    min_volume_days: int = Field(3, ge=1)
    #: Of what is usual, the median of these days.
    min_volume_ratio: float = Field(0.2, ge=0)
    max_volume_ratio: float = Field(10.0, gt=0)
    #: Where the days before differ by more than the bounds among themselves, these are so many
    #: robust deviations wide; 0: they hold whatever the days were like.
    volume_deviations: float = Field(2.5, ge=0)

    @model_validator(mode="after")
    def _check_order(self) -> DataGatesConfig:
        if self.min_volume_ratio >= self.max_volume_ratio:
            raise ValueError("min_volume_ratio must be below max_volume_ratio")
        if self.min_volume_days > self.volume_days:
            raise ValueError("min_volume_days must not be above volume_days")
        return self


class Tolerance(Section):
    """How far a metric may fall behind: ``absolute + relative * |champion|``."""

    absolute: FiniteFloat = Field(0.0, ge=0)
    relative: FiniteFloat = Field(0.0, ge=0)


class MetricGateConfig(Section):
    """What one metric must meet; for one where less is better, everything is mirrored."""

    #: The worst value that passes.
    limit: FiniteFloat | None = None
    #: Baseline -> margin: the metric must be better than the baseline by more than this; with a
    #: negative margin it may be worse by less than its size.
    beats: dict[str, FiniteFloat] = Field({})
    #: None: the champion is not compared by this metric.
    champion: Tolerance | None = None


class ListGatesConfig(Section):
    """Bounds for the lists that are released; None leaves a measure without a bound."""

    #: Share of the catalogue that is in at least one list.
    min_coverage: float | None = Field(None, ge=0, le=1)
    #: Share of all places in lists that the 1% most listed items of the catalogue take.
    max_top_share: float | None = Field(None, ge=0, le=1)
    #: Mean Jaccard index of the first ten with those of the live lists.
    min_overlap: float | None = Field(None, ge=0, le=1)


MetricGates = dict[str, MetricGateConfig]


def _gate(
    limit: float | None = None,
    *,
    absolute: float = 0.0,
    relative: float = 0.0,
    **beats: float,
) -> MetricGateConfig:
    champion = Tolerance(absolute=absolute, relative=relative)
    return MetricGateConfig(limit=limit, beats=beats, champion=champion)


# Lists of 50 can hold a small catalogue whole: recall is then 1 for everybody, and no model could
# be better than popularity.
_RECS_GATES = {
    "ndcg_at_10": _gate(0.001, relative=0.15, popularity=0.0),
    "recall_at_50": _gate(0.001, relative=0.1, popularity=-0.01),
}
# item2vec ranks what is near; near is not popular, so its first ten can't be held against
# popularity (0.074 and 0.083 on ml-latest-small), but its first fifty can (0.179 and 0.152).
_EMBEDDINGS_GATES = {
    "ndcg_at_10": _gate(relative=0.25, random=0.0),
    "recall_at_50": _gate(0.001, relative=0.2, popularity=-0.02),
    "recall_at_50_as_stored": MetricGateConfig(beats={"float32": -0.01}),
}
# User and item means are hard to beat on few events: a model is refused if it is clearly worse,
# not for what chance does to it.
_SCORE_GATES = {
    "auc": _gate(0.5, absolute=0.01, constant=0.0, user_item_mean=-0.02),
    "log_loss": _gate(relative=0.05, constant=0.0),
}
# Without features a model knows less than the means of user and item do.
_IDS_ONLY_GATES = {**_SCORE_GATES, "auc": _gate(0.5, absolute=0.01, constant=0.0)}
# What float16 may cost.
_INTEREST_GATES = {**_SCORE_GATES, "auc_as_stored": MetricGateConfig(beats={"float32": -0.005})}


class ModelGatesConfig(Section):
    """The metrics that are gated, for each unit; one that is named here must be there."""

    recs: MetricGates = _RECS_GATES
    embeddings: MetricGates = _EMBEDDINGS_GATES
    interest_ranker: MetricGates = _INTEREST_GATES
    ctr_pmml: MetricGates = _SCORE_GATES
    embedding_mlp: MetricGates = _SCORE_GATES
    neural_cf: MetricGates = _IDS_ONLY_GATES
    two_tower: MetricGates = _SCORE_GATES
    wide_deep: MetricGates = _SCORE_GATES
    deepfm: MetricGates = _SCORE_GATES
    din: MetricGates = _SCORE_GATES
    dien: MetricGates = _SCORE_GATES


class UnitListGatesConfig(Section):
    """Bounds for the users' lists of `recs` and the items' neighbours of `embeddings`."""

    recs: ListGatesConfig = ListGatesConfig(min_coverage=0.01, max_top_share=0.9, min_overlap=0.05)
    embeddings: ListGatesConfig = ListGatesConfig(
        min_coverage=0.01, max_top_share=0.9, min_overlap=0.01
    )


class GatesConfig(Section):
    """All gates."""

    data: DataGatesConfig = DataGatesConfig()
    models: ModelGatesConfig = ModelGatesConfig()
    lists: UnitListGatesConfig = UnitListGatesConfig()

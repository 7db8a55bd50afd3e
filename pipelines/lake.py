"""Where everything lies in the lake.

The lake is Parquet under one root, a folder or any URL that Spark and pyarrow both read:

* ``landing/``: what the ``ferry data`` commands bring in, before ingest
* ``ratings/dt=YYYY-MM-DD/``, ``items/``, ``users/``: accepted data
* ``quarantine/dt=YYYY-MM-DD/``: rejected rows with their reasons
* ``features/``: what features keep from run to run (:mod:`pipelines.features.kept`)
* ``runs/<version>/``: what one run's tasks hand to each other
* ``made_from.json``: the source that made the lake
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunPaths:
    """The hand-over folders of one run."""

    root: str

    @property
    def events(self) -> str:
        """All accepted events up to the end of the run date, with ``is_holdout``."""
        return f"{self.root}/events"

    @property
    def items(self) -> str:
        """The item catalogue as this run saw it."""
        return f"{self.root}/items"

    @property
    def samples(self) -> str:
        """Point-in-time features and label of each event."""
        return f"{self.root}/samples"

    @property
    def user_features(self) -> str:
        """Each user's features as of the end of the run date."""
        return f"{self.root}/user_features"

    @property
    def item_features(self) -> str:
        """Each item's features as of the end of the run date."""
        return f"{self.root}/item_features"

    @property
    def catalogue(self) -> str:
        """The item catalogue as this run's ingest left it."""
        return f"{self.root}/catalogue"

    @property
    def features_done(self) -> str:
        """There if the features were computed in the process of the ingest."""
        return f"{self.root}/features-done"

    @property
    def inputs(self) -> str:
        """What enters this run's versions, and what has nothing new, as one JSON file."""
        return f"{self.root}/inputs.json"

    @property
    def ingest_summary(self) -> str:
        """Row counts of ingest, as one JSON file."""
        return f"{self.root}/ingest.json"

    @property
    def data_summary(self) -> str:
        """What the models were trained on, as one JSON file."""
        return f"{self.root}/data.json"

    @property
    def data_gates(self) -> str:
        """The verdicts on the run's data, as one JSON file."""
        return f"{self.root}/data_gates.json"

    @property
    def feature_tables(self) -> str:
        """The tables that all rankers' versions carry, prepared once."""
        return f"{self.unit('features')}/tables"

    @property
    def summary(self) -> str:
        """What became of the run, as one JSON file; it is there as long as nothing goes on."""
        return f"{self.root}/summary.json"

    def unit(self, unit: str) -> str:
        """The folder in which one unit's build assembles what it uploads."""
        return f"{self.root}/units/{unit}"


@dataclass(frozen=True)
class Lake:
    """The lake under `root` (no trailing slash)."""

    root: str

    @property
    def landing(self) -> str:
        """Where ``ferry data`` puts source files."""
        return f"{self.root}/landing"

    @property
    def origin(self) -> str:
        """What is in the landing area, as one JSON file."""
        return f"{self.landing}/origin.json"

    @property
    def made_from(self) -> str:
        """The source that made the lake, as one JSON file."""
        return f"{self.root}/made_from.json"

    @property
    def contents(self) -> tuple[str, ...]:
        """Everything that comes from the lake's source."""
        tables = (self.ratings, self.items, self.users, self.quarantine)
        return (self.landing, *tables, self.features, self.runs, self.comparisons)

    @property
    def ratings(self) -> str:
        """Accepted events, one ``dt=`` partition a day."""
        return f"{self.root}/ratings"

    @property
    def items(self) -> str:
        """The item catalogue."""
        return f"{self.root}/items"

    @property
    def users(self) -> str:
        """Known users and their attributes."""
        return f"{self.root}/users"

    @property
    def quarantine(self) -> str:
        """Rejected rows, one ``dt=`` partition a day."""
        return f"{self.root}/quarantine"

    @property
    def features(self) -> str:
        """What features keep from run to run."""
        return f"{self.root}/features"

    @property
    def runs(self) -> str:
        """The parent of all runs' hand-over folders."""
        return f"{self.root}/runs"

    @property
    def comparisons(self) -> str:
        """The parent of the features that `ferry compare` computed for itself."""
        return f"{self.root}/comparisons"

    def run(self, version: int) -> RunPaths:
        """The hand-over folders of the run that builds `version`."""
        return RunPaths(f"{self.runs}/{version}")

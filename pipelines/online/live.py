"""What is live of a unit: the one version that a request reads from beginning to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.errors import ReleaseError
from pipelines.online.layout import TableMeta, Value
from pipelines.online.store import OnlineStore

_TABLES_REMEMBERED = 64


class LiveUnit:
    """One version of a unit, as the pointer named it when the request came."""

    def __init__(
        self, online: OnlineStore, unit: str, version: int, tables: Mapping[str, TableMeta]
    ) -> None:
        self.online = online
        self.unit = unit
        self.version = version
        self.tables = tables

    def meta(self, table: str) -> TableMeta:
        """Return how a table is laid out.

        Raises:
            ReleaseError: the version has no such table in Redis.
        """
        meta = self.tables.get(table)
        if meta is None:
            raise ReleaseError(
                f"{self.unit} {self.version} is live, but Redis at {self.online.address} "
                f"has no table {table} of it"
            )
        return meta

    def read(self, table: str, ids: Sequence[str]) -> dict[str, Value]:
        """Return the values of those `ids` that the table has."""
        return self.online.read(self.unit, self.version, self.meta(table), ids)


class LiveUnits:
    """Takes pointers; how a version's tables are laid out is read once, since it never changes."""

    def __init__(self, online: OnlineStore) -> None:
        self.online = online
        self._tables: dict[tuple[str, int], dict[str, TableMeta]] = {}

    def is_live(self, unit: str) -> bool:
        """Tell whether the unit's pointer names a version."""
        return self.online.pointers.get(unit) is not None

    def take(self, unit: str) -> LiveUnit:
        """Return what the unit's pointer names now.

        Raises:
            ReleaseError: nothing of the unit is live.
        """
        pointer = self.online.pointers.get(unit)
        if pointer is None:
            raise ReleaseError(
                f"nothing of {unit} is live in Redis at {self.online.address}: 'make run' "
                f"releases it, 'ferry restore {unit}' brings back what was lost"
            )
        version = pointer.version
        tables = self._tables.get((unit, version))
        if not tables:
            tables = self.online.table_meta(unit, version)
            if len(self._tables) >= _TABLES_REMEMBERED:
                self._tables.clear()
            self._tables[unit, version] = tables
        return LiveUnit(self.online, unit, version, tables)

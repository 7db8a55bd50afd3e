"""Small sources for the tests of reading and ingest."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pipelines.config import DataConfig
from pipelines.lake import Lake

D1, D2, D3, D4 = (date(2024, 2, 27), date(2024, 2, 28), date(2024, 2, 29), date(2024, 3, 1))
HEADER = "user_id,item_id,rating,timestamp"


def at(day: date, second: int = 0) -> int:
    """Seconds since 1970 of a time on a UTC day."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) + second


def config(**changes: Any) -> DataConfig:
    """The configuration of the landing area, with changes to its sections."""
    sections: dict[str, Any] = {
        "events": {"path": "{landing}/ratings"},
        "items": {"path": "{landing}/items"},
    }
    for name, value in changes.items():
        if isinstance(value, dict) and name in sections:
            sections[name] |= value
        else:
            sections[name] = value
    return DataConfig.model_validate(sections)


def put_events(lake: Lake, *lines: str, name: str = "a.csv", header: str = HEADER) -> None:
    """Write one file of events."""
    write(Path(lake.landing) / "ratings" / name, header, *lines)


def put_items(lake: Lake, *lines: str) -> None:
    """Write the catalogue; by default one with the items 1 to 3."""
    rows = lines or ("1,One (1999),Drama|War,1999", "2,Two,Comedy,", "3,Three,,2001")
    write(Path(lake.landing) / "items" / "items.csv", "item_id,title,genres,release_year", *rows)


def write(path: Path, *lines: str) -> Path:
    """Write a text file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path

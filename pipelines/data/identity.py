"""Which lake it is: its name, that releases carry, and what made it."""

from __future__ import annotations

from pipelines.data.contract import filesystem_of
from pipelines.lake import Lake


def current_lake_id(lake: Lake) -> str | None:
    """Return the name of the lake (:func:`pipelines.data.days.lake_id`); None without any data."""
    filesystem, path = filesystem_of(f"{lake.ratings}/_lake_id")
    try:
        with filesystem.open_input_stream(path) as stream:
            return str(stream.read().decode().strip()) or None
    except FileNotFoundError:
        return None

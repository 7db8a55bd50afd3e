"""Made-up film titles for the synthetic catalogue."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# fmt: off
_ADJECTIVES = (
    "Silent", "Crimson", "Broken", "Golden", "Hidden", "Distant", "Burning", "Frozen", "Lonely",
    "Savage", "Velvet", "Midnight", "Electric", "Hollow", "Gentle", "Wicked", "Scarlet",
    "Endless", "Forgotten", "Restless", "Iron", "Paper", "Emerald", "Secret", "Wandering",
    "Bitter", "Radiant", "Stolen", "Quiet", "Thirteenth",
)
_NOUNS = (
    "River", "Empire", "Garden", "Witness", "Harbor", "Orchard", "Stranger", "Mirror",
    "Lantern", "Kingdom", "Promise", "Detective", "Winter", "Voyage", "Letter", "Shadow",
    "Sparrow", "Machine", "Carnival", "Island", "Bridge", "Diary", "Tailor", "Comet",
    "Lighthouse", "Inheritance", "Symphony", "Border", "Labyrinth", "Monsoon",
)
_PLACES = (
    "Lisbon", "Havana", "Kyoto", "Marrakesh", "Dakota", "Odessa", "Calcutta", "Reykjavik",
    "Tangier", "Bologna", "Cordoba", "Valparaiso", "Trieste", "Nairobi", "Savannah", "Galway",
    "Samarkand", "Montreal", "Bergen", "Zanzibar",
)
_NAMES = (
    "Clara", "Otto", "Miriam", "Felix", "Ingrid", "Tomas", "Aurora", "Desmond", "Leila",
    "Viktor", "Beatrice", "Samir", "Odette", "Caspar", "Naomi", "Rufus", "Yasmin", "Edgar",
    "Paloma", "Ivan",
)
# fmt: on
_PATTERNS = (
    "{adjective} {noun}, The",
    "{adjective} {noun}",
    "{noun} of {place}",
    "{name} and the {adjective} {noun}",
    "{noun}s in {place}",
    "{name}, {adjective} {noun}",
    'The "{adjective}" {noun}',
    "{adjective} Nights in {place}",
    "Last {noun} of {name}",
    "{name} Goes to {place}",
)
_NUMERALS = ("", " II", " III", " IV", " V", " VI", " VII", " VIII", " IX", " X")


def make_titles(years: npt.NDArray[np.int64], rng: np.random.Generator) -> list[str]:
    """Return one title per release year, unlike each other, each with its year at the end.

    Some have a comma or quotation marks, as real catalogues do. A combination of words that
    comes up again becomes a sequel.
    """
    count = len(years)
    picks = {
        name: rng.integers(len(words), size=count)
        for name, words in (
            ("pattern", _PATTERNS),
            ("adjective", _ADJECTIVES),
            ("noun", _NOUNS),
            ("place", _PLACES),
            ("name", _NAMES),
        )
    }
    used: dict[str, int] = {}
    titles = []
    for i, year in enumerate(years):
        title = _PATTERNS[picks["pattern"][i]].format(
            adjective=_ADJECTIVES[picks["adjective"][i]],
            noun=_NOUNS[picks["noun"][i]],
            place=_PLACES[picks["place"][i]],
            name=_NAMES[picks["name"][i]],
        )
        part = used.get(title, 0)
        used[title] = part + 1
        sequel = _NUMERALS[part] if part < len(_NUMERALS) else f" {part + 1}"
        titles.append(f"{title}{sequel} ({year})")
    return titles

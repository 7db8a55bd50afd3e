"""The table of faults and outcomes, ``docs/faults.md``: each test makes one section of it.

A test fails if its section is not what is written there. With FERRY_UPDATE_DOCS=1 it is written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from pipelines.config import PROJECT_ROOT

# Read at once: the tests clear the environment of what is Ferry's.
_UPDATE = bool(os.environ.get("FERRY_UPDATE_DOCS"))
PATH = PROJECT_ROOT / "docs" / "faults.md"


def check_section(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Assert that the document has this section, or write it."""
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
    ]
    section = f"## {title}\n\n" + "\n".join(lines) + "\n"
    text = PATH.read_text(encoding="utf-8")
    pattern = re.compile(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", re.DOTALL | re.MULTILINE)
    found = pattern.search(text)
    if _UPDATE:
        if found:
            text = text[: found.start()] + section + "\n" + text[found.end() :]
        else:
            text = text.rstrip() + "\n\n" + section
        PATH.write_text(text.rstrip() + "\n", encoding="utf-8")
        return
    assert found, f"{PATH.name} has no section {title!r}: FERRY_UPDATE_DOCS=1 makes it"
    assert found.group(0).strip() == section.strip(), (
        f"section {title!r} of {PATH.name} is not what was found: FERRY_UPDATE_DOCS=1 writes it"
    )

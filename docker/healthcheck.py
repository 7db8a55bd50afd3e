"""Asks a service of Ferry's image how it is:

    healthcheck.py URL [PART]

Succeeds if URL answers with 200 and, with PART, calls that part of Airflow healthy.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request

_SECONDS = 5


def problem(url: str, part: str | None) -> str | None:
    """Return what is wrong, or None."""
    # A proxy of the environment is not the way to a neighbour.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=_SECONDS) as answer:
            content = answer.read()
        status = json.loads(content)[part]["status"] if part else "healthy"
    except (OSError, urllib.error.HTTPError, ValueError, KeyError) as error:
        return f"{url}: {error or type(error).__name__}"
    return None if status == "healthy" else f"{url}: {part} is {status}"


def main(arguments: list[str]) -> int:
    """Return 0 if all is well, else 1 after one line that says what is not."""
    found = problem(arguments[0], arguments[1] if len(arguments) > 1 else None)
    if found:
        sys.stderr.write(f"{found}\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

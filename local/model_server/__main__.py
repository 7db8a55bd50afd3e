"""``python -m local.model_server``: the start line of ``tensorflow_model_server``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from local.model_server import flags, server
from local.model_server.errors import StartupError


def main(argv: Sequence[str]) -> int:
    """Run the server; a failure to start is one line on stderr and exit code 1."""
    if "--help" in argv:
        print(flags.usage())
        return 0
    try:
        return server.run(flags.parse(argv))
    except StartupError as error:
        print(f"model server: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Logging of the command line and of Spark steps: our own lines, without the libraries' noise."""

from __future__ import annotations

import logging
import sys


def configure_logging(level: int = logging.INFO) -> None:
    """Send Ferry's own log lines to standard error, and warnings of everything else."""
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING, force=True)
    for name in ("ferry", "pipelines"):
        logging.getLogger(name).setLevel(level)

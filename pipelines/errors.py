"""The errors that a user meets: each is one line that names what, where and what to do."""

from __future__ import annotations

import re
from typing import ClassVar


class FerryError(Exception):
    """Any failure that Ferry explains in one line; the command line prints it without a trace."""

    #: Whether the same call may succeed later with nothing changed.
    retryable: ClassVar[bool] = False


class ConfigError(FerryError):
    """`pipeline.yaml` or the environment is wrong. Trying again can't help."""


class DataError(FerryError):
    """The data breaks the contract (missing file or column, an empty day). Not retried."""


class NoDataError(DataError):
    """There is nothing to build from on that day. A backfill goes past it."""


class IdleDayError(NoDataError):
    """The source has nothing of that day, nor anything new of other days: maybe there was none."""


class OtherSourceError(DataError):
    """The lake was made from another source: its rows and these must not mix."""


class UnfinishedDataError(DataError):
    """A day is being written, or its writing was interrupted and will be tried again."""

    retryable = True


class NothingToDoError(FerryError):
    """A step that by rule is left out; the reason is its message. It is no failure."""


class ServiceError(FerryError):
    """Redis, object storage or a model server did not answer. May pass: worth a retry."""

    retryable = True


class ReleaseError(FerryError):
    """A version can't be built, staged or made live by the rules of a release."""

    retryable = True


class VerificationError(ReleaseError):
    """What the online side answers differs from what the trainer answered. Not retried."""

    retryable = False


class CapacityError(ReleaseError):
    """A version does not fit into Redis. Not retried: somebody has to make room."""

    retryable = False


#: Errors of the program itself: the same call fails again, so nothing is gained by a retry.
PROGRAMMING_ERRORS = (ImportError, NameError, AttributeError, TypeError, SyntaxError)

_IN_TEXT = re.compile(r"^pipelines\.errors\.(\w+): (.*)$", re.MULTILINE)


def find_in_text(text: str) -> FerryError | None:
    """Return the last of our errors that a traceback in `text` ends with, or None.

    What an executor raises reaches the driver only as the text of its traceback.
    """
    known = {kind.__name__: kind for kind in _kinds(FerryError)}
    for name, message in reversed(_IN_TEXT.findall(text)):
        if name in known:
            return known[name](message)
    return None


def _kinds(kind: type[FerryError]) -> list[type[FerryError]]:
    return [kind, *(k for child in kind.__subclasses__() for k in _kinds(child))]

"""The errors that a user meets: each is one line that names what, where and what to do."""

from __future__ import annotations

from typing import ClassVar


class FerryError(Exception):
    """Any failure that Ferry explains in one line; the command line prints it without a trace."""

    #: Whether the same call may succeed later with nothing changed.
    retryable: ClassVar[bool] = False


class ConfigError(FerryError):
    """`pipeline.yaml` or the environment is wrong. Trying again can't help."""


class DataError(FerryError):
    """The data breaks the contract (missing file or column, an empty day). Not retried."""


class ServiceError(FerryError):
    """Redis, object storage or a model server did not answer. May pass: worth a retry."""

    retryable = True


class ReleaseError(FerryError):
    """A version can't be built, staged or made live by the rules of a release."""

    retryable = True


class VerificationError(ReleaseError):
    """What the online side answers differs from what the trainer answered. Not retried."""

    retryable = False

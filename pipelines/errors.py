"""The errors that a user meets: each is one line that names what, where and what to do."""

from __future__ import annotations


class FerryError(Exception):
    """Any failure that Ferry explains in one line; the command line prints it without a trace."""


class ConfigError(FerryError):
    """`pipeline.yaml` or the environment is wrong. Trying again can't help."""


class DataError(FerryError):
    """The data breaks the contract (missing file or column, an empty day). Not retried."""


class ServiceError(FerryError):
    """Redis, object storage or a model server did not answer. May pass: worth a retry."""


class ReleaseError(FerryError):
    """A version can't be built, staged or made live by the rules of a release."""


class VerificationError(ReleaseError):
    """What the online side answers differs from what the trainer answered. Not retried."""

"""Model configs: the text file, and what TensorFlow Serving checks before it accepts one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig as ModelConfigProto
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig, ModelType

from local.model_server.errors import invalid
from local.model_server.sources import AllVersions, LatestVersions, SpecificVersions, VersionPolicy

_PLATFORM = "tensorflow"


@dataclass(frozen=True)
class ModelConfig:
    """One model of the list: where its versions are, which to serve, and their labels."""

    name: str
    base_path: Path
    policy: VersionPolicy
    labels: dict[str, int] = field(default_factory=dict)


def single_model(name: str, base_path: str) -> ModelServerConfig:
    """Return the config that ``--model_name`` and ``--model_base_path`` stand for."""
    config = ModelServerConfig()
    config.model_config_list.config.add(name=name, base_path=base_path, model_platform=_PLATFORM)
    return config


def read_file(path: str) -> ModelServerConfig:
    """Read a ``ModelServerConfig`` in protobuf text.

    Raises:
        ServingError: INVALID_ARGUMENT for a file that cannot be read or does not parse.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"cannot read the model config file '{path}': {error}") from error
    try:
        return text_format.Parse(text, ModelServerConfig())
    except text_format.ParseError as error:
        raise invalid(f"Invalid protobuf file: '{path}': {error}") from error


def check_list(protos: Sequence[ModelConfigProto]) -> None:
    """Refuse a list with a name given twice or a relative path.

    Raises:
        ServingError: INVALID_ARGUMENT, in the words of ``model_servers/server_core.cc``.
    """
    names: set[str] = set()
    for proto in protos:
        if proto.name in names:
            raise invalid(f"Illegal to list model {proto.name} multiple times in config list")
        names.add(proto.name)
    for proto in protos:
        # A URI (s3://…) passes here as in the real server; the poll then finds no such path.
        if not urlsplit(proto.base_path).scheme and not proto.base_path.startswith("/"):
            raise invalid(
                f"Expected model {proto.name} to have an absolute path or URI; "
                f"got base_path()={proto.base_path}"
            )


def check_platform(proto: ModelConfigProto) -> None:
    """Refuse any platform but ``tensorflow`` (or the deprecated ``model_type: TENSORFLOW``).

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    if proto.model_type != ModelType.MODEL_TYPE_UNSPECIFIED:
        if proto.model_platform:
            raise invalid(
                "Illegal setting both ModelServerConfig::model_type (deprecated) "
                "and ModelServerConfig::model_platform."
            )
        if proto.model_type != ModelType.TENSORFLOW:
            raise invalid(f"ModelServerConfig::model_type choice {proto.model_type} not supported.")
    elif not proto.model_platform:
        raise invalid(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) "
            "nor ModelServerConfig::model_platform."
        )
    elif proto.model_platform != _PLATFORM:
        raise invalid(f"Model {proto.name} requests unsupported platform {proto.model_platform}")


def model_config(proto: ModelConfigProto) -> ModelConfig:
    """Convert one checked entry of the list."""
    return ModelConfig(
        name=proto.name,
        base_path=Path(proto.base_path),
        policy=_policy(proto),
        labels=dict(proto.version_labels),
    )


def _policy(proto: ModelConfigProto) -> VersionPolicy:
    policy = proto.model_version_policy
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return AllVersions()
    if choice == "specific":
        return SpecificVersions(frozenset(policy.specific.versions))
    # No policy means latest, and `latest {}` means one version.
    return LatestVersions(max(policy.latest.num_versions, 1))

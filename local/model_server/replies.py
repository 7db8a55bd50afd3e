"""The answers both APIs share: version states and model metadata."""

from __future__ import annotations

from collections.abc import Iterable

from tensorflow_serving.apis.get_model_metadata_pb2 import (
    GetModelMetadataResponse,
    SignatureDefMap,
)
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse

from local.model_server.core import ModelRef, ServerCore
from local.model_server.errors import invalid

SIGNATURE_DEF = "signature_def"


def status(core: ServerCore, ref: ModelRef) -> GetModelStatusResponse:
    """Answer GetModelStatus.

    Raises:
        ServingError: NOT_FOUND.
    """
    response = GetModelStatusResponse()
    for found in core.statuses(ref):
        item = response.model_version_status.add(version=found.version, state=int(found.state))
        item.status.error_code = 0  # makes the field present, as the real server sends it
        if found.error is not None:
            item.status.error_code = int(found.error.code)
            item.status.error_message = found.error.message
    return response


def metadata(core: ServerCore, ref: ModelRef, fields: Iterable[str]) -> GetModelMetadataResponse:
    """Answer GetModelMetadata; ``signature_def`` is the only field there is.

    Raises:
        ServingError: INVALID_ARGUMENT for no field or another one; what :meth:`ServerCore.use`
            raises.
    """
    wanted = list(fields)
    if not wanted:
        raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
    for name in wanted:
        if name != SIGNATURE_DEF:
            raise invalid(f"Metadata field {name} is not supported")
    with core.use(ref) as (version, model):
        signatures = SignatureDefMap()
        for name, signature in model.signatures.items():
            signatures.signature_def[name].CopyFrom(signature)
    response = GetModelMetadataResponse()
    response.model_spec.name = ref.name
    response.model_spec.version.value = version
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response

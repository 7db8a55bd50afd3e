"""A SavedModel in a session of its own, loaded by the rules of TensorFlow's C++ loader."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.config_pb2 import CallableOptions
from tensorflow.core.protobuf.meta_graph_pb2 import AssetFileDef, MetaGraphDef, SignatureDef
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel as SavedModelProto

from local.model_server.errors import Code, ServingError, invalid
from local.model_server.tensors import Array

_log = logging.getLogger(__name__)
_INIT_OP = "__saved_model_init_op"


@dataclass(frozen=True)
class LoadOptions:
    """How graphs are loaded: which tags, and how many threads a session gets."""

    tags: frozenset[str] = frozenset({"serve"})
    intra_op_threads: int = 2
    inter_op_threads: int = 2


class SavedModel:
    """One loaded version: its signatures, and a session to run them. Thread-safe.

    Source: ``tensorflow/cc/saved_model/loader.cc``. The C++ rules are kept rather than those of
    ``tf.saved_model.load`` because clients see the difference: a version without
    ``variables/variables.index`` loads, and its predictions fail.

    Args:
        path: the version directory.
        options: tags and threads.

    Raises:
        ServingError: NOT_FOUND without a graph, INVALID_ARGUMENT or what TensorFlow says for a
            broken one.
    """

    def __init__(self, path: Path, options: LoadOptions) -> None:
        meta_graph = _read_meta_graph(path, options.tags)
        self.signatures: Mapping[str, SignatureDef] = dict(meta_graph.signature_def)
        self._callables: dict[tuple[tuple[str, ...], tuple[str, ...]], Any] = {}
        self._lock = threading.Lock()
        with _runtime_errors():
            graph = tf.Graph()
            with graph.as_default():
                tf.graph_util.import_graph_def(meta_graph.graph_def, name="")
            self._session = tf.compat.v1.Session(
                graph=graph,
                config=tf.compat.v1.ConfigProto(
                    device_count={"GPU": 0},  # also keeps TensorFlow from looking for a driver
                    intra_op_parallelism_threads=options.intra_op_threads,
                    inter_op_parallelism_threads=options.inter_op_threads,
                ),
            )
            self._restore(path, meta_graph)

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str]) -> list[Array]:
        """Run the graph.

        Args:
            feeds: arrays by tensor name, of exactly the tensors' element types.
            fetches: tensor names.

        Returns:
            One array for each fetch.

        Raises:
            ServingError: what TensorFlow says of the run.
        """
        key = (tuple(feeds), tuple(fetches))
        with _runtime_errors():
            run = self._callables.get(key)
            if run is None:
                run = self._callable(key)
            return list(run(*feeds.values()))

    def close(self) -> None:
        """Free the session with its variables."""
        self._callables.clear()
        self._session.close()

    def _callable(self, key: tuple[tuple[str, ...], tuple[str, ...]]) -> Any:
        # Session.run() costs ten times as much (0.18 against 0.02 ms) and casts inputs silently;
        # the C++ server runs the graph as this callable does.
        with self._lock:
            if key not in self._callables:
                options = CallableOptions(feed=key[0], fetch=key[1])
                self._callables[key] = self._session._make_callable_from_options(options)
            return self._callables[key]

    def _restore(self, path: Path, meta_graph: MetaGraphDef) -> None:
        assets = {
            item.tensor_info.name: str(path / "assets" / item.filename)
            for item in _asset_files(meta_graph)
        }
        saver = meta_graph.saver_def
        if (path / "variables" / "variables.index").is_file():
            prefix = str(path / "variables" / "variables")
            self._run_node(saver.restore_op_name, {saver.filename_tensor_name: prefix, **assets})
        elif saver.restore_op_name:
            _log.warning("%s has no variables; predictions that need any will fail", path)
        init_op = _init_op(meta_graph)
        if init_op:
            self._run_node(init_op, assets)

    def _run_node(self, name: str, feeds: Mapping[str, str]) -> None:
        operation = self._session.graph.get_operation_by_name(name.partition(":")[0])
        self._session.run(operation, dict(feeds))


def _read_meta_graph(path: Path, tags: frozenset[str]) -> MetaGraphDef:
    """Read the graph with exactly these tags."""
    proto = SavedModelProto()
    binary, text = path / "saved_model.pb", path / "saved_model.pbtxt"
    try:
        if binary.is_file():
            proto.ParseFromString(binary.read_bytes())
        elif text.is_file():
            text_format.Parse(text.read_text(encoding="utf-8"), proto)
        else:
            raise ServingError(
                Code.NOT_FOUND,
                f"Could not find SavedModel .pb or .pbtxt at supplied export directory path: "
                f"{path}. Check that the directory exists and that you have the right permissions "
                "for accessing it.",
            )
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise ServingError(Code.DATA_LOSS, f"Can't parse {binary} as binary proto") from error
    except OSError as error:
        raise ServingError(Code.UNAVAILABLE, f"cannot read {path}: {error}") from error
    for meta_graph in proto.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == tags:
            return meta_graph
    raise ServingError(
        Code.NOT_FOUND,
        f"Could not find meta graph def matching supplied tags: {{ {' '.join(sorted(tags))} }}",
    )


def _asset_files(meta_graph: MetaGraphDef) -> list[AssetFileDef]:
    if meta_graph.asset_file_def:
        return list(meta_graph.asset_file_def)
    files = []
    for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:  # TF 1 models
        item = AssetFileDef()
        packed.Unpack(item)
        files.append(item)
    return files


def _init_op(meta_graph: MetaGraphDef) -> str:
    """Return the node that fills tables and the like, or an empty string."""
    if _INIT_OP in meta_graph.signature_def:
        return str(meta_graph.signature_def[_INIT_OP].outputs[_INIT_OP].name)
    for collection in ("saved_model_main_op", "legacy_init_op"):
        if collection in meta_graph.collection_def:
            names = meta_graph.collection_def[collection].node_list.value
            if names:
                return str(names[0])
    return ""


@contextmanager
def _runtime_errors() -> Iterator[None]:
    """Turn what TensorFlow raises into ServingError with the same code."""
    try:
        yield
    except tf.errors.OpError as error:
        raise ServingError(Code(error.error_code), error.message) from error
    except (ValueError, TypeError, KeyError) as error:
        raise invalid(str(error)) from error

"""ONNX Runtime's session, with fastrnn's operators in the model."""

from __future__ import annotations

import math
import os
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, ModelProto, TensorProto
from onnx.external_data_helper import load_external_data_for_tensor

from .. import _core
from .._checks import got
from ._rewrite import Replaced, graphs, rewrite

FOLDER = "session.model_external_initializers_file_folder_path"  # of ONNX Runtime: where data lies beside model bytes
SMALL = 64  # elements
# Of ONNX Runtime: whether its idle threads spin, and, from version 1.26 on, for how many microseconds. By default they
# do for long, on the cores that the kernels' threads need: a tagger of two bidirectional LSTMs takes twice as long so.
SPINNING = "session.intra_op.allow_spinning"
SPIN_DURATION = "session.intra_op.spin_duration_us"

_lock = threading.Lock()  # of the table
# The options that have the operators, which they take once, each with a lock for its entries.
_registered: weakref.WeakKeyDictionary[Any, threading.Lock] = weakref.WeakKeyDictionary()


def _renew_locks() -> None:
    """In a forked child: who held them is not there."""
    global _lock
    _lock = threading.Lock()
    for options in list(_registered):
        _registered[options] = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


class InferenceSession(onnxruntime.InferenceSession):
    """`onnxruntime.InferenceSession` whose RNN, LSTM and GRU nodes run in fastrnn's kernels.

    All else is ONNX Runtime's: the other nodes, DynamicQuantizeLSTM among them, `run` and `run_with_iobinding`, inputs,
    outputs, options, errors. Nodes in the bodies of If, Loop and Scan are served too, and those in a model's own
    functions, which are inlined; one that cannot be served ONNX Runtime runs, and a warning says why. Weights that are
    initializers are packed once; those that the model computes, in each call. A session can be used in many threads at
    once. ThresholdedRelu without an activation_alpha has 1, as specified; ONNX Runtime takes 0.

    Args:
        path_or_bytes: the path of an ONNX model, the model as bytes, or an `onnx.ModelProto`. It is not changed.
        sess_options: as in ONNX Runtime. The kernels use at most `intra_op_num_threads` threads, with 0 as many as
            `fastrnn.get_num_threads()`; ONNX Runtime's idle threads soon leave them the cores, unless the options have
            an entry "session.intra_op.allow_spinning" or "….spin_duration_us". The options can be used again. They
            keep such an entry, the folder of external data and the operators. Weights that they have of their own
            (`add_initializer`, `add_external_initializers`) are not for nodes in bodies, which keep the model's.
        providers, provider_options, **kwargs: as in ONNX Runtime. The kernels run on the CPU.

    Attributes:
        replaced: what runs in fastrnn; print it, or look at its attributes.

    Raises:
        TypeError: `path_or_bytes` is none of these, or `sess_options` are no such options.
        ValueError: it is in ONNX Runtime's own format, which cannot be changed, or a ModelProto of more than 2 GB.
        Others as ONNX Runtime.
    """

    replaced: Replaced

    def __init__(
        self,
        path_or_bytes: str | bytes | os.PathLike[str] | ModelProto,
        sess_options: onnxruntime.SessionOptions | None = None,
        providers: Any = None,
        provider_options: Any = None,
        **kwargs: Any,
    ) -> None:
        options = onnxruntime.SessionOptions() if sess_options is None else sess_options
        if not isinstance(options, onnxruntime.SessionOptions):
            raise TypeError(f"sess_options must be an onnxruntime.SessionOptions, {got(sess_options)}")
        given, self._folder, self.replaced = _prepare(path_or_bytes, options.intra_op_num_threads)
        if self.replaced.swapped:
            _let_threads_sleep(options)
        with _operators_in(options, self._folder):
            super().__init__(given, options, providers, provider_options, **kwargs)
        if self.replaced.left:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.replaced.left.items())
            warnings.warn(f"fastrnn.onnx: ONNX Runtime runs these nodes itself: {reasons}", stacklevel=2)

    def set_providers(self, providers: Any = None, provider_options: Any = None) -> None:
        """As in ONNX Runtime."""
        with _operators_in(self._sess_options_initial, self._folder):
            super().set_providers(providers, provider_options)


def _prepare(model: Any, threads: int) -> tuple[Any, str, Replaced]:
    """What ONNX Runtime is to load, the folder of its external data ("": as it decides), and what was swapped."""
    original: str | bytes | None = None
    path: Path | None = None
    if isinstance(model, ModelProto):
        ours: Any = ModelProto()
        ours.CopyFrom(model)
    elif isinstance(model, (str, os.PathLike)):
        original = os.fspath(model)
        path = Path(original)
        ours = _read(path.read_bytes() if path.is_file() else None)
    elif isinstance(model, bytes):
        original = model
        ours = _read(model)
    else:
        raise TypeError(f"path_or_bytes must be a path, bytes or an onnx.ModelProto, {got(model)}")
    replaced = Replaced()
    if ours is not None:
        ours, replaced = rewrite(ours, threads)
    if ours is None or (original is not None and not replaced.swapped):
        return original, "", replaced
    folder = "" if path is None else _place_data(ours, path)
    return _serialized(ours), folder, replaced


def _read(data: bytes | None) -> ModelProto | None:
    """None if it is no model: ONNX Runtime says then what is wrong with it."""
    if data is None:
        return None
    if data[4:8] == b"ORTM":
        raise ValueError("path_or_bytes: the model is in ONNX Runtime's own format, which cannot be changed; give ONNX")
    try:
        return ModelProto.FromString(data)
    except DecodeError:
        return None


def _serialized(model: ModelProto) -> bytes:
    try:
        return model.SerializeToString()
    except (EncodeError, ValueError) as error:
        raise ValueError(
            "path_or_bytes: the model has more than 2 GB; save it with external data and give its path"
        ) from error


def _place_data(model: ModelProto, path: Path) -> str:
    """The folder where ONNX Runtime finds the external data of a model that it is given as bytes; "" if there is none.

    Small tensors are put into the model: ONNX Runtime looks into shapes and the like before it knows the folder. As
    there, data may lie beside the model or, if this is a link, beside the file it leads to, where links to the data may
    lead: a cache of downloads looks so. A folder has no links of its own, so that the tensors name the files then.
    """
    external = [tensor for tensor in _tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    locations = [entry for tensor in external for entry in tensor.external_data if entry.key == "location"]
    folder, target = path.absolute().parent, Path(os.path.realpath(path)).parent
    files = [Path(os.path.realpath(folder / entry.value)) for entry in locations]
    if target != Path(os.path.realpath(folder)) and all(file.is_relative_to(target) for file in files):
        folder = target
        for entry, file in zip(locations, files, strict=True):
            entry.value = str(file.relative_to(target))
    for tensor in external:
        if math.prod(tensor.dims) <= SMALL:
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
    return str(folder) if any(tensor.data_location == TensorProto.EXTERNAL for tensor in external) else ""


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Initializers, and the tensors of Constant and other nodes, those in bodies and functions included."""
    for graph in (inner for outer in (model.graph, *model.functions) for inner in graphs(outer)):
        yield from getattr(graph, "initializer", ())  # functions have none
        for node in graph.node:
            yield from (attribute.t for attribute in node.attribute if attribute.type == AttributeProto.TENSOR)


@contextmanager
def _operators_in(options: Any, folder: str) -> Iterator[None]:
    """While a session is made: the options know the operators, and where the data of a model given as bytes lies."""
    with _lock:
        if options not in _registered:
            options.register_custom_ops_library(_core.__file__)
            _registered[options] = threading.Lock()
        own = _registered[options]
    if not folder:
        yield
        return
    with own:  # the options may be another session's, too, which has another folder
        if _entry(options, FOLDER) != folder:
            options.add_session_config_entry(FOLDER, folder)
        yield


def _let_threads_sleep(options: Any) -> None:
    if _entry(options, SPINNING) is not None or _entry(options, SPIN_DURATION) is not None:
        return
    if tuple(map(int, onnxruntime.__version__.split(".")[:2])) >= (1, 26):
        options.add_session_config_entry(SPIN_DURATION, "30")  # as the kernels' own threads
    else:
        options.add_session_config_entry(SPINNING, "0")


def _entry(options: Any, name: str) -> str | None:
    try:
        value: str = options.get_session_config_entry(name)
    except RuntimeError:  # it was never set
        return None
    return value

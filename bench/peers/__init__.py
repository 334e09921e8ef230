"""The libraries that are compared, one file each.

To add one, write a file with a subclass of `base.Peer` beside the others, and give it a line in REGISTRY.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .base import Peer


class Entry(NamedTuple):
    file: str  # in this folder
    class_name: str
    label: str  # in tables and pictures
    requirement: str  # what pip installs
    letter: str = ""  # in cells of the picture; only peers that can be the best have one


REGISTRY = {  # by the name on the command line and in results, in the order of tables
    "fastrnn": Entry("fastrnn", "Layer", "fastrnn", "fastrnn"),
    "fastrnn-prepared": Entry("fastrnn", "Prepared", "fastrnn, prepared", "fastrnn"),
    "fastrnn-torch": Entry("fastrnn_torch", "FastrnnTorch", "fastrnn.torch", "torch"),
    "fastrnn-onnx": Entry("fastrnn_onnx", "FastrnnOnnx", "fastrnn.onnx", "onnx onnxruntime"),
    "fastrnn-jax": Entry("fastrnn_jax", "FastrnnJax", "fastrnn.jax", "jax"),
    "pytorch": Entry("pytorch", "PyTorch", "PyTorch", "torch", "P"),
    "onnxruntime": Entry("onnx_runtime", "OnnxRuntime", "ONNX Runtime", "onnx onnxruntime", "O"),
    "openvino": Entry("open_vino", "OpenVINO", "OpenVINO", "onnx openvino", "V"),
    "jax": Entry("jax_scan", "JAX", "JAX", "jax", "J"),
    "tensorflow": Entry("tensor_flow", "TensorFlow", "TensorFlow", "tensorflow-cpu", "T"),
    "reference": Entry("reference", "Reference", "NumPy", "fastrnn"),
}
LAYER, PREPARED, TORCH, ONNX = "fastrnn", "fastrnn-prepared", "fastrnn-torch", "fastrnn-onnx"
OURS = (LAYER, PREPARED, TORCH, ONNX, "fastrnn-jax")  # what the others are measured against
PYTORCH = "pytorch"
DROP_INS = {TORCH: PYTORCH, ONNX: "onnxruntime"}  # the same program but for a name
ORIENTATION = "reference"  # never counts as the best peer


class MissingError(Exception):
    """A peer's library is not installed, or not usable."""


def load(name: str, threads: int) -> Peer:
    """The peer, set to `threads` threads. Raises MissingError if its library is not there."""
    entry = REGISTRY[name]
    try:
        peer: Peer = getattr(importlib.import_module(f"{__name__}.{entry.file}"), entry.class_name)(threads)
    except ModuleNotFoundError as error:
        raise MissingError(
            f"{entry.label} is not compared: there is no module {error.name!r}; pip install {entry.requirement}"
        ) from error
    except ImportError as error:
        raise MissingError(f"{entry.label} is not compared: {error}") from error
    return peer

"""Fused recurrent networks (RNN, LSTM, GRU) for NumPy arrays: inference and training."""

import importlib
from importlib.metadata import version
from typing import Any

from . import functional, reference, weights
from ._gradients import Gradients
from .config import get_num_threads, native_calls, set_num_threads, show_config
from .layers import GRU, LSTM, RNN, load

__version__ = version("fastrnn")

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Gradients",
    "__version__",
    "functional",
    "get_num_threads",
    "load",
    "native_calls",
    "reference",
    "set_num_threads",
    "show_config",
    "weights",
]


def __getattr__(name: str) -> Any:
    """What needs more than NumPy, a library or a build with CUDA, is imported when it is first asked for."""
    if name in ("cuda", "jax", "keras", "onnx", "torch"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

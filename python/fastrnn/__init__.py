"""Fused recurrent networks (RNN, LSTM, GRU) for NumPy arrays: inference and training."""

from importlib.metadata import version

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

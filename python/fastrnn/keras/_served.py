"""What the kernels serve, and why not where they do not."""

from __future__ import annotations

import warnings
from typing import Any

import keras
from keras import activations, ops

KINDS = {keras.layers.LSTMCell: "lstm", keras.layers.GRUCell: "gru", keras.layers.SimpleRNNCell: "rnn"}
DTYPES = ("float32", "float64")

FUNCTIONS = {
    "tanh": (activations.tanh, ops.tanh),
    "sigmoid": (activations.sigmoid, ops.sigmoid),
    "relu": (activations.relu, ops.relu),
}

# The kernels' cell for a kind, its activations and, of a GRU, reset_after.
CELLS = {
    ("lstm", "tanh", "sigmoid"): "lstm",
    ("gru", "tanh", "sigmoid", True): "gru",
    ("gru", "tanh", "sigmoid", False): "gru_reset_before",
    ("rnn", "tanh"): "rnn_tanh",
    ("rnn", "relu"): "rnn_relu",
    ("rnn", "sigmoid"): "rnn_sigmoid",
}

_warned: set[str] = set()


def kind_of(layer: Any) -> str | None:
    """ "lstm", "gru" or "rnn"; None for a cell of somebody's own, which may compute anything."""
    return KINDS.get(type(layer.cell))


def cell_of(layer: Any) -> str | None:
    """The name of the kernels' cell that computes what a layer does; None if there is none."""
    cell, kind = layer.cell, kind_of(layer)
    used = [cell.activation] if kind == "rnn" else [cell.activation, cell.recurrent_activation] if kind else []
    names = [next((name for name, same in FUNCTIONS.items() if f in same), "") for f in used]
    return CELLS.get((kind or "", *names, *([cell.reset_after] if kind == "gru" else [])))


def unserved(layer: Any, mask: Any, training: bool, dtype: str) -> str | None:
    """Why the kernels cannot serve a call in any backend, or None."""
    cell = layer.cell
    if kind_of(layer) is None:
        return f"a cell of class {type(cell).__name__}"
    if cell_of(layer) is None:
        gates = "" if kind_of(layer) == "rnn" else f" with recurrent_activation {_name(cell.recurrent_activation)}"
        return f"activation {_name(cell.activation)}{gates}"
    if layer.unroll:
        return "unroll=True"
    if cell.kernel.shape[0] == 0:
        return "an input without features"
    if dtype not in DTYPES:
        return f"computing in {dtype} (the kernels take float32 and float64)"
    if training and cell.recurrent_dropout:
        return "recurrent_dropout, whose mask is inside the loop"
    if training and cell.dropout and (cell.dropout == 1 or getattr(cell, "implementation", 2) == 1):
        return "dropout of all, or with a mask for each gate (implementation=1)"
    if mask is not None and len(mask.shape) != 2:
        return f"a mask of shape {tuple(mask.shape)}"
    return None


def _name(function: Any) -> str:
    return getattr(function, "__name__", type(function).__name__)


def warn_once(layer: Any, reason: str) -> None:
    """Tell that Keras' own loop ran."""
    if reason not in _warned:
        _warned.add(reason)
        name = type(layer).__name__
        warnings.warn(f"fastrnn.keras, {name}: Keras' own loop ran, not fastrnn's kernels, for {reason}", stacklevel=2)

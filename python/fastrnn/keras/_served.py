"""What the kernels serve, and why not where they do not."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import keras
from keras import activations, ops

from .._options import Activation, Options, check_options

KINDS = {keras.layers.LSTMCell: "lstm", keras.layers.GRUCell: "gru", keras.layers.SimpleRNNCell: "rnn"}
DTYPES = ("float32", "float64")

# The kernels' functions, and which of Keras' are the same: everywhere, and with the same slope at a kink.
FUNCTIONS: dict[Activation, tuple[Any, ...]] = {
    "tanh": (activations.tanh, ops.tanh),
    "sigmoid": (activations.sigmoid, ops.sigmoid),
    "relu": (activations.relu, ops.relu),
    "affine": (activations.linear,),
    "elu": (activations.elu, ops.elu),
    "softplus": (activations.softplus, ops.softplus),
    "softsign": (activations.softsign, ops.softsign),
    ("hard_sigmoid", 1 / 6): (activations.hard_sigmoid, ops.hard_sigmoid),
}
if keras.backend.backend() == "jax":  # on others its slope at 0 is 0.2, in the kernels 1
    FUNCTIONS["leaky_relu", 0.2] = (activations.leaky_relu, ops.leaky_relu)

_warned: set[str] = set()


class Cell(NamedTuple):
    """One of the kernels'."""

    name: str
    options: Options | None  # None: it applies the functions that it was published with


def kind_of(layer: Any) -> str | None:
    """ "lstm", "gru" or "rnn"; None for a cell of somebody's own, which may compute anything."""
    return KINDS.get(type(layer.cell))


def cell_of(layer: Any) -> Cell | None:
    """What of the kernels computes what a layer does; None if nothing."""
    cell, kind = layer.cell, kind_of(layer)
    if kind is None:
        return None
    candidate = _function(cell.activation)
    if kind == "rnn":
        return None if candidate is None else _cell("rnn_tanh", candidate)
    gates = _function(cell.recurrent_activation)
    if gates is None or candidate is None:
        return None
    if kind == "lstm":
        return _cell("lstm", gates, candidate, candidate)  # the last one of c'
    return _cell("gru" if cell.reset_after else "gru_reset_before", gates, candidate)


def _function(function: Any) -> Activation | None:
    return next((ours for ours, theirs in FUNCTIONS.items() if any(function is f for f in theirs)), None)


@lru_cache(maxsize=256)
def _cell(name: str, *functions: Activation) -> Cell:
    return Cell(*check_options(name, 1, Options(functions)))


def unserved(layer: Any, mask: Any, training: bool, dtype: str) -> str | None:
    """Why the kernels cannot serve a call in any backend, or None."""
    cell = layer.cell
    if kind_of(layer) is None:
        return f"a cell of class {type(cell).__name__}"
    if cell_of(layer) is None:
        return shown_activations(layer)
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


def shown_activations(layer: Any) -> str:
    """A layer's activations, for a warning."""

    def name(function: Any) -> str:
        return getattr(function, "__name__", type(function).__name__)

    gates = "" if kind_of(layer) == "rnn" else f" with recurrent_activation {name(layer.cell.recurrent_activation)}"
    return f"activation {name(layer.cell.activation)}{gates}"


def warn_once(layer: Any, reason: str) -> None:
    """Tell that Keras' own loop ran."""
    if reason not in _warned:
        _warned.add(reason)
        name = type(layer).__name__
        warnings.warn(f"fastrnn.keras, {name}: Keras' own loop ran, not fastrnn's kernels, for {reason}", stacklevel=2)

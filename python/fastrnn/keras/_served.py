"""What the kernels serve, and why not where they do not."""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import keras
from keras import activations, ops

from .._checks import warn_caller
from .._options import Activation, Options, check_options, written

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


class Cell(NamedTuple):
    """One of the kernels'."""

    name: str
    options: Options | None  # None: it applies the functions that it was published with
    text: str  # all that as one string

    @classmethod
    def of(cls, name: str, *functions: Activation) -> Cell:
        name, options = check_options(name, 1, Options(functions))
        return cls(name, options, written(name, options))


# By a layer's kind, its activations, those of the gates first, and, of a GRU, reset_after.
CELLS: dict[tuple[Any, ...], Cell] = {("rnn", function): Cell.of("rnn_tanh", function) for function in FUNCTIONS}
for _gates, _candidate in product(FUNCTIONS, repeat=2):
    CELLS["lstm", _gates, _candidate] = Cell.of("lstm", _gates, _candidate, _candidate)  # the last one is that of c'
    CELLS["gru", _gates, _candidate, True] = Cell.of("gru", _gates, _candidate)
    CELLS["gru", _gates, _candidate, False] = Cell.of("gru_reset_before", _gates, _candidate)

_warned: set[str] = set()


def kind_of(layer: Any) -> str | None:
    """ "lstm", "gru" or "rnn"; None for a cell of somebody's own, which may compute anything."""
    return KINDS.get(type(layer.cell))


def cell_of(layer: Any) -> Cell | None:
    """What of the kernels computes what a layer does; None if nothing."""
    cell, kind = layer.cell, kind_of(layer)
    used = [cell.activation] if kind == "rnn" else [cell.recurrent_activation, cell.activation] if kind else []
    names = [next((ours for ours, theirs in FUNCTIONS.items() if any(f is g for g in theirs)), "") for f in used]
    return CELLS.get((kind or "", *names, *([bool(cell.reset_after)] if kind == "gru" else [])))


def unserved(layer: Any, x: Any, mask: Any, training: bool, dtype: str) -> str | None:
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
    if keras.backend.standardize_dtype(x.dtype).startswith("complex"):
        return "complex numbers"
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
        message = f"fastrnn.keras, {name}: Keras' own loop ran, not fastrnn's kernels, for {reason}"
        warn_caller(message, "fastrnn", "keras", keras.backend.backend())

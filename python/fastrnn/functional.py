"""Recurrent networks as functions: one call, weights given.

`weights` is a mapping by the layers' parameter names, or all arrays in a sequence in the flat order: by layer, then
direction, then weight_ih, weight_hh, bias_ih, bias_hh (if there are biases), weight_hr (if there is a projection).
Sizes, dtype, and whether there are biases and a projection follow from the arrays. Shapes are those of the layers:

    rnn, lstm, gru                            inference; as calling a layer
    rnn_forward, lstm_forward, gru_forward    training; as a layer's `forward`; dropout acts between layers
    backward                                  the gradients; as a layer's `backward`

Every function raises TypeError or ValueError, naming the argument, for one of a wrong type, dtype, shape or value.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import _core, _gradients
from ._checks import check_bool, check_dtype, check_int, check_names, got
from ._gradients import Gradients
from ._spec import GATES, MAX_LAYERS, Array, State, gru_cell, make_spec, parameter_names, rnn_cell

Weights: TypeAlias = Mapping[str, Array] | Sequence[Array]

__all__ = ["backward", "gru", "gru_forward", "lstm", "lstm_forward", "rnn", "rnn_forward"]


def rnn(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    nonlinearity: str = "tanh",
) -> tuple[Array, State]:
    """y and h_n of a plain recurrent network; see `fastrnn.RNN`."""
    network = _network(rnn_cell(nonlinearity), weights, num_layers, bidirectional, batch_first)
    return _core.infer(*network, x, state, lengths)


def lstm(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
) -> tuple[Array, State]:
    """y and (h_n, c_n) of a long short-term memory; see `fastrnn.LSTM`."""
    network = _network("lstm", weights, num_layers, bidirectional, batch_first)
    return _core.infer(*network, x, state, lengths)


def gru(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    reset_after: bool = True,
) -> tuple[Array, State]:
    """y and h_n of a gated recurrent unit; see `fastrnn.GRU`."""
    network = _network(gru_cell(reset_after), weights, num_layers, bidirectional, batch_first)
    return _core.infer(*network, x, state, lengths)


def rnn_forward(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    dropout_seed: int | None = None,
    nonlinearity: str = "tanh",
) -> tuple[Array, State, _core.Tape]:
    """y, h_n and the tape for `backward`. Without a `dropout_seed` the masks are drawn by chance."""
    network = _network(rnn_cell(nonlinearity), weights, num_layers, bidirectional, batch_first, dropout)
    return _core.forward(*network, x, state, lengths, _seed(dropout_seed))


def lstm_forward(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    dropout_seed: int | None = None,
) -> tuple[Array, State, _core.Tape]:
    """y, (h_n, c_n) and the tape for `backward`. Without a `dropout_seed` the masks are drawn by chance."""
    network = _network("lstm", weights, num_layers, bidirectional, batch_first, dropout)
    return _core.forward(*network, x, state, lengths, _seed(dropout_seed))


def gru_forward(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    dropout_seed: int | None = None,
    reset_after: bool = True,
) -> tuple[Array, State, _core.Tape]:
    """y, h_n and the tape for `backward`. Without a `dropout_seed` the masks are drawn by chance."""
    network = _network(gru_cell(reset_after), weights, num_layers, bidirectional, batch_first, dropout)
    return _core.forward(*network, x, state, lengths, _seed(dropout_seed))


def backward(tape: _core.Tape, dy: Array | None = None, dstate: State = None) -> Gradients:
    """Gradients of a loss, given those with respect to y and the returned state (None is zeros).

    The tape can be used any number of times. The gradients' parameters go by name, in the flat order.
    """
    return _gradients.backward(_core, tape, dy, dstate)


def _seed(dropout_seed: int | None) -> int:
    if dropout_seed is None:
        return secrets.randbits(64)
    return check_int("dropout_seed", dropout_seed, 0, 2**64 - 1)


def _network(
    cell: str, weights: Weights, num_layers: int, bidirectional: bool, batch_first: bool, dropout: float = 0.0
) -> tuple[_core.Spec, list[Array]]:
    """The network that the weights make, and its weights in the flat order."""
    num_layers = check_int("num_layers", num_layers, 1, MAX_LAYERS)
    bidirectional = check_bool("bidirectional", bidirectional)
    kind = cell.split("_")[0]
    if isinstance(weights, Mapping):
        stems = {str(name).split("_l")[0] for name in weights}
        bias = bool(stems & {"bias_ih", "bias_hh"})
        projected = kind == "lstm" and "weight_hr" in stems
    elif isinstance(weights, Sequence):
        bias, projected = _guess(kind, len(weights), num_layers * (1 + bidirectional))
    else:
        raise TypeError(f"weights must be a mapping or a sequence of arrays, {got(weights)}")
    names = parameter_names(num_layers, bidirectional, bias, projected)
    if not isinstance(weights, Mapping):
        if len(weights) > len(names):
            raise ValueError(f"weights: expected {len(names)} arrays ({', '.join(names)}), got {len(weights)}")
        weights = dict(zip(names, weights, strict=False))
    check_names("weights", weights, names)

    gates = GATES[kind]
    rows, input_size = _matrix(weights, "weight_ih_l0").shape
    if rows % gates:
        raise ValueError(f"weight_ih_l0 must have {gates} rows for each unit of an {kind.upper()}, got {rows} rows")
    proj_size = len(_matrix(weights, "weight_hr_l0")) if projected else 0
    dtype = check_dtype("dtype of weight_ih_l0", weights["weight_ih_l0"].dtype)
    sizes = input_size, rows // gates, num_layers
    spec = make_spec(cell, *sizes, bias, batch_first, dropout, bidirectional, proj_size, dtype)
    return spec, [weights[name] for name in names]


def _guess(kind: str, arrays: int, directions: int) -> tuple[bool, bool]:
    """(bias, projected) of the smallest network of `directions` layers and directions that has room for the arrays."""
    each = -(-arrays // directions)
    if kind != "lstm":
        return each > 2, False
    return each > 3, each in (3, 5)


def _matrix(weights: Mapping[str, Array], name: str) -> Array:
    matrix = weights[name]
    if not isinstance(matrix, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, {got(matrix)}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be a matrix, got shape {matrix.shape}")
    return matrix

"""Recurrent networks as functions: one call, weights given.

`weights` is a mapping by the layers' parameter names, or all arrays in a sequence in the flat order: by layer, then
direction, then weight_ih, weight_hh, bias_ih, bias_hh (if there are biases), weight_hr (if there is a projection).
Sizes, dtype, and whether there are biases and a projection follow from the arrays. Equations, with their sources, are
those of `fastrnn.RNN`, `LSTM` and `GRU`; letters for sizes are those of `fastrnn.layers`. Denormal numbers count as
zero in the kernels.

    rnn, lstm, gru                            inference; as calling a layer
    rnn_forward, lstm_forward, gru_forward    training; as a layer's `forward`; dropout acts between layers
    backward                                  the gradients; as a layer's `backward`
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import _core, _gradients
from ._checks import check_bool, check_dtype, check_int, check_names, got, listed
from ._gradients import Gradients
from ._options import Activation, Options
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
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State]:
    """A plain recurrent network, `fastrnn.RNN`: inference.

    Sizes: T time steps, B rows of the batch, I inputs, H units, L layers, D directions (2 if bidirectional, else 1), G
    gates, H_out the width of h (that of an LSTM's projection where it has one, else H).

    Args:
        x: (T, B, I); (B, T, I) with `batch_first`; or one sequence (T, I). float32 or float64, any strides.
        weights: of the dtype of x. Each layer and direction has weight_ih (G*H, I, or D*H_out above the first layer),
            weight_hh (G*H, H_out), and may have bias_ih and bias_hh (G*H,); in an RNN, G is 1 and H_out is H.
        state: where to start from, h0 (L*D, B, H) of the dtype of x, without B if x has none. None is zeros.
        lengths: None (all rows have T steps) or (B,) integers in 0…T; for one sequence an int.
        num_layers, bidirectional, batch_first, nonlinearity, clip, activations: as in `fastrnn.RNN`.

    Returns:
        y, (T, B, D*H) in x's layout, and h_n, shaped as h0; of the dtype of x.

    Raises:
        TypeError, ValueError: an argument, or one of the weights, has a wrong type, dtype, shape or value, or is
            missing; the message names it.
        MemoryError: there is no memory for the results.
    """
    options = Options(activations, clip)
    network = _network(rnn_cell(nonlinearity), weights, num_layers, bidirectional, batch_first, options)
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
    peephole: bool = False,
    coupled_input_forget: bool = False,
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State]:
    """A long short-term memory, `fastrnn.LSTM`: inference.

    Args:
        x, lengths, num_layers, bidirectional, batch_first: as in `rnn`.
        weights: as in `rnn`, with G = 4; with a projection, each layer and direction has weight_hr (H_out, H), too, and
            with peepholes weight_peephole (3*H,).
        state: (h0, c0) of shapes (L*D, B, H_out) and (L*D, B, H); None in any place is zeros.
        peephole, coupled_input_forget, clip, activations: as in `fastrnn.LSTM`.

    Returns:
        y, (T, B, D*H_out) in x's layout, and (h_n, c_n), shaped as h0 and c0; of the dtype of x.

    Raises:
        TypeError, ValueError, MemoryError: as `rnn`.
    """
    options = Options(activations, clip, coupled_input_forget, peephole)
    network = _network("lstm", weights, num_layers, bidirectional, batch_first, options)
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
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State]:
    """A gated recurrent unit, `fastrnn.GRU`: inference.

    Args:
        x, state, lengths, num_layers, bidirectional, batch_first: as in `rnn`.
        weights: as in `rnn`, with G = 3.
        reset_after, clip, activations: as in `fastrnn.GRU`.

    Returns:
        y and h_n, as `rnn`.

    Raises:
        TypeError, ValueError, MemoryError: as `rnn`.
    """
    options = Options(activations, clip)
    network = _network(gru_cell(reset_after), weights, num_layers, bidirectional, batch_first, options)
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
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State, _core.Tape]:
    """A plain recurrent network: training.

    Args:
        dropout: the probability with which each element that goes from one layer to the next is replaced by 0; the
            others are divided by 1 - dropout.
        dropout_seed: fixes the masks, an int from 0 to 2^64 - 1. None: by chance.
        others: as in `rnn`.

    Returns:
        y and h_n, as `rnn`, and the tape for `backward`. It refers to y, which is read-only therefore, to x and to the
        weights: leave them unchanged until you are done with it.

    Raises:
        TypeError, ValueError, MemoryError: as `rnn`.
    """
    options = Options(activations, clip)
    network = _network(rnn_cell(nonlinearity), weights, num_layers, bidirectional, batch_first, options, dropout)
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
    peephole: bool = False,
    coupled_input_forget: bool = False,
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State, _core.Tape]:
    """A long short-term memory: training.

    Args:
        dropout, dropout_seed: as in `rnn_forward`.
        others: as in `lstm`.

    Returns:
        y and (h_n, c_n), as `lstm`, and the tape, as `rnn_forward`.

    Raises:
        TypeError, ValueError, MemoryError: as `rnn`.
    """
    options = Options(activations, clip, coupled_input_forget, peephole)
    network = _network("lstm", weights, num_layers, bidirectional, batch_first, options, dropout)
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
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State, _core.Tape]:
    """A gated recurrent unit: training.

    Args:
        dropout, dropout_seed: as in `rnn_forward`.
        others: as in `gru`.

    Returns:
        y and h_n, as `rnn`, and the tape, as `rnn_forward`.

    Raises:
        TypeError, ValueError, MemoryError: as `rnn`.
    """
    options = Options(activations, clip)
    network = _network(gru_cell(reset_after), weights, num_layers, bidirectional, batch_first, options, dropout)
    return _core.forward(*network, x, state, lengths, _seed(dropout_seed))


def backward(tape: _core.Tape, dy: Array | None = None, dstate: State = None) -> Gradients:
    """Gradients of a loss, given those with respect to what a forward function returned.

    Args:
        tape: from that function; it can be used any number of times.
        dy: the loss's derivative with respect to y, in y's shape and dtype. None is zeros. Past a row's length it is
            not read.
        dstate: the derivative with respect to the returned state, dh_n or (dh_n, dc_n), in its shape and dtype; None in
            any place is zeros.

    Returns:
        Gradients, with the fields x, h0, c0 (None unless an LSTM) and parameters: by name, in the flat order. Each has
        the shape and dtype of what it is the derivative of.

    Raises:
        TypeError, ValueError: `tape` is no tape; dy, dh_n or dc_n have a wrong type, dtype or shape.
        MemoryError: there is no memory for the gradients.
    """
    return _gradients.backward(_core, tape, dy, dstate)


def _seed(dropout_seed: int | None) -> int:
    if dropout_seed is None:
        return secrets.randbits(64)
    return check_int("dropout_seed", dropout_seed, 0, 2**64 - 1)


def _network(
    cell: str,
    weights: Weights,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    options: Options,
    dropout: float = 0.0,
    array_type: type = np.ndarray,
    dtype: str | None = None,
) -> tuple[_core.Spec, list[Array]]:
    """The network that the weights, of an adapter's type of arrays, make; and its weights in the flat order. None: the
    weights' dtype."""
    num_layers = check_int("num_layers", num_layers, 1, MAX_LAYERS)
    bidirectional = check_bool("bidirectional", bidirectional)
    peephole = check_bool("peephole", options.peephole)
    kind = cell.split("_")[0]
    if isinstance(weights, Mapping):
        stems = {str(name).split("_l")[0] for name in weights}
        bias = bool(stems & {"bias_ih", "bias_hh"})
        projected = kind == "lstm" and "weight_hr" in stems
    elif isinstance(weights, Sequence):
        bias, projected = _guess(kind, len(weights), num_layers * (1 + bidirectional), peephole)
    else:
        raise TypeError(f"weights must be a mapping or a sequence of arrays, {got(weights)}")
    names = parameter_names(num_layers, bidirectional, bias, projected, peephole)
    if not isinstance(weights, Mapping):
        if len(weights) > len(names):
            raise ValueError(f"weights: expected {len(names)} arrays ({listed(names)}), got {len(weights)}")
        weights = dict(zip(names, weights, strict=False))
    check_names("weights", weights, names)

    gates = GATES[kind]
    rows, input_size = _matrix(weights, "weight_ih_l0", array_type).shape
    if rows % gates:
        of = f"{'a' if kind == 'gru' else 'an'} {kind.upper()}"
        raise ValueError(f"weight_ih_l0 must have {gates} rows for each unit of {of}, got {rows} rows")
    proj_size = _matrix(weights, "weight_hr_l0", array_type).shape[0] if projected else 0
    dtype = dtype or check_dtype("dtype of weight_ih_l0", weights["weight_ih_l0"].dtype)
    sizes = input_size, rows // gates, num_layers
    spec = make_spec(cell, *sizes, bias, batch_first, dropout, bidirectional, proj_size, dtype, options)
    return spec, [weights[name] for name in names]


def _guess(kind: str, arrays: int, directions: int, peephole: bool) -> tuple[bool, bool]:
    """(bias, projected) of the smallest network of `directions` layers and directions that has room for the arrays."""
    each = -(-arrays // directions) - peephole
    if kind != "lstm":
        return each > 2, False
    return each > 3, each in (3, 5)


def _matrix(weights: Mapping[str, Array], name: str, array_type: type) -> Array:
    matrix = weights[name]
    if not isinstance(matrix, array_type):
        raise TypeError(f"{name} must be a NumPy array, {got(matrix)}")
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must be a matrix, got shape {matrix.shape}")
    return matrix

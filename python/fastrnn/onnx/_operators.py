"""The operators on NumPy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _core
from .._checks import check_unmasked, got
from .._spec import Array, make_spec
from . import _attributes

ELEMENTS = ("float32", "float64", "float16", "bfloat16")
INPUTS = ("X", "W", "R", "B", "initial_h", "initial_c", "P")  # in the core's order


def rnn(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
) -> tuple[Array, Array]:
    """The operator RNN.

    Sizes: T seq_length, N batch_size, I input_size, H hidden_size, D directions (2 if bidirectional, else 1), G gates
    (1 here). All tensors but sequence_lens have one type: float32, float64, float16 or `ml_dtypes.bfloat16`. The last
    two are computed in float32 and rounded at the end.

    Args:
        X: (T, N, I), with layout 1 (N, T, I).
        W: (D, G*H, I).
        R: (D, G*H, H).
        B: (D, 2*G*H), None is zeros.
        sequence_lens: (N,) of int32, in 0…T. What lies past a sequence's end is not read, and 0 in Y. The state of a
            sequence of length 0 is zeros, as in ONNX Runtime.
        initial_h: (D, N, H), with layout 1 (N, D, H). None is zeros.
        direction: "forward", "reverse" or "bidirectional".
        hidden_size: H, to be checked; None is that of R.
        layout: 0 or 1, see X.
        activations: names of D functions (Affine, Elu, HardSigmoid, LeakyRelu, Relu, ScaledTanh, Sigmoid, Softplus,
            Softsign, Tanh, ThresholdedRelu), in upper or lower case.
        activation_alpha, activation_beta: their parameters. Each function takes the next where it has such a parameter,
            and the default of the ONNX operator of its name where there is none left.
        clip: bounds the inputs of the activations to -clip…clip.

    Returns:
        Y, (T, D, N, H), with layout 1 (N, T, D, H), and Y_h, shaped as initial_h.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape or value; the message names it.
    """
    attributes = _attributes.read(
        "RNN",
        direction=direction,
        hidden_size=hidden_size,
        layout=layout,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
    )
    Y, Y_h = _run(attributes, (X, W, R, B, initial_h, None, None), sequence_lens)
    return Y, Y_h


def lstm(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    initial_c: Array | None = None,
    P: Array | None = None,
    *,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    input_forget: int = 0,
) -> tuple[Array, Array, Array]:
    """The operator LSTM.

    Args:
        initial_c: as initial_h.
        P: (D, 3*H), the weights of the peepholes of the input, output and forget gate; None is none.
        activations: 3*D names: of the gates, of the candidate, and of what goes from the cell to the output.
        clip: bounds the inputs of the gates' and the candidate's activations; as in ONNX Runtime not that of the third.
        input_forget: 1 makes the forget gate 1 - the input gate.
        others: as in `rnn`, with G = 4 in the order i, o, f, c.

    Returns:
        Y and Y_h, as `rnn`, and Y_c, shaped as initial_c.

    Raises:
        TypeError, ValueError: as `rnn`.
    """
    attributes = _attributes.read(
        "LSTM",
        direction=direction,
        hidden_size=hidden_size,
        layout=layout,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
        input_forget=input_forget,
    )
    Y, Y_h, Y_c = _run(attributes, (X, W, R, B, initial_h, initial_c, P), sequence_lens)
    return Y, Y_h, Y_c


def gru(
    X: Array,
    W: Array,
    R: Array,
    B: Array | None = None,
    sequence_lens: Array | None = None,
    initial_h: Array | None = None,
    *,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    activations: Sequence[str] | None = None,
    activation_alpha: Sequence[float] | None = None,
    activation_beta: Sequence[float] | None = None,
    clip: float | None = None,
    linear_before_reset: int = 0,
) -> tuple[Array, Array]:
    """The operator GRU.

    Args:
        activations: 2*D names: of the gates, and of the candidate.
        linear_before_reset: 1 lets the reset gate act after the recurrent product, our `reset_after`.
        others: as in `rnn`, with G = 3 in the order z, r, h.

    Returns:
        Y and Y_h, as `rnn`.

    Raises:
        TypeError, ValueError: as `rnn`.
    """
    attributes = _attributes.read(
        "GRU",
        direction=direction,
        hidden_size=hidden_size,
        layout=layout,
        activations=activations,
        activation_alpha=activation_alpha,
        activation_beta=activation_beta,
        clip=clip,
        linear_before_reset=linear_before_reset,
    )
    Y, Y_h = _run(attributes, (X, W, R, B, initial_h, None, None), sequence_lens)
    return Y, Y_h


def _run(attributes: _attributes.Attributes, inputs: tuple[Array | None, ...], sequence_lens: Any) -> list[Array]:
    dtype = _dtype(inputs[0])
    arrays = [None if a is None else _checked(name, a, dtype) for name, a in zip(INPUTS, inputs, strict=True)]
    input_size, hidden_size = (_last_axis(name, inputs[INPUTS.index(name)]) for name in ("W", "R"))
    cell, options = attributes.network(peephole=inputs[INPUTS.index("P")] is not None)
    spec = make_spec(
        cell,
        input_size,
        attributes.hidden_size or hidden_size,
        batch_first=attributes.batch_first,
        bidirectional=attributes.bidirectional,
        dtype="float64" if dtype == np.float64 else "float32",
        options=options,
    )
    lengths = None if sequence_lens is None else _lengths(sequence_lens)
    results = _core.run_onnx(spec, dtype.name, attributes.reverse, arrays, lengths)
    return [array.view(dtype) for array in results]


def _dtype(x: Any) -> np.dtype[Any]:
    if not isinstance(x, np.ndarray):
        raise TypeError(f"X must be a NumPy array, {got(x)}")
    if x.dtype.name not in ELEMENTS or not x.dtype.isnative:
        raise TypeError(f"X must be of float32, float64, float16 or bfloat16, got dtype {x.dtype}")
    return x.dtype


def _checked(name: str, array: Any, dtype: np.dtype[Any]) -> Array:
    """As the core takes it: C-contiguous, 16-bit numbers as uint16."""
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name} must be a NumPy array, {got(array)}")
    if array.dtype != dtype:
        raise TypeError(f"{name} must be of X's dtype, {dtype}, got dtype {array.dtype}")
    plain: Array = np.require(array, dtype, ["C", "A"])
    return plain.view(np.uint16) if dtype.itemsize == 2 else plain


def _last_axis(name: str, array: Any) -> int:
    if array is None or array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{name} must have three axes, none of size 0, got shape {np.shape(array)}")
    return int(array.shape[2])


def _lengths(sequence_lens: Any) -> Array:
    check_unmasked("sequence_lens", sequence_lens)
    try:
        lengths = np.asarray(sequence_lens)
    except (TypeError, ValueError):
        raise TypeError(f"sequence_lens must be integers, {got(sequence_lens)}") from None
    if lengths.dtype.kind not in "iu" and lengths.size:
        raise TypeError(f"sequence_lens must be integers, got dtype {lengths.dtype}")
    if lengths.size and not 0 <= lengths.min() <= lengths.max() < 2**31:
        raise ValueError(f"sequence_lens must be from 0 to the length of X, {got(sequence_lens)}")
    return np.ascontiguousarray(lengths, np.int32)

"""`rnn`, `lstm` and `gru`: what they take is checked here, when a program is traced, and handed to `_ops`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.dtypes
import jax.numpy as jnp
import numpy as np

from .. import _device, functional
from .._checks import check_unmasked, got
from .._options import Activation, Options
from .._spec import gru_cell, rnn_cell
from . import _ops
from ._register import platforms
from ._spread import differing_as, split_as, whole

Array: TypeAlias = Any  # jax.Array
State: TypeAlias = Any  # h, or (h, c) for an LSTM
Weights: TypeAlias = Mapping[str, Array] | Sequence[Array]

DTYPES = ("float32", "float64")


def rnn(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    dropout_key: Array | None = None,
    nonlinearity: str = "tanh",
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State]:
    """A plain recurrent network, `fastrnn.RNN`, on JAX arrays.

    Sizes: T time steps, B rows of the batch, I inputs, H units, L layers, D directions (2 if bidirectional, else 1), G
    gates, H_out the width of h (that of an LSTM's projection where it has one, else H).
    Arrays are JAX's or NumPy's, or have `__jax_array__`, as parameters of Flax.

    Args:
        x: (T, B, I); (B, T, I) with `batch_first`; or one sequence (T, I). float32, or in JAX's 64-bit mode float64; on
            a GPU also float16 or bfloat16, in which sums are taken in float32.
        weights: all arrays by `fastrnn.RNN`'s parameter names, or in a sequence in the flat order: by layer, then
            direction, then weight_ih (G*H, I, or D*H_out above the first layer), weight_hh (G*H, H_out) and, if there
            are biases, bias_ih and bias_hh (G*H,); in an RNN, G is 1 and H_out is H. Of the dtype of x. (JAX sorts the
            names of dicts that it hands on, as `jit`: the values of such a one are not in the flat order.)
        state: where to start from, h0 (L*D, B, H) of the dtype of x, without B if x has none. None is zeros.
        lengths: None (all rows have T steps) or (B,) integers in 0…T, which may be traced; for one sequence an int.
        num_layers, bidirectional, batch_first, nonlinearity, clip, activations: as in `fastrnn.RNN`; they are static.
        dropout: the probability with which each element that goes from one layer to the next is replaced by 0; the
            others are divided by 1 - dropout. Static.
        dropout_key: one of `jax.random`'s keys, which the masks depend on. None: nothing is dropped, as in inference.

    Returns:
        y, (T, B, D*H) in x's layout, 0 past a row's length, and h_n, the state after each row's last step, shaped as
        h0; of the dtype of x.

    Raises:
        TypeError, ValueError: an argument, or one of the weights, has a wrong type, dtype, shape or value, or is
            missing, or lies on a device that this build has no kernels for; the message names it. Values of traced
            lengths are checked in the kernel: the program then ends with a `jax.errors.JaxRuntimeError`. (On a GPU
            they cannot be: one that is out of range counts as the nearest that is not.)
    """
    cell, options = rnn_cell(nonlinearity), Options(activations, clip)
    switches = num_layers, bidirectional, batch_first
    return _call(cell, options, x, weights, state, lengths, switches, dropout, dropout_key)


def lstm(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    dropout_key: Array | None = None,
    peephole: bool = False,
    coupled_input_forget: bool = False,
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State]:
    """A long short-term memory, `fastrnn.LSTM`, on JAX arrays.

    Args:
        weights: as in `rnn`, with G = 4; with a projection, each layer and direction has weight_hr (H_out, H), too, and
            with peepholes weight_peephole (3*H,).
        state: (h0, c0) of shapes (L*D, B, H_out) and (L*D, B, H); None in any place is zeros.
        peephole, coupled_input_forget, clip, activations: as in `fastrnn.LSTM`; static.
        others: as in `rnn`.

    Returns:
        y, (T, B, D*H_out) in x's layout, and (h_n, c_n), shaped as h0 and c0; of the dtype of x.

    Raises:
        TypeError, ValueError: as `rnn`.
    """
    options = Options(activations, clip, coupled_input_forget, peephole)
    switches = num_layers, bidirectional, batch_first
    return _call("lstm", options, x, weights, state, lengths, switches, dropout, dropout_key)


def gru(
    x: Array,
    weights: Weights,
    state: State = None,
    *,
    lengths: Any = None,
    num_layers: int = 1,
    bidirectional: bool = False,
    batch_first: bool = False,
    dropout: float = 0.0,
    dropout_key: Array | None = None,
    reset_after: bool = True,
    clip: float | None = None,
    activations: Sequence[Activation] | None = None,
) -> tuple[Array, State]:
    """A gated recurrent unit, `fastrnn.GRU`, on JAX arrays.

    Args:
        weights: as in `rnn`, with G = 3.
        reset_after, clip, activations: as in `fastrnn.GRU`; static.
        others: as in `rnn`.

    Returns:
        y and h_n, as `rnn`.

    Raises:
        TypeError, ValueError: as `rnn`.
    """
    cell, options = gru_cell(reset_after), Options(activations, clip)
    switches = num_layers, bidirectional, batch_first
    return _call(cell, options, x, weights, state, lengths, switches, dropout, dropout_key)


def _call(
    cell: str,
    options: Options,
    x: Array,
    weights: Weights,
    state: State,
    lengths: Any,
    switches: tuple[int, bool, bool],  # num_layers, bidirectional, batch_first
    dropout: float,
    dropout_key: Array | None,
) -> tuple[Array, State]:
    if isinstance(weights, Mapping):
        weights = {name: _array(str(name), array) for name, array in weights.items()}
    elif isinstance(weights, Sequence):
        weights = [_array(f"weights[{k}]", array) for k, array in enumerate(weights)]
    x = _array("x", x)
    half = x.dtype.name if x.dtype.name in _device.HALF else None
    spec, flat = functional._network(cell, weights, *switches, options, dropout, jax.Array, "float32" if half else None)
    net = _ops.Network.of(spec, half or spec.dtype)
    if spec.options is not None and _platforms(x) - {"cpu"}:
        _device.network(spec, net.dtype)  # raises
    if half and ("cpu" in _platforms(x) or not _device.cuda()):
        raise TypeError(f"x: expected an array of {' or '.join(DTYPES)} on a CPU, got dtype {half}")
    if x.ndim not in (2, 3) or x.shape[-1] != spec.input_size:
        batched = f"({'B, T' if spec.batch_first else 'T, B'}, {spec.input_size})"
        raise ValueError(f"x: expected shape {batched} or (T, {spec.input_size}), got {x.shape}")
    inputs = {"x": x} | dict(zip(net.parameter_shapes, flat, strict=True))
    shapes = {"x": x.shape} | net.parameter_shapes
    states = _states(net, state)
    shapes |= {f"{name}0": shape for name, shape in net.state_shapes(x).items()}
    for name, array in (inputs | states).items():
        if array is not None:
            _check(name, array, shapes[name], net.dtype, "x" if half else "weight_ih_l0")
    steps, batch = net.extent(x)
    seed = None if dropout_key is None else _seed(dropout_key)
    inputs |= states | {"lengths": _lengths(lengths, steps, batch), "seed": seed if net.drops else None}
    results = _ops.differentiable(net)(differing_as(whole(inputs), inputs))
    y = split_as(results["y"], x, (*range(x.ndim - 1), None))
    rows = (1 - spec.batch_first,) if batch else ()
    final = []
    for name, start in states.items():
        model, axes = (x, (None, *rows, None)) if start is None else (start, tuple(range(start.ndim)))
        final.append(split_as(results[f"{name[0]}_n"], model, axes))
    return y, tuple(final) if net.has_cell else final[0]


def _array(name: str, value: Any) -> Array:
    """A JAX array where there are kernels, or one that is traced: of its program, XLA says whether there are any."""
    dtypes = DTYPES + (_device.HALF if _device.cuda() else ())
    wanted = f"an array of {' or '.join(dtypes)}"
    if not isinstance(value, (jax.Array, np.ndarray)) and hasattr(value, "__jax_array__"):
        value = value.__jax_array__()  # as jax.numpy takes what wraps an array, such as a parameter of Flax
    if not isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(f"{name}: expected {wanted}, {got(value)}")
    check_unmasked(name, value)
    if isinstance(value, np.ndarray) and str(value.dtype) not in dtypes:  # str() tells the order of bytes
        raise TypeError(f"{name}: expected {wanted}, got dtype {value.dtype}")
    array = jnp.asarray(value)
    if others := _platforms(array).difference(platforms()):
        wanted = " or ".join(platforms())
        raise ValueError(f"{name}: expected an array on platform {wanted}, got one on {', '.join(sorted(others))}")
    return array


def _platforms(array: Array) -> set[str]:
    """Where it lies; of a traced one nobody knows."""
    return set() if isinstance(array, jax.core.Tracer) else {device.platform for device in array.devices()}


def _check(name: str, array: Array, shape: tuple[int, ...], dtype: str, model: str) -> None:
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected an array of {dtype}, as {model}, got dtype {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def _states(net: _ops.Network, state: State) -> dict[str, Array | None]:
    """h0, and for an LSTM c0."""
    pair = isinstance(state, (tuple, list))
    if not net.has_cell:
        if pair:
            raise TypeError(f"state: expected the array h0, {got(state)}")
        return {"h0": None if state is None else _array("h0", state)}
    if state is None:
        state = (None, None)
    elif not pair:
        raise TypeError(f"state: expected a tuple (h0, c0), {got(state)}")
    if len(state) != 2:
        raise ValueError(f"state: expected a tuple (h0, c0), got one of length {len(state)}")
    return {name: None if s is None else _array(name, s) for name, s in zip(("h0", "c0"), state, strict=True)}


def _lengths(lengths: Any, steps: int, batch: tuple[int, ...]) -> Array | None:
    """An array (B,), (1,) for one sequence; values that are known are checked."""
    if lengths is None:
        return None
    known = not isinstance(lengths, jax.core.Tracer)
    if known:
        check_unmasked("lengths", lengths)
        try:
            lengths = np.asarray(lengths)
        except (TypeError, ValueError):
            raise TypeError(f"lengths: expected integers, {got(lengths)}") from None
        if lengths.size == 0 and lengths.dtype == np.float64:
            lengths = lengths.astype(np.int32)  # NumPy's default for []
    if getattr(lengths.dtype, "kind", None) not in ("i", "u"):  # keys have types of their own
        raise TypeError(f"lengths: expected integers, got dtype {lengths.dtype}")
    if lengths.shape != batch and (batch or lengths.shape != (1,)):
        raise ValueError(f"lengths: expected shape {batch}, got {lengths.shape}")
    if known and not ((lengths >= 0) & (lengths <= steps)).all():
        raise ValueError(f"lengths: expected values in 0…{steps}, got {lengths.tolist()}")
    lengths = lengths.reshape(batch or (1,))
    dtype = np.int64 if not known and lengths.dtype.itemsize == 8 else np.int32
    # What is from JAX's 64-bit mode stays so, though the mode may be off by now.
    return lengths if not known and lengths.dtype == dtype else jnp.asarray(lengths, dtype)


def _seed(key: Any) -> Array:
    """The low and the high half of the kernels' seed."""
    typed = isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, (jax.Array, np.ndarray)) and key.dtype == np.uint32
    check_unmasked("dropout_key", key)
    shape = () if typed else jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    if not (typed or raw) or key.shape != shape:
        raise TypeError(f"dropout_key: expected one key, as jax.random.key(0), {got(key)}")
    return jax.random.bits(key, (2,), jnp.uint32)

"""The kernels on NumPy arrays in the order of Keras' axes, for TensorFlow, which calls back into Python: one layer and
direction, (B, T, …)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from .. import _core
from .._spec import Array
from ..reference import CELLS
from ._served import Cell

LINE = 64  # bytes; every array of a tape begins at a multiple


@lru_cache(maxsize=256)
def _network(cell: Cell, input_size: int, hidden_size: int, bias: bool, dtype: str) -> _core.Spec:
    sizes = input_size, hidden_size
    return _core.make_spec(cell.name, *sizes, bias=bias, batch_first=True, dtype=dtype, options=cell.options)


def states_of(cell: Cell) -> int:
    return 1 + CELLS[cell.name].has_cell


def tape_bytes(cell: Cell, shape: Sequence[int], hidden_size: int, dtype: str) -> int:
    """Of a call with an input of that shape."""
    values = shape[0] * shape[1] * np.dtype(dtype).itemsize
    widths = _core.tape_widths(_network(cell, shape[2], hidden_size, True, dtype))
    return sum(-(-n * values // LINE) * LINE for n in widths if n)


def check(cell: Cell, shapes: Sequence[Sequence[int]]) -> None:
    """Raise ValueError unless the shapes, of x, the states and the weights, fit together."""
    count = states_of(cell)
    x, *states = (tuple(shape) for shape in shapes[: 1 + count])
    kernel = tuple(shapes[1 + count])
    units = shapes[2 + count][1]
    if len(x) != 3 or x[2] != kernel[1] or any(state != (x[0], units) for state in states):
        raise ValueError(
            f"fastrnn.keras: sequences must be of shape (B, T, {kernel[1]}) and states (B, {units}), "
            f"got {x} and {', '.join(map(str, states))}"
        )


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """Not yet written, and beginning at a line, as TensorFlow needs it so as not to copy."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + LINE, np.uint8)
    first = -memory.ctypes.data % LINE
    return memory[first : first + size].view(dtype).reshape(shape)


def _address(array: Array | None) -> int:
    return 0 if array is None or array.size == 0 else array.ctypes.data


def _given(spec: _core.Spec, x: Array, lengths: Array, states: list[Array], weights: list[Array]) -> dict[str, Any]:
    """What a call of the core is given, forward and backward; 0 threads are as many as are set."""
    return {
        "spec": spec,
        "weights": [_address(w) for w in weights],
        "threads": 0,
        "x": _address(x),
        "sizes": x.shape,
        "strides": [stride // x.itemsize for stride in x.strides],
        "batch_sizes": 0,
        "steps": 0,
        "lengths": _address(lengths),
        **_addresses("{}0", states),
        "dropout_seed": 0,
    }


def _addresses(name: str, states: list[Array]) -> dict[str, Any]:
    """Of h and c, by a pattern of their names; 0 where there is no c."""
    return {name.format(k): _address(a) for k, a in zip("hc", (*states, None), strict=False)}


def forward(cell: Cell, keep: bool, lengths: Array, x: Array, *arrays: Array) -> list[Array]:
    """y, h_n, of an LSTM c_n, and the tape if it is to be kept.

    Args:
        lengths: (B,) integers in 0…T; (0,) if all are T.
        x: (B, T, I), of any strides.
        arrays: h0 (B, H), of an LSTM c0 (B, H), then weight_ih (G*H, I), weight_hh (G*H, H) and, or not, bias_ih and
            bias_hh (G*H,).
    """
    check(cell, [array.shape for array in (x, *arrays)])
    if lengths.size and (lengths.shape != x.shape[:1] or not 0 <= lengths.min() <= lengths.max() <= x.shape[1]):
        raise ValueError(f"fastrnn.keras: mask must be of shape {x.shape[:2]}, got one of {lengths.shape[0]} rows")
    count, units = states_of(cell), arrays[0].shape[1]
    spec = _network(cell, x.shape[2], units, len(arrays) > count + 2, str(x.dtype))
    states, weights = (list(map(np.ascontiguousarray, part)) for part in (arrays[:count], arrays[count:]))
    lengths = np.ascontiguousarray(lengths, np.int64)
    y = _empty((*x.shape[:2], units), x.dtype)
    finals = [_empty(states[0].shape, x.dtype) for _ in range(count)]
    tape = _empty((tape_bytes(cell, x.shape, units, str(x.dtype)),), np.dtype(np.uint8)) if keep else None
    given = _given(spec, x, lengths, states, weights)
    _core.forward_at(**given, y=_address(y), **_addresses("{}_n", finals), tape=_address(tape))
    return [y, *finals, *([] if tape is None else [tape])]


def backward(cell: Cell, kept: bool, sequences: bool, lengths: Array, *arrays: Array) -> list[Array]:
    """dx, dh0, of an LSTM dc0, and the gradients of the weights.

    Args:
        arrays: if `kept`, y and the tape of `forward`, which are computed again if not; dy (B, T, H), if `sequences`;
            dh_n (B, H), of an LSTM dc_n; then x and the arrays of `forward`.
    """
    count, given = states_of(cell), list(arrays)
    y, tape = (given.pop(0), given.pop(0)) if kept else (None, None)
    dy = np.ascontiguousarray(given.pop(0)) if sequences else None
    dfinals, (x, *others) = [np.ascontiguousarray(d) for d in given[:count]], given[count:]
    if y is None or tape is None:
        y, *_, tape = forward(cell, True, lengths, x, *others)
    elif tape.ctypes.data % LINE:
        aligned = _empty(tape.shape, tape.dtype)
        aligned[:] = tape
        tape = aligned
    spec = _network(cell, x.shape[2], others[0].shape[1], len(others) > count + 2, str(x.dtype))
    states, weights = (list(map(np.ascontiguousarray, part)) for part in (others[:count], others[count:]))
    lengths, y = np.ascontiguousarray(lengths, np.int64), np.ascontiguousarray(y)
    dx, dstates = _empty(x.shape, x.dtype), [_empty(s.shape, x.dtype) for s in states]
    dweights = [_empty(w.shape, x.dtype) for w in weights]
    _core.backward_at(
        **_given(spec, x, lengths, states, weights),
        y=_address(y),
        tape=_address(tape),
        dy=_address(dy),
        **_addresses("d{}_n", dfinals),
        dx=_address(dx),
        **_addresses("d{}0", dstates),
        gradients=[_address(d) for d in dweights],
    )
    return [dx, *dstates, *dweights]

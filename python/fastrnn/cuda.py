"""`RNN`, `LSTM` and `GRU` on a GPU, for arrays of any library that has `__cuda_array_interface__` (CuPy, Numba,
PyTorch ...), in builds with `FASTRNN_CUDA`.

    lstm = fastrnn.cuda.LSTM(40, 128)
    y, (h_n, c_n) = lstm(x)                     x in the GPU's memory, or a NumPy array, which is copied there
    cupy.asarray(y), y.numpy()                  results are `Array`s: in the GPU's memory, for other libraries to take

Arguments, results and errors are those of the classes of `fastrnn`, but for the type of arrays. Parameters are NumPy
arrays, copied to the GPU in each call, as they are packed in each call on the CPU; `prepare` does so once. Calls work
on the legacy default stream of the current device. They take float32 and float64, and refuse the variants of the cells
(`peephole`, `coupled_input_forget`, `clip`, `activations`) with a ValueError; in a build without CUDA any call is a
RuntimeError.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from . import _device, layers
from ._checks import got
from ._core import Spec
from ._spec import Array as NumPyArray

LEGACY_STREAM = 1  # as __cuda_array_interface__ calls it
LINE = 256  # bytes; every array of a tape begins at a multiple


def _cuda() -> Any:
    module = _device.cuda()
    if module is None:
        raise RuntimeError("fastrnn.cuda: this build has no CUDA kernels; build it with FASTRNN_CUDA=ON")
    return module


class Array:
    """A C-contiguous array in a GPU's memory: what calls return. `of` copies one there, `numpy` brings one back.

    Args:
        shape: a size for each axis.
        dtype: NumPy's name of it, as "float32".

    Raises:
        RuntimeError: the build has no CUDA, or the GPU has no memory for it.
    """

    def __init__(self, shape: Sequence[int], dtype: str) -> None:
        self.shape = tuple(shape)
        self.dtype = np.dtype(dtype)
        self.memory = _cuda().Memory(self.nbytes)

    @property
    def nbytes(self) -> int:
        """Its size."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def address(self) -> int:
        """Where it lies."""
        return int(self.memory.address)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For other libraries: version 3 of the protocol."""
        data = self.address if self.nbytes else 0, False
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": data,
            "strides": None,
            "version": 3,
            "stream": LEGACY_STREAM,
        }

    @classmethod
    def of(cls, array: NumPyArray) -> Array:
        """A copy of a NumPy array."""
        new = cls(array.shape, array.dtype.name)
        new.memory.upload(np.ascontiguousarray(array).tobytes())
        return new

    def numpy(self) -> NumPyArray:
        """A copy in NumPy, when the GPU has done what it was given."""
        copy: NumPyArray = np.frombuffer(self.memory.download(), self.dtype).reshape(self.shape).copy()
        return copy


@dataclass(frozen=True)
class _View:
    """An array of the caller's in the GPU's memory; strides in elements."""

    owner: Any
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def expand(self, axis: int) -> _View:
        """With an axis of one."""
        shape, strides = list(self.shape), list(self.strides)
        shape.insert(axis, 1)
        strides.insert(axis, 0)
        return _View(self.owner, self.address, tuple(shape), tuple(strides))


def _view(name: str, value: Any, dtype: str, shape: tuple[int, ...] | None = None, contiguous: bool = True) -> _View:
    """Raises TypeError or ValueError unless it is an array of this dtype, and shape if one is given."""
    if isinstance(value, np.ndarray) and value.dtype == dtype:
        value = Array.of(value)
    interface = getattr(value, "__cuda_array_interface__", None)
    wanted = np.dtype(dtype)
    if interface is None:
        raise TypeError(f"{name} must be a {dtype} array of NumPy or with __cuda_array_interface__, {got(value)}")
    if np.dtype(interface["typestr"]) != wanted:
        raise TypeError(f"{name} must have dtype {dtype}, got {np.dtype(interface['typestr'])}")
    if interface.get("mask") is not None:
        raise TypeError(f"{name} must not be masked")
    given = tuple(interface["shape"])
    if shape is not None and given != shape:
        raise ValueError(f"{name} must have shape {shape}, got {given}")
    dense = tuple(prod(given[i + 1 :]) for i in range(len(given)))
    strides = dense
    if interface.get("strides") is not None:
        if any(s % wanted.itemsize for s in interface["strides"]):
            raise ValueError(f"{name}: its strides are not whole elements")
        strides = tuple(s // wanted.itemsize for s in interface["strides"])
    if contiguous and any(n > 1 and s != d for n, s, d in zip(given, strides, dense, strict=True)):
        raise ValueError(f"{name} must be C-contiguous")
    stream = interface.get("stream")
    if stream not in (None, LEGACY_STREAM):
        _cuda().synchronize(stream)
    return _View(value, interface["data"][0], given, strides)


class _Call:
    """What calls have in common: the network, and the checked arguments in the GPU's memory."""

    def __init__(self, spec: Spec, weights: Sequence[_View], x: Any, state: Any, lengths: Any) -> None:
        self.spec, self.weights = spec, weights
        if spec.options is not None:
            raise ValueError("CUDA has no peephole, coupled_input_forget, clip and activations: leave them out")
        options = spec.num_layers, spec.bias, spec.batch_first, spec.dropout, spec.bidirectional, spec.proj_size
        self.network = _cuda().Network(spec.cell, spec.input_size, spec.hidden_size, *options, spec.dtype)
        self.x = _view("x", x, spec.dtype, contiguous=False)
        self.shape = self.x.shape
        self.batched = len(self.shape) == 3
        if len(self.shape) not in (2, 3) or self.shape[-1] != spec.input_size:
            raise ValueError(f"x must have shape (T, B, {spec.input_size}) or (T, {spec.input_size}), got {self.shape}")
        if not self.batched:
            self.x = self.x.expand(0 if spec.batch_first else 1)
        axes = self.x.shape
        self.rows, self.steps = axes[:2] if spec.batch_first else axes[1::-1]
        self.batch = (self.rows,) if self.batched else ()
        self.directions = 1 + spec.bidirectional
        self.output = spec.proj_size or spec.hidden_size
        self.has_cell = spec.cell == "lstm"
        self.states = self._state("state", "h0", "c0", state)
        self.lengths = self._lengths(lengths)
        self.y_shape = (*self.shape[:-1], self.directions * self.output)

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Of h, and of c where there is one."""
        widths = [self.output] + [self.spec.hidden_size] * self.has_cell
        return [(self.spec.num_layers * self.directions, *self.batch, width) for width in widths]

    def _state(self, name: str, h: str, c: str, state: Any) -> list[_View | None]:
        shapes = self.state_shapes()
        given = (None,) * len(shapes) if state is None else tuple(state) if self.has_cell else (state,)
        if len(given) != len(shapes):
            raise ValueError(f"{name} must be a tuple ({h}, {c}), {got(state)}")
        found: list[_View | None] = [
            None if value is None else _view(own, value, self.spec.dtype, shape)
            for own, value, shape in zip((h, c), given, shapes, strict=False)
        ]
        return found + [None] * (2 - len(found))

    def dstate(self, dstate: Any) -> list[_View | None]:
        """dh_n and dc_n."""
        return self._state("dstate", "dh_n", "dc_n", dstate)

    def _lengths(self, lengths: Any) -> Array | None:
        if lengths is None:
            return None
        checked = np.asarray(lengths)
        if checked.dtype.kind not in "iu":
            raise TypeError(f"lengths must be integers, {got(lengths)}")
        if not self.batched and checked.ndim == 0:
            checked = checked.reshape(1)
        if checked.shape != (self.rows,):
            raise ValueError(f"lengths must have shape ({self.rows},), got {checked.shape}")
        if checked.size and not 0 <= checked.min() <= checked.max() <= self.steps:
            raise ValueError(f"lengths must be from 0 to {self.steps}, got {checked.tolist()}")
        return Array.of(checked.astype(np.int64))

    def tape_bytes(self) -> int:
        values = self.steps * self.rows
        return sum(-(-n * size * values // LINE) * LINE for n, size in _cuda().tape_widths(self.network))

    def arguments(self, y: Array, tape: Array | None, seed: int) -> Any:
        addresses = [_address(a) for a in (self.lengths, *self.states)]
        x = self.x.address, self.x.shape, self.x.strides
        return _cuda().Arguments(*x, *addresses, y.address, _address(tape), seed)

    def forward(self, tape: Array | None, seed: int) -> tuple[Array, Any]:
        """y and the state."""
        y = Array(self.y_shape, self.spec.dtype)
        finals = [Array(shape, self.spec.dtype) for shape in self.state_shapes()]
        ends = [final.address for final in finals] + [0] * (2 - len(finals))
        held: list[Any] = []
        weights = [w.address for w in self.weights]
        _cuda().forward_at(self.network, weights, self.arguments(y, tape, seed), *ends, _allocator(held), *_where())
        return y, tuple(finals) if self.has_cell else finals[0]


def _address(array: Any) -> int:
    return 0 if array is None else int(array.address)


def _where() -> tuple[int, int]:
    """The device's number, and the stream."""
    return _cuda().current_device(), 0


def _allocator(held: list[Any]) -> Any:
    """Gives a call its workspace. To free it waits for the device, so that it lasts as long as the call's work."""

    def allocate(size: int) -> int:
        held.append(_cuda().Memory(size))
        return int(held[-1].address)

    return allocate


# --------------------------------------------------------------------------------- the engine of layers.py's classes


class Tape:
    """What one forward call leaves for its backward calls; it refers to x."""

    def __init__(self, call: _Call, y: Array, memory: Array, seed: int) -> None:
        self.spec, self.call, self.y, self.memory, self.seed = call.spec, call, y, memory, seed

    @property
    def x(self) -> Any:
        """As given, or its copy in the GPU's memory."""
        return self.call.x.owner

    @property
    def nbytes(self) -> int:
        """How many bytes the tape holds, beside x and the weights."""
        return self.memory.nbytes


class Prepared:
    """A snapshot of the weights in the GPU's memory, for inference."""

    def __init__(self, spec: Spec, weights: list[_View]) -> None:
        self.spec, self._weights = spec, weights

    @property
    def nbytes(self) -> int:
        """The memory that the weights take."""
        return sum(w.owner.nbytes for w in self._weights)

    def __call__(self, x: Any, state: Any = None, *, lengths: Any = None) -> tuple[Array, Any]:
        """As a call of the layer."""
        return _Call(self.spec, self._weights, x, state, lengths).forward(None, 0)


def _uploaded(spec: Spec, weights: Sequence[NumPyArray]) -> list[_View]:
    named = zip(spec.parameter_shapes(), weights, strict=True)
    return [_view(name, weight, spec.dtype, shape) for (name, shape), weight in named]


def prepare(spec: Spec, weights: Sequence[NumPyArray]) -> Prepared:
    """For `layers`: a snapshot of the weights."""
    return Prepared(spec, _uploaded(spec, weights))


def check(spec: Spec, weights: Sequence[NumPyArray], x: Any, state: Any, lengths: Any) -> None:
    """For `layers`: raises what a call would."""
    _Call(spec, _uploaded(spec, weights), x, state, lengths)


def infer(spec: Spec, weights: Sequence[NumPyArray], x: Any, state: Any, lengths: Any) -> tuple[Array, Any]:
    """For `layers`: y and the state."""
    return prepare(spec, weights)(x, state, lengths=lengths)


def forward(
    spec: Spec, weights: Sequence[NumPyArray], x: Any, state: Any, lengths: Any, dropout_seed: int
) -> tuple[Array, Any, Tape]:
    """For `layers`: y, the state and the tape."""
    call = _Call(spec, _uploaded(spec, weights), x, state, lengths)
    memory = Array((call.tape_bytes(),), "uint8")
    y, final = call.forward(memory, dropout_seed)
    return y, final, Tape(call, y, memory, dropout_seed)


def backward(tape: Tape, dy: Any, dstate: Any) -> tuple[Array, Array, Array | None, list[Array]]:
    """For `layers`: dx, dh0, dc0 and those of the parameters."""
    call, dtype = tape.call, tape.spec.dtype
    d_output = None if dy is None else _view("dy", dy, dtype, call.y_shape)
    dx = Array(call.shape, dtype)
    starts = [Array(shape, dtype) for shape in call.state_shapes()]
    dh0, dc0 = starts[0], starts[1] if call.has_cell else None
    gradients = [Array(w.shape, dtype) for w in call.weights]
    held: list[Any] = []
    _cuda().backward_at(
        call.network,
        [w.address for w in call.weights],
        call.arguments(tape.y, tape.memory, tape.seed),
        *(_address(a) for a in (d_output, *call.dstate(dstate), dx, dh0, dc0)),
        [g.address for g in gradients],
        _allocator(held),
        *_where(),
    )
    return dx, dh0, dc0, gradients


class _OnDevice:
    _engine: ClassVar[ModuleType] = sys.modules[__name__]


class RNN(_OnDevice, layers.RNN):
    """`fastrnn.RNN` on a GPU."""


class LSTM(_OnDevice, layers.LSTM):
    """`fastrnn.LSTM` on a GPU."""


class GRU(_OnDevice, layers.GRU):
    """`fastrnn.GRU` on a GPU."""


__all__ = ["GRU", "LSTM", "RNN", "Array"]

"""`RNN`, `LSTM` and `GRU` on a GPU, for arrays of any library that has DLPack (JAX, CuPy, PyTorch ...) or
`__cuda_array_interface__` (Numba ...), in builds with `FASTRNN_CUDA`.

    lstm = fastrnn.cuda.LSTM(40, 128, dtype="bfloat16")
    y, (h_n, c_n) = lstm(x)                     x in the GPU's memory, or a NumPy array, which is copied there
    jax.numpy.from_dlpack(y), y.numpy()         results are `Array`s: in the GPU's memory, for other libraries to take

Arguments, results and errors are those of the classes of `fastrnn`, but for the type of arrays; the variants of the
cells (`peephole`, `coupled_input_forget`, `clip`, `activations`) are refused with a ValueError, and in a build without
CUDA any call is a RuntimeError. Beside float32 and float64, `dtype` may be float16 or bfloat16, in which sums are taken
in float32 and c is kept in float32 from step to step. Parameters are NumPy arrays, with these two types of float32, so
that small changes of them count; they are copied to the GPU, and rounded, in each call, as they are packed in each call
on the CPU; `prepare` does so once. Gradients have the type that calls have.

Calls work on the legacy default stream of the current device: what is queued there, or on a stream that another library
names when it takes a result, finds the results written. Memory of the device that a call needs it takes and gives back
itself, which waits for the device; to do neither, and to capture calls in a CUDA graph, use `fastrnn.torch`, or
`cuda/launch.h` from C++.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from . import _device, layers
from ._checks import check_bool, check_dtype, check_int, check_unmasked, got
from ._core import Spec
from ._device_arrays import Array, View, view
from ._spec import Array as NumPyArray
from .reference import CELLS

LINE = 256  # bytes; every array of a tape begins at a multiple


class _Call:
    """What calls have in common: the network, and the checked arguments in the GPU's memory."""

    def __init__(self, spec: Spec, dtype: str, weights: Sequence[View], x: Any, state: Any, lengths: Any) -> None:
        self.spec, self.dtype, self.weights = spec, dtype, weights
        self.network = _device.network(spec, dtype)
        self.x = view("x", x, dtype, contiguous=False)
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
        self.has_cell = CELLS[spec.cell].has_cell
        self.states = self._state("state", "h0", "c0", state)
        self.lengths = self._lengths(lengths)
        self.y_shape = (*self.shape[:-1], self.directions * self.output)

    def state_shapes(self) -> list[tuple[int, ...]]:
        """Of h, and of c where there is one."""
        widths = [self.output] + [self.spec.hidden_size] * self.has_cell
        return [(self.spec.num_layers * self.directions, *self.batch, width) for width in widths]

    def _state(self, name: str, h: str, c: str, state: Any) -> list[View | None]:
        shapes = self.state_shapes()
        given = (None,) * len(shapes) if state is None else tuple(state) if self.has_cell else (state,)
        if len(given) != len(shapes):
            raise ValueError(f"{name} must be a tuple ({h}, {c}), {got(state)}")
        found: list[View | None] = [
            None if value is None else view(own, value, self.dtype, shape)
            for own, value, shape in zip((h, c), given, shapes, strict=False)
        ]
        return found + [None] * (2 - len(found))

    def dstate(self, dstate: Any) -> list[View | None]:
        """dh_n and dc_n."""
        return self._state("dstate", "dh_n", "dc_n", dstate)

    def _lengths(self, lengths: Any) -> Array | None:
        if lengths is None:
            return None
        check_unmasked("lengths", lengths)
        checked = np.asarray(lengths)
        if checked.dtype.kind not in "iu":
            raise TypeError(f"lengths must be integers, {got(lengths)}")
        if not self.batched and checked.ndim == 0:
            checked = checked.reshape(1)
        if checked.shape != (self.rows,):
            raise ValueError(f"lengths must have shape ({self.rows},), got {checked.shape}")
        if checked.size and not 0 <= checked.min() <= checked.max() <= self.steps:
            raise ValueError(f"lengths must be from 0 to {self.steps}, got {checked.tolist()}")
        return Array.of(checked.astype(np.int64), "int64")

    def tape_bytes(self) -> int:
        values = self.steps * self.rows
        return sum(-(-n * size * values // LINE) * LINE for n, size in _device.required().tape_widths(self.network))

    def arguments(self, y: Array, tape: Array | None, seed: int) -> Any:
        addresses = [_address(a) for a in (self.lengths, *self.states)]
        x = self.x.address, self.x.shape, self.x.strides
        return _device.required().Arguments(*x, *addresses, y.address, _address(tape), seed)

    def forward(self, tape: Array | None, seed: int) -> tuple[Array, Any]:
        """y and the state."""
        y = Array(self.y_shape, self.dtype)
        finals = [Array(shape, self.dtype) for shape in self.state_shapes()]
        ends = [final.address for final in finals] + [0] * (2 - len(finals))
        held: list[Any] = []
        weights = [w.address for w in self.weights]
        _device.required().forward_at(
            self.network, weights, self.arguments(y, tape, seed), *ends, _allocator(held), *_where()
        )
        return y, tuple(finals) if self.has_cell else finals[0]


def _address(array: Any) -> int:
    return 0 if array is None else int(array.address)


def _where() -> tuple[int, int]:
    """The device's number, and the stream."""
    return _device.required().current_device(), 0


def _allocator(held: list[Any]) -> Any:
    """Gives a call its workspace. To free it waits for the device, so that it lasts as long as the call's work."""

    def allocate(size: int) -> int:
        held.append(_device.required().Memory(size))
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

    def __init__(self, spec: Spec, dtype: str, weights: list[View]) -> None:
        self.spec, self.dtype, self._weights = spec, dtype, weights

    @property
    def nbytes(self) -> int:
        """The memory that the weights take."""
        return sum(w.owner.nbytes for w in self._weights)

    def __call__(self, x: Any, state: Any = None, *, lengths: Any = None) -> tuple[Array, Any]:
        """As a call of the layer."""
        return _Call(self.spec, self.dtype, self._weights, x, state, lengths).forward(None, 0)


_Tape = Tape  # where a class has the name, too


@dataclass(frozen=True)
class _Engine:
    """For `layers`: the calls of a layer, in `half` where that is not the parameters' type."""

    half: str | None
    Tape: ClassVar[type] = _Tape

    def dtype(self, spec: Spec) -> str:
        return self.half or spec.dtype

    def prepare(self, spec: Spec, weights: Sequence[NumPyArray]) -> Prepared:
        """A snapshot of the weights."""
        return Prepared(spec, self.dtype(spec), self._uploaded(spec, weights))

    def check(self, spec: Spec, weights: Sequence[NumPyArray], x: Any, state: Any, lengths: Any) -> None:
        """Raises what a call would."""
        _Call(spec, self.dtype(spec), self._uploaded(spec, weights), x, state, lengths)

    def infer(self, spec: Spec, weights: Sequence[NumPyArray], x: Any, state: Any, lengths: Any) -> tuple[Array, Any]:
        """y and the state."""
        return self.prepare(spec, weights)(x, state, lengths=lengths)

    def forward(
        self, spec: Spec, weights: Sequence[NumPyArray], x: Any, state: Any, lengths: Any, dropout_seed: int
    ) -> tuple[Array, Any, _Tape]:
        """y, the state and the tape."""
        call = _Call(spec, self.dtype(spec), self._uploaded(spec, weights), x, state, lengths)
        memory = Array((call.tape_bytes(),), "uint8")
        y, final = call.forward(memory, dropout_seed)
        return y, final, _Tape(call, y, memory, dropout_seed)

    @staticmethod
    def backward(tape: _Tape, dy: Any, dstate: Any) -> tuple[Array, Array, Array | None, list[Array]]:
        """dx, dh0, dc0 and those of the parameters."""
        call = tape.call
        d_output = None if dy is None else view("dy", dy, call.dtype, call.y_shape)
        dx = Array(call.shape, call.dtype)
        starts = [Array(shape, call.dtype) for shape in call.state_shapes()]
        dh0, dc0 = starts[0], starts[1] if call.has_cell else None
        gradients = [Array(w.shape, call.dtype) for w in call.weights]
        held: list[Any] = []
        _device.required().backward_at(
            call.network,
            [w.address for w in call.weights],
            call.arguments(tape.y, tape.memory, tape.seed),
            *(_address(a) for a in (d_output, *call.dstate(dstate), dx, dh0, dc0)),
            [g.address for g in gradients],
            _allocator(held),
            *_where(),
        )
        return dx, dh0, dc0, gradients

    def _uploaded(self, spec: Spec, weights: Sequence[NumPyArray]) -> list[View]:
        views = []
        for (name, shape), weight in zip(spec.parameter_shapes(), weights, strict=True):
            if not isinstance(weight, np.ndarray) or weight.dtype != spec.dtype:
                raise TypeError(f"{name} must be a {spec.dtype} array of NumPy, {got(weight)}")
            dtype = self.dtype(spec)
            views.append(view(name, Array.of(weight, dtype), dtype, shape))
        return views


# ---------------------------------------------------------------------------------------------------- what users reach


def _half(dtype: Any) -> str | None:
    """The name of a type of 16 bits, which NumPy may not know; of any other None."""
    name = getattr(dtype, "name", None) or getattr(dtype, "__name__", dtype)
    return name if isinstance(name, str) and name in _device.HALF else None


class _OnDevice:
    _engine: Any = _Engine(None)
    spec: Spec

    def _set_up(self, spec: Spec, *others: Any) -> None:
        """Of a new layer, and of one that is loaded."""
        _device.check_options(spec)
        super()._set_up(spec, *others)  # type: ignore[misc]

    def _parameter_dtype(self, dtype: Any) -> Any:
        half = _half(dtype)
        self._engine = _Engine(half)
        return "float32" if half else check_dtype("dtype", dtype, "float16, bfloat16, ")

    @property
    def dtype(self) -> str:
        """ "float32", "float64", "float16" or "bfloat16": of all arrays but the parameters, which are float32 with the
        last two. It may be set, as after `load`: files have the parameters' type.
        """
        return self._engine.dtype(self.spec)  # type: ignore[no-any-return]

    @dtype.setter
    def dtype(self, dtype: Any) -> None:
        half = _half(dtype)
        own = self.spec.dtype
        if (own != "float32") if half else (check_dtype("dtype", dtype, "float16, bfloat16, ") != own):
            raise ValueError(f"dtype must be one that parameters of {own} can serve, {got(dtype)}")
        self._engine = _Engine(half)


class RNN(_OnDevice, layers.RNN):
    """`fastrnn.RNN` on a GPU; `dtype` may also be float16 or bfloat16."""


class LSTM(_OnDevice, layers.LSTM):
    """`fastrnn.LSTM` on a GPU; `dtype` may also be float16 or bfloat16."""


class GRU(_OnDevice, layers.GRU):
    """`fastrnn.GRU` on a GPU; `dtype` may also be float16 or bfloat16."""


def set_tf32(on: bool) -> None:
    """Whether products of float32 may run on the tensor cores in TF32, which rounds factors to 11 significant bits: off
    until it is set. Sums are float32 all the same. It holds for all later calls in this process, those of
    `fastrnn.torch` too, and in all ways of running; results are then within 3e-3 of the exact ones, as in float16, in
    place of 1e-5.

    Raises:
        RuntimeError: this build has no CUDA kernels.
        TypeError: `on` is no bool.
    """
    _device.required().set_tf32(check_bool("on", on))


def explain_plan(layer: RNN | LSTM | GRU, steps: int, rows: int, backward: bool = False) -> str:
    """A table to read: the ways to run each layer's steps for a batch on the current GPU, the one that is taken first,
    and what each is expected to cost. Figures are a model's, and not measured.

    Raises:
        RuntimeError: this build has no CUDA kernels.
        TypeError, ValueError: an argument has a wrong type or value.
    """
    if not isinstance(layer, _OnDevice):
        raise TypeError(f"layer must be one of fastrnn.cuda, {got(layer)}")
    sizes = check_int("steps", steps, 0), check_int("rows", rows, 0)
    network = _device.network(layer.spec, layer.dtype)
    return str(_device.required().explain_plan(network, *sizes, check_bool("backward", backward)))


__all__ = ["GRU", "LSTM", "RNN", "Array", "explain_plan", "set_tf32"]

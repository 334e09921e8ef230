"""The CUDA side through ctypes, on PyTorch's tensors."""

from __future__ import annotations

import ctypes
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

CELLS = ("rnn_tanh", "rnn_relu", "rnn_sigmoid", "lstm", "gru", "gru_reset_before")  # in the core's order
DTYPES = {"float32": torch.float32, "float64": torch.float64, "float16": torch.float16, "bfloat16": torch.bfloat16}
WAYS = ("automatic", "step_by_step", "one_sm", "cluster", "grid")
DIRECTION = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class _Problem(ctypes.Structure):
    """As struct Problem in library.cpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("cell", "dtype", "input", "hidden", "bidirectional", "tf32", "way")),
        *((name, ctypes.c_int64) for name in ("steps", "rows")),
        *((name, ctypes.c_void_p) for name in ("lengths", "x", "y", "h_n", "c_n", "dy", "dx", "dh0", "dc0")),
        ("weights", ctypes.c_void_p * 8),
        ("gradients", ctypes.c_void_p * 8),
        ("tape", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
    )


class _Sizes(ctypes.Structure):
    _fields_ = (("tape", ctypes.c_int64), ("workspace", ctypes.c_int64))


class Library:
    """The shared library that CMake builds as fastrnn_cuda_bench."""

    def __init__(self, path: Path) -> None:
        self._functions = ctypes.CDLL(str(path))
        self._functions.error.restype = self._functions.plan.restype = ctypes.c_char_p
        self.call("prepare")

    def call(self, name: str, *arguments: Any) -> None:
        """Raises RuntimeError with what the function said."""
        if getattr(self._functions, name)(*arguments):
            raise RuntimeError(self._functions.error().decode())

    def plan(self, problem: _Problem, backward: bool) -> str:
        """The table of `explain_plan`. Raises RuntimeError with what the function said."""
        text = self._functions.plan(ctypes.byref(problem), int(backward))
        if text is None:
            raise RuntimeError(self._functions.error().decode())
        return str(text.decode())


@dataclass
class Network:
    """One layer with the weights of a torch.nn module, and memory for calls on one batch."""

    library: Library
    cell: str
    module: torch.nn.RNNBase
    x: torch.Tensor  # (T, B, I)
    lengths: torch.Tensor | None  # (B,) int64, on the device
    tf32: bool = False
    results: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps, rows, inputs = self.x.shape
        hidden, directions = self.module.hidden_size, 1 + self.module.bidirectional
        names = [name + end for end in ("", "_reverse")[:directions] for name in DIRECTION]
        self._weights = [getattr(self.module, name).detach().contiguous() for name in names]
        shapes = {"y": (steps, rows, directions * hidden), "dx": (steps, rows, inputs)}
        shapes |= dict.fromkeys(("h_n", "c_n", "dh0", "dc0"), (directions, rows, hidden))
        self.results = {name: self.x.new_empty(shape) for name, shape in shapes.items()}
        self.results |= {f"d{name}": torch.empty_like(w) for name, w in zip(names, self._weights, strict=True)}
        self.dy = self.x.new_empty(shapes["y"])
        self._problem = _Problem(
            cell=CELLS.index(self.cell),
            dtype=list(DTYPES.values()).index(self.x.dtype),
            input=inputs,
            hidden=hidden,
            bidirectional=directions == 2,
            tf32=self.tf32,
            steps=steps,
            rows=rows,
            lengths=None if self.lengths is None else self.lengths.data_ptr(),
            x=self.x.data_ptr(),
            dy=self.dy.data_ptr(),
            **{name: self.results[name].data_ptr() for name in ("y", "dx", *list(shapes)[2:])},
        )
        for i, name in enumerate(names):
            self._problem.weights[i] = self._weights[i].data_ptr()
            self._problem.gradients[i] = self.results[f"d{name}"].data_ptr()
        sizes = _Sizes()
        self.library.call("sizes", ctypes.byref(self._problem), ctypes.byref(sizes))
        self._tape, self._workspace = (
            torch.empty(max(1, size), dtype=torch.uint8, device=self.x.device) for size in (sizes.tape, sizes.workspace)
        )
        self._problem.workspace = self._workspace.data_ptr()

    def infer(self) -> None:
        """y and the last state."""
        self._problem.tape = None
        self._call("forward")

    def train(self) -> None:
        """The same, and all gradients, given dy."""
        self._problem.tape = self._tape.data_ptr()
        self._call("forward")
        self._call("backward")

    def by(self, way: str) -> Network:
        """The same, in the same memory, by this way of running."""
        other = copy(self)
        other._problem = _Problem.from_buffer_copy(self._problem)
        other._problem.way = WAYS.index(way)
        return other

    def plan(self, backward: bool) -> str:
        """What each way would cost by the cost model: a table."""
        return self.library.plan(self._problem, backward)

    def _call(self, name: str) -> None:
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self.library.call(name, ctypes.byref(self._problem), stream)

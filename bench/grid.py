"""What can be compared: cells, modes and shapes, and how many operations each case takes. Needs no library."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

GATES = {"lstm": 4, "gru": 3, "gru_reset_before": 3, "rnn_tanh": 1, "rnn_relu": 1, "rnn_sigmoid": 1}
CELLS = tuple(GATES)
DTYPES = ("float32", "float64")

INFERENCE, TRAINING, STREAMING = "inference", "training", "streaming"
LENGTHS_INFERENCE, LENGTHS_TRAINING = "inference-lengths", "training-lengths"
PACKED = PACKED_INFERENCE, PACKED_TRAINING = "inference-packed", "training-packed"
MODES = {
    INFERENCE: "one call on T steps",
    TRAINING: "forward on T steps, then the gradients of x and of all weights",
    STREAMING: "one step of one sequence (T = B = 1), from the state of the call before",
    LENGTHS_INFERENCE: "inference on rows of different lengths, 1…T",
    LENGTHS_TRAINING: "training on rows of different lengths, 1…T",
    PACKED_INFERENCE: "inference on such rows in PyTorch's PackedSequence",
    PACKED_TRAINING: "training on such rows in PyTorch's PackedSequence",
}

DEFAULT_CELLS = ("lstm", "gru", "rnn_tanh")
DEFAULT_MODES = (INFERENCE, TRAINING, STREAMING)
STEPS = 100


@dataclass(frozen=True, order=True)
class Shape:
    """B rows, H hidden units; I inputs, as many as hidden units where not said otherwise."""

    batch: int
    hidden: int
    input: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "input", self.input or self.hidden)

    @classmethod
    def parse(cls, text: str) -> Shape:
        """From BxH or BxIxH, as in 16x256 or 16x40x256."""
        if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8}){1,2}", text, re.ASCII):
            raise ValueError(f"{text!r} is no shape: write BxH or BxIxH, such as 16x256")
        batch, *inputs, hidden = map(int, text.split("x"))
        return cls(batch, hidden, *inputs)

    def __str__(self) -> str:
        inputs = f"x{self.input}" if self.input != self.hidden else ""
        return f"{self.batch}{inputs}x{self.hidden}"


def shapes(text: str) -> tuple[Shape, ...]:
    return tuple(Shape.parse(word) for word in text.split())


GRID = shapes("1x64 1x128 1x256 1x512 16x128 16x256 32x512 64x256 64x512 256x256")
FULL_GRID = (*GRID, *shapes("1x1024 64x1024"))
QUICK_GRID = shapes("1x128 16x128 64x256")


@dataclass(frozen=True)
class Case:
    """One line of the comparison: a network of one layer and one direction, with biases."""

    cell: str
    mode: str
    shape: Shape
    steps: int
    dtype: str

    @property
    def training(self) -> bool:
        return self.mode.startswith(TRAINING)

    @property
    def streaming(self) -> bool:
        return self.mode == STREAMING

    @property
    def varied_lengths(self) -> bool:
        return self.packed or self.mode in (LENGTHS_INFERENCE, LENGTHS_TRAINING)

    @property
    def packed(self) -> bool:
        return self.mode in PACKED

    def flops(self, row_steps: int) -> int:
        """Floating-point operations of the matrix products, the pointwise ones not counted.

        A row takes 2 G H (I + H) a step: a multiplication and an addition for each weight. The backward pass has
        twice as many: one set of products for the gradients of x and h, one for those of the weights.

        Args:
            row_steps: the sum of the rows' lengths, T B if they have all T steps.
        """
        gates, hidden = GATES[self.cell], self.shape.hidden
        return (6 if self.training else 2) * row_steps * gates * hidden * (self.shape.input + hidden)

    def __str__(self) -> str:
        return f"{self.mode} {self.cell} {self.shape}"


def cases(cells: Sequence[str], modes: Sequence[str], grid: Sequence[Shape], steps: int, dtype: str) -> list[Case]:
    """All combinations. Streaming has one row and one step, whatever the grid says."""
    chosen = []
    for mode in modes:
        for cell in cells:
            if mode == STREAMING:
                rows = sorted({Shape(1, s.hidden, s.input) for s in grid})
                chosen += [Case(cell, mode, shape, 1, dtype) for shape in rows]
            else:
                chosen += [Case(cell, mode, shape, steps, dtype) for shape in grid]
    return chosen

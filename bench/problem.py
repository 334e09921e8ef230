"""The data of one case, and the answer that every peer has to give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastrnn
from grid import Case

Array = NDArray[Any]
Answer = dict[str, Array]
"""y, h_n and for an LSTM c_n; in training also dx and d_weight_ih_l0, d_weight_hh_l0, d_bias_ih_l0, d_bias_hh_l0."""

STREAMED_STEPS = 8  # a stream's answer is the one after this many calls


class WrongAnswerError(Exception):
    """A peer's answer is not the reference's."""


@dataclass(frozen=True)
class Problem:
    """A case with numbers. Arrays are in the layout of `fastrnn`, which is PyTorch's: (T, B, …), weights (G*H, …).

    The initial state is zero. In training the loss is the sum of y * dy, h_n * dh_n and for an LSTM c_n * dc_n.
    """

    case: Case
    parameters: dict[str, Array]  # weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0
    x: Array
    dy: Array
    dstate: tuple[Array, ...]  # of the last state, (dh_n,) or (dh_n, dc_n)
    lengths: NDArray[np.int64] | None

    @classmethod
    def of(cls, case: Case, seed: int = 0) -> Problem:
        random = np.random.default_rng(seed)

        def normal(*shape: int) -> Array:
            return random.standard_normal(shape).astype(case.dtype)

        batch, hidden = case.shape.batch, case.shape.hidden
        return cls(
            case,
            layer(case, seed=seed).parameters,
            normal(case.steps, batch, case.shape.input),
            normal(case.steps, batch, hidden),
            tuple(normal(1, batch, hidden) for _ in range(2 if case.cell == "lstm" else 1)),
            random.integers(1, case.steps, batch, endpoint=True) if case.varied_lengths else None,
        )

    @property
    def calls_to_check(self) -> int:
        """The answer to check is that of this call, counted from the first."""
        return STREAMED_STEPS if self.case.streaming else 1

    @property
    def flops(self) -> int:
        """Of one call."""
        rows = self.case.shape.batch * self.case.steps
        return self.case.flops(rows if self.lengths is None else int(self.lengths.sum()))

    @cached_property
    def expected(self) -> Answer:
        """By the reference in float64, from the same numbers."""
        exact = layer(self.case, fastrnn.reference, dtype="float64")
        exact.parameters = {name: array.astype(np.float64) for name, array in self.parameters.items()}
        x = np.tile(self.x, (self.calls_to_check, 1, 1)).astype(np.float64)
        if not self.case.training:
            y, state = exact(x, lengths=self.lengths)
            return answer(y[-self.case.steps :], state)
        y, state, tape = exact.forward(x, lengths=self.lengths)
        dstate = tuple(d.astype(np.float64) for d in self.dstate)
        gradients = exact.backward(tape, self.dy.astype(np.float64), dstate if len(dstate) > 1 else dstate[0])
        return answer(y, state, gradients.x, gradients.parameters)

    def tolerance(self, name: str) -> float:
        """What ||a - b|| / ||b|| may be; the table of tests/conftest.py."""
        if self.case.dtype == "float64":
            return 1e-12
        if name.startswith("d"):
            return 1e-5 * math.sqrt(self.case.steps)
        return 2e-6 * math.sqrt(self.case.shape.input + self.case.shape.hidden)

    def errors(self, who: str, given: Answer) -> dict[str, float]:
        """The relative error of each array of an answer. Raises WrongAnswerError if one is too large or missing."""
        if given.keys() != self.expected.keys():
            raise WrongAnswerError(
                f"{who}, {self.case}: the answer has {', '.join(given)}, not {', '.join(self.expected)}"
            )
        errors = {}
        for name, right in self.expected.items():
            array = given[name]
            if array.shape != right.shape or array.dtype != self.case.dtype:
                raise WrongAnswerError(
                    f"{who}, {self.case}: {name} is {array.dtype} {array.shape}, not {self.case.dtype} {right.shape}"
                )
            error = _relative_error(array, right)
            if not error <= self.tolerance(name):  # nor NaN
                raise WrongAnswerError(
                    f"{who}, {self.case}: {name} has a relative error of {error:.1e}, and {self.tolerance(name):.1e} "
                    "is the most that float arithmetic explains; nothing was timed for this case"
                )
            errors[name] = error
        return errors


def _relative_error(array: Array, right: Array) -> float:
    """||a - b|| / ||b||; without a norm to be relative to, 0 or infinity."""
    difference, size = np.linalg.norm(array.astype(np.float64) - right), np.linalg.norm(right)
    if size == 0:
        return 0.0 if difference == 0 else math.inf
    return float(difference / size)


def layer(case: Case, module: Any = fastrnn, **options: Any) -> Any:
    """The case's network, from fastrnn or from a module with the same classes."""
    kind, _, variant = case.cell.partition("_")
    if kind == "rnn":
        options["nonlinearity"] = variant
    elif kind == "gru":
        options["reset_after"] = variant != "reset_before"
    return getattr(module, kind.upper())(case.shape.input, case.shape.hidden, **{"dtype": case.dtype} | options)


def answer(y: Array, state: Any, dx: Array | None = None, dparameters: Mapping[str, Array] | None = None) -> Answer:
    """An answer from what a network gives: its state is h_n or (h_n, c_n)."""
    h_n, *c_n = state if isinstance(state, tuple) else (state,)
    arrays = {"y": y, "h_n": h_n}
    if c_n:
        arrays["c_n"] = c_n[0]
    if dx is not None:
        arrays["dx"] = dx
    for name, array in (dparameters or {}).items():
        arrays[f"d_{name}"] = array
    return arrays

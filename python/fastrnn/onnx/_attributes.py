"""What the attributes of an ONNX operator say, checked, in the terms of fastrnn's networks."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .._checks import check_choice, check_int, got
from .._spec import gru_cell, rnn_cell

Activation: TypeAlias = tuple[Any, ...]  # (name, alpha, beta), the last two as far as the function takes them

DIRECTIONS = ("forward", "reverse", "bidirectional")
NONLINEARITIES = ("tanh", "relu", "sigmoid")  # of an RNN
DEFAULTS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}  # of one direction
REQUIRED = None  # no default: ONNX has no operator of this name any more

# fastrnn's names by ONNX' in lower case, with the defaults of alpha and beta, as far as the function takes them: those
# of the ONNX operators of the same names.
ACTIVATIONS: dict[str, tuple[str, tuple[float | None, ...]]] = {
    "affine": ("affine", (REQUIRED, REQUIRED)),
    "elu": ("elu", (1.0,)),
    "hardsigmoid": ("hard_sigmoid", (0.2, 0.5)),
    "leakyrelu": ("leaky_relu", (0.01,)),
    "relu": ("relu", ()),
    "scaledtanh": ("scaled_tanh", (REQUIRED, REQUIRED)),
    "sigmoid": ("sigmoid", ()),
    "softplus": ("softplus", ()),
    "softsign": ("softsign", ()),
    "tanh": ("tanh", ()),
    "thresholdedrelu": ("thresholded_relu", (1.0,)),
}


@dataclass(frozen=True)
class Attributes:
    """Of a node, or of a call of `fastrnn.onnx.rnn`, `lstm` or `gru`."""

    operator: str
    direction: str
    batch_first: bool
    hidden_size: int  # 0: that of R
    reset_after: bool
    coupled: bool
    clip: float | None
    activations: tuple[Activation, ...]  # of all directions

    def cell(self, peephole: bool) -> str:
        """The kernels' name of it. Raises ValueError where they have none."""
        directions = 2 if self.bidirectional else 1
        usual = tuple((ACTIVATIONS[name.lower()][0],) for name in DEFAULTS[self.operator]) * directions
        if self.clip is not None:
            raise ValueError("clip: the kernels do not have it")
        if self.coupled:
            raise ValueError("input_forget: the kernels do not have it")
        if peephole:
            raise ValueError("P: the kernels do not have it")
        if self.operator == "RNN" and len(set(self.activations)) == 1 and self.activations[0][0] in NONLINEARITIES:
            return rnn_cell(self.activations[0][0])
        if self.activations != usual:
            raise ValueError("activations: the kernels do not have these")
        return "lstm" if self.operator == "LSTM" else gru_cell(self.reset_after)

    @property
    def bidirectional(self) -> bool:
        return self.direction == "bidirectional"

    @property
    def reverse(self) -> bool:
        return self.direction == "reverse"


def read(
    operator: str,
    *,
    direction: Any = "forward",
    hidden_size: Any = None,
    layout: Any = 0,
    activations: Any = None,
    activation_alpha: Any = None,
    activation_beta: Any = None,
    clip: Any = None,
    input_forget: Any = 0,
    linear_before_reset: Any = 0,
) -> Attributes:
    """Raises TypeError or ValueError, with the attribute's name, for what such an operator cannot have."""
    check_choice("direction", direction, DIRECTIONS)
    return Attributes(
        operator,
        direction,
        batch_first=check_int("layout", layout, 0, 1) == 1,
        hidden_size=0 if hidden_size is None else check_int("hidden_size", hidden_size, 1),
        reset_after=check_int("linear_before_reset", linear_before_reset, 0, 1) == 1,
        coupled=check_int("input_forget", input_forget, 0, 1) == 1,
        clip=None if clip is None else _clip(clip),
        activations=_activations(
            operator, 2 if direction == "bidirectional" else 1, activations, activation_alpha, activation_beta
        ),
    )


def _clip(value: Any) -> float:
    clip = _number("clip", value)
    if not clip > 0:
        raise ValueError(f"clip must be a positive number, {got(value)}")
    return clip


def _activations(operator: str, directions: int, names: Any, alphas: Any, betas: Any) -> tuple[Activation, ...]:
    usual = DEFAULTS[operator]
    names = usual * directions if names is None else _sequence("activations", names)
    if operator == "RNN" and directions == 1 and len(names) == 2:
        names = names[:1]  # the specification's own default has two
    if len(names) != len(usual) * directions:
        raise ValueError(f"activations must be {len(usual) * directions} names, {got(names)}")
    values = [_numbers("activation_alpha", alphas), _numbers("activation_beta", betas)]
    return tuple(_activation(name, values) for name in names)


def _activation(name: Any, values: list[Iterator[float]]) -> Activation:
    """Takes from the lists of alpha and beta what the function needs: each has the next."""
    if not isinstance(name, str) or name.lower() not in ACTIVATIONS:
        known = ", ".join(sorted(ACTIVATIONS))
        raise ValueError(f"activations must be names out of {known}, {got(name)}")
    ours, defaults = ACTIVATIONS[name.lower()]
    arguments = [next(given, default) for given, default in zip(values, defaults, strict=False)]
    if REQUIRED in arguments:
        raise ValueError(f"activations: {name} needs an activation_alpha and an activation_beta of its own")
    return (ours, *arguments)


def _numbers(attribute: str, values: Any) -> Iterator[float]:
    return iter([_number(attribute, value) for value in ([] if values is None else _sequence(attribute, values))])


def _number(attribute: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{attribute} must be made of numbers, {got(value)}")
    if not math.isfinite(value):
        raise ValueError(f"{attribute} must be finite, {got(value)}")
    return float(value)


def _sequence(attribute: str, values: Any) -> Sequence[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise TypeError(f"{attribute} must be a list, {got(values)}")
    return values

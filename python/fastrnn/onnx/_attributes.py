"""What the attributes of an ONNX operator say, checked, in the terms of fastrnn's networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .._checks import check_choice, check_int, check_number, got
from .._options import FUNCTIONS, Options
from .._spec import gru_cell

Activation: TypeAlias = tuple[Any, ...]  # (name, alpha, beta), the last two as far as the function takes them

DIRECTIONS = ("forward", "reverse", "bidirectional")
DEFAULTS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}  # of one direction
NO_DEFAULTS = ("affine", "scaled_tanh")  # ONNX has no operators of these names any more

# fastrnn's names by ONNX' in lower case.
ACTIVATIONS = {name.replace("_", ""): name for name in FUNCTIONS}


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

    def network(self, peephole: bool) -> tuple[str, Options]:
        """The cell and the options of a network, as `make_spec` takes them."""
        cell = {"RNN": "rnn_tanh", "LSTM": "lstm", "GRU": gru_cell(self.reset_after)}[self.operator]
        return cell, Options(self.activations, self.clip, self.coupled, peephole)

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
    """Raises TypeError or ValueError, with the attribute's name, for what such an operator cannot have.

    All three operators are read as the specification says. In ONNX Runtime (1.31) the default alpha of ThresholdedRelu
    is 0 in place of 1, and an RNN knows the names of its activations in one case alone.
    """
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
    clip = check_number("clip", value)
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
        raise ValueError(f"activations must be names out of {', '.join(sorted(ACTIVATIONS))}, {got(name)}")
    ours = ACTIVATIONS[name.lower()]
    defaults = (None, None) if ours in NO_DEFAULTS else FUNCTIONS[ours]
    parameters = [next(given, default) for given, default in zip(values, defaults, strict=False)]
    if None in parameters:
        raise ValueError(f"activations: {name} needs an activation_alpha and an activation_beta of its own")
    return (ours, *parameters)


def _numbers(attribute: str, values: Any) -> Iterator[float]:
    values = [] if values is None else _sequence(attribute, values)
    return iter([check_number(f"each of {attribute}", value) for value in values])


def _sequence(attribute: str, values: Any) -> Sequence[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise TypeError(f"{attribute} must be a list, {got(values)}")
    return values

"""What a backward pass gives, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._checks import got
from ._spec import Array, State


@dataclass(frozen=True)
class Gradients:
    """Derivatives of the loss with respect to everything that went into a forward call.

    Each array has the shape and dtype of what it is the derivative of.
    """

    x: Array
    h0: Array
    c0: Array | None  #: None unless the network is an LSTM
    parameters: dict[str, Array]  #: by the names of the layer's parameters


def backward(engine: Any, tape: Any, dy: Array | None, dstate: State) -> Gradients:
    """Run an engine's backward and give the gradients their names."""
    if not isinstance(tape, engine.Tape):
        raise TypeError(f"tape must be what forward returned, {got(tape)}")
    dx, dh0, dc0, flat = engine.backward(tape, dy, dstate)
    names = (name for name, _ in tape.spec.parameter_shapes())
    return Gradients(dx, dh0, dc0, dict(zip(names, flat, strict=True)))

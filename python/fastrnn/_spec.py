"""What layers and functions share: checked arguments, the names of parameters, and gradients by name."""

from __future__ import annotations

import math
import numbers
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _core

Array: TypeAlias = NDArray[Any]
State: TypeAlias = Any  # h, or (h, c) for an LSTM

GATES = {"rnn": 1, "lstm": 4, "gru": 3}
MAX_LAYERS = 2**16 - 1  # far beyond use; keeps a mistyped number from asking for billions of arrays
SPEC_FIELDS = (
    "cell",
    "input_size",
    "hidden_size",
    "num_layers",
    "bias",
    "batch_first",
    "dropout",
    "bidirectional",
    "proj_size",
    "dtype",
)


@dataclass(frozen=True)
class Gradients:
    """Derivatives of the loss with respect to everything that went into a forward call.

    Each array has the shape and dtype of what it is the derivative of.
    """

    x: Array
    h0: Array
    c0: Array | None  #: None unless the network is an LSTM
    parameters: dict[str, Array]  #: by the names of the layer's parameters


def got(value: object) -> str:
    """How an error message shows an unwelcome argument."""
    return f"got {reprlib.repr(value)} ({type(value).__name__})"


def check_int(name: str, value: object, low: int, high: int = 2**31 - 1) -> int:
    """An integer in low…high. A bool is not an integer here: it is nearly always a misplaced argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, {got(value)}")
    integer = int(value)
    if not low <= integer <= high:
        raise ValueError(f"{name} must be an int from {low} to {high}, got {integer}")
    return integer


def check_bool(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, {got(value)}")
    return bool(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, {got(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def check_probability(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, {got(value)}")
    probability = float(value)
    if math.isnan(probability) or not 0 <= probability <= 1:
        raise ValueError(f"{name} must be a probability from 0 to 1, got {value}")
    return probability


def check_dtype(name: str, value: object) -> str:
    try:
        dtype = None if value is None else np.dtype(value)  # type: ignore[call-overload]
    except TypeError:
        dtype = None
    if dtype is None:
        raise TypeError(f"{name} must be float32 or float64, {got(value)}")
    if dtype not in (np.dtype("float32"), np.dtype("float64")):
        raise ValueError(f"{name} must be float32 or float64, got {dtype}")
    return str(dtype.name)


def rnn_cell(nonlinearity: str) -> str:
    return "rnn_" + check_choice("nonlinearity", nonlinearity, ("tanh", "relu", "sigmoid"))


def gru_cell(reset_after: bool) -> str:
    return "gru" if check_bool("reset_after", reset_after) else "gru_reset_before"


def make_spec(
    cell: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bias: bool = True,
    batch_first: bool = False,
    dropout: float = 0.0,
    bidirectional: bool = False,
    proj_size: int = 0,
    dtype: DTypeLike = "float32",
) -> _core.Spec:
    """A Spec from arguments that a person wrote: every bad one gets an error that names it."""
    hidden_size = check_int("hidden_size", hidden_size, 1)
    proj_size = check_int("proj_size", proj_size, 0)
    if proj_size >= hidden_size:
        raise ValueError(f"proj_size must be less than hidden_size ({hidden_size}), got {proj_size}")
    return _core.make_spec(
        cell,
        check_int("input_size", input_size, 1),
        hidden_size,
        check_int("num_layers", num_layers, 1, MAX_LAYERS),
        check_bool("bias", bias),
        check_bool("batch_first", batch_first),
        check_probability("dropout", dropout),
        check_bool("bidirectional", bidirectional),
        proj_size,
        check_dtype("dtype", dtype),
    )


def suffix(layer: int, reverse: bool = False) -> str:
    """The end of the names of one layer and direction's parameters."""
    return f"_l{layer}{'_reverse' if reverse else ''}"


def parameter_names(num_layers: int, bidirectional: bool, bias: bool, projected: bool) -> list[str]:
    """All names in the flat order: by layer, then direction, then matrix."""
    stems = ["weight_ih", "weight_hh"] + bias * ["bias_ih", "bias_hh"] + projected * ["weight_hr"]
    directions = (False, True) if bidirectional else (False,)
    return [stem + suffix(k, reverse) for k in range(num_layers) for reverse in directions for stem in stems]


def check_names(what: str, given: Iterable[str], expected: Iterable[str]) -> None:
    """Raise a ValueError that lists the names that are missing and those that nobody expects."""
    given, expected = dict.fromkeys(given), dict.fromkeys(expected)
    if given.keys() != expected.keys():
        faults = {
            "missing": [name for name in expected if name not in given],
            "unexpected": [str(name) for name in given if name not in expected],
        }
        raise ValueError(
            f"{what}: " + "; ".join(f"{fault} {', '.join(names)}" for fault, names in faults.items() if names)
        )


def check_parameters(what: str, spec: _core.Spec, parameters: Mapping[str, Array]) -> None:
    """Raise a ValueError unless the parameters are those of the network, to be written to a file or read from one."""
    shapes = dict(spec.parameter_shapes())
    check_names(what, parameters, shapes)
    for name, shape in shapes.items():
        array = parameters[name]
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != spec.dtype:
            raise ValueError(f"{what}: {name} must be an array of {spec.dtype} of shape {shape}, {got(array)}")


def backward(engine: ModuleType, tape: Any, dy: Array | None, dstate: State) -> Gradients:
    """Run an engine's backward and give the gradients their names."""
    if not isinstance(tape, engine.Tape):
        raise TypeError(f"tape must be what forward returned, {got(tape)}")
    dx, dh0, dc0, flat = engine.backward(tape, dy, dstate)
    names = (name for name, _ in tape.spec.parameter_shapes())
    return Gradients(dx, dh0, dc0, dict(zip(names, flat, strict=True)))

"""What a network can have that its cell, as published, has not: other functions, clipping, peepholes, coupled gates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from ._checks import check_bool, check_choice, check_number, got

Activation: TypeAlias = "str | tuple[str | float, ...]"  # a name, or (name, alpha) or (name, alpha, beta)

# Each function's parameters, alpha and beta, as far as it has them, with the defaults of the ONNX operator of its name.
FUNCTIONS: dict[str, tuple[float, ...]] = {
    "tanh": (),
    "sigmoid": (),
    "relu": (),
    "affine": (1.0, 0.0),
    "leaky_relu": (0.01,),
    "thresholded_relu": (1.0,),
    "scaled_tanh": (1.0, 1.0),
    "hard_sigmoid": (0.2, 0.5),
    "elu": (1.0,),
    "softsign": (),
    "softplus": (),
}

# What each cell applies, in the order of its equations.
PUBLISHED: dict[str, tuple[str, ...]] = {
    "rnn_tanh": ("tanh",),
    "rnn_relu": ("relu",),
    "rnn_sigmoid": ("sigmoid",),
    "lstm": ("sigmoid", "tanh", "tanh"),
    "gru": ("sigmoid", "tanh"),
    "gru_reset_before": ("sigmoid", "tanh"),
}


class Options(NamedTuple):
    """As a person wrote them, or as a Spec has them: activations complete, and by direction."""

    activations: Sequence[Any] | None = None
    clip: float | None = None
    coupled_input_forget: bool = False
    peephole: bool = False


def check_options(cell: str, directions: int, options: Options) -> tuple[str, Options | None]:
    """The cell and its options, None where they change nothing: then kernels that know none of them run."""
    kind = cell.split("_")[0]
    clip = None if options.clip is None else check_number("clip", options.clip)
    if clip is not None and clip <= 0:
        raise ValueError(f"clip must be greater than 0, {got(options.clip)}")
    coupled = check_bool("coupled_input_forget", options.coupled_input_forget)
    peephole = check_bool("peephole", options.peephole)
    published = tuple(_complete(name) for name in PUBLISHED[cell]) * directions
    activations = published
    if options.activations is not None:
        activations = _check_activations(kind, len(PUBLISHED[cell]), directions, options.activations)
        if kind == "rnn" and cell != "rnn_tanh" and activations != published:
            raise ValueError("activations and nonlinearity must not both be given")
        if kind == "rnn" and len(set(activations)) == 1 and f"rnn_{activations[0][0]}" in PUBLISHED:
            cell, published = f"rnn_{activations[0][0]}", activations
    if activations == published and clip is None and not coupled and not peephole:
        return cell, None
    return cell, Options(activations, clip, coupled, peephole)


def shown_activations(cell: str, directions: int, options: Options | None) -> tuple[Activation, ...]:
    """As short as `activations` can be written."""
    if options is None or options.activations is None:
        return PUBLISHED[cell]
    shown: list[Activation] = []
    for name, *parameters in options.activations:
        count = len(FUNCTIONS[name])
        shown.append((name, *parameters[:count]) if count else name)
    each = len(shown) // directions
    return tuple(shown[:each] if directions == 2 and shown[:each] == shown[each:] else shown)


def written(cell: str, options: Options | None) -> str:
    """A cell and its activations as one string, for operators that have no place for more: "lstm", or "gru" and behind
    it a name, alpha and beta of each function."""
    if options is None:
        return cell
    return " ".join([cell, *(f"{name} {alpha!r} {beta!r}" for name, alpha, beta in options.activations or ())])


def read(text: str, directions: int) -> tuple[str, Options | None]:
    """The same the other way round. Raises ValueError unless there is a cell, and functions that it can have."""
    cell, *words = text.split(" ")
    if not words:
        return cell, None
    if cell not in PUBLISHED:
        raise ValueError(f"unknown cell {cell!r}")
    each = zip(words[::3], words[1::3], words[2::3], strict=True)
    activations = [(name, float(alpha), float(beta)) for name, alpha, beta in each]
    return check_options(cell, directions, Options(activations))


def _check_activations(
    kind: str, count: int, directions: int, activations: Any
) -> tuple[tuple[str, float, float], ...]:
    if not isinstance(activations, Sequence) or isinstance(activations, (str, bytes)):
        raise TypeError(f"activations must be a sequence of {count} names or tuples, {got(activations)}")
    if len(activations) not in (count, count * directions):
        wanted = "1 item" if count == 1 else f"{count} items"
        wanted += f", or {2 * count} for two directions," if directions == 2 else ""
        network = f"{'a' if kind == 'gru' else 'an'} {kind.upper()}"
        raise ValueError(f"activations must have {wanted} in {network}, got {len(activations)}")
    complete = tuple(_complete(item) for item in activations)
    return complete if len(complete) == count * directions else complete * directions


def _complete(item: Any) -> tuple[str, float, float]:
    """Name, alpha and beta; 0 for what a function does not have, which may also be given so."""
    name, *given = (item,) if isinstance(item, str) else item if isinstance(item, (tuple, list)) and item else (item,)
    name = check_choice("a name in activations", name, FUNCTIONS)
    defaults = FUNCTIONS[name]
    if len(given) > len(defaults) and any(given[len(defaults) :]):
        has = ("no parameters", "one parameter, alpha", "two parameters, alpha and beta")[len(defaults)]
        raise ValueError(f"activations: {name} has {has}, {got(item)}")
    parameters = [check_number(f"a parameter of {name} in activations", value) for value in given[: len(defaults)]]
    parameters += defaults[len(given) :]
    alpha, beta = (*parameters, 0.0, 0.0)[:2]
    return name, alpha, beta

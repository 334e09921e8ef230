"""What describes a network: its Spec, from arguments that a person wrote, and the names of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from . import _core
from ._checks import check_bool, check_choice, check_dtype, check_int, check_names, check_probability, got
from ._options import Options, check_options

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
    "options",
)


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
    options: Options | None = None,
) -> _core.Spec:
    """A Spec from arguments that a person wrote: every bad one gets an error that names it."""
    hidden_size = check_int("hidden_size", hidden_size, 1)
    proj_size = check_int("proj_size", proj_size, 0)
    if proj_size >= hidden_size:
        raise ValueError(f"proj_size must be less than hidden_size ({hidden_size}), got {proj_size}")
    bidirectional = check_bool("bidirectional", bidirectional)
    if options is not None:
        cell, options = check_options(cell, 1 + bidirectional, options)
    return _core.make_spec(
        cell,
        check_int("input_size", input_size, 1),
        hidden_size,
        check_int("num_layers", num_layers, 1, MAX_LAYERS),
        check_bool("bias", bias),
        check_bool("batch_first", batch_first),
        check_probability("dropout", dropout),
        bidirectional,
        proj_size,
        check_dtype("dtype", dtype),
        options,
    )


def suffix(layer: int, reverse: bool = False) -> str:
    """The end of the names of one layer and direction's parameters."""
    return f"_l{layer}{'_reverse' if reverse else ''}"


def parameter_names(
    num_layers: int, bidirectional: bool, bias: bool, projected: bool, peephole: bool = False
) -> list[str]:
    """All names in the flat order: by layer, then direction, then matrix. They do not depend on cell and sizes."""
    _, options = check_options("lstm", 1 + bidirectional, Options(peephole=peephole))
    sizes = 1, 2, num_layers
    spec = _core.make_spec("lstm", *sizes, bias, bidirectional=bidirectional, proj_size=int(projected), options=options)
    return [name for name, _ in spec.parameter_shapes()]


def check_parameters(what: str, spec: _core.Spec, parameters: Mapping[str, Array]) -> None:
    """Raise a ValueError unless the parameters are those of the network, to be written to a file or read from one."""
    shapes = dict(spec.parameter_shapes())
    check_names(what, parameters, shapes)
    for name, shape in shapes.items():
        array = parameters[name]
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != spec.dtype:
            raise ValueError(f"{what}: {name} must be an array of {spec.dtype} of shape {shape}, {got(array)}")

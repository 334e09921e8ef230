"""The CUDA side, which few builds have."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ._core import Spec

HALF = "float16", "bfloat16"  # which no network has elsewhere


@lru_cache(maxsize=1)
def cuda() -> Any:
    """The module `fastrnn._cuda`, or None in a build without it. Raises ImportError if its libraries are missing."""
    return import_module("fastrnn._cuda") if find_spec("fastrnn._cuda") else None


def required() -> Any:
    """The same, for what cannot do without it."""
    module = cuda()
    if module is None:
        raise RuntimeError("fastrnn.cuda: this build has no CUDA kernels; build it with FASTRNN_CUDA=ON")
    return module


def check_options(spec: Spec) -> None:
    """Raises ValueError where the network has one of the variants that the kernels for CUDA do not have."""
    if spec.options is not None:
        raise ValueError("CUDA has no peephole, coupled_input_forget, clip and activations: leave them out")


def network(spec: Spec, dtype: str) -> Any:
    """The CUDA side's description of a network, in a type of its own."""
    check_options(spec)
    options = spec.num_layers, spec.bias, spec.batch_first, spec.dropout, spec.bidirectional, spec.proj_size
    return required().Network(spec.cell, spec.input_size, spec.hidden_size, *options, dtype)

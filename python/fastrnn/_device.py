"""The CUDA side, which few builds have."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any


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

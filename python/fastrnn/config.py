"""What this build is and how it runs: threads, instruction set, CUDA, counters."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np

from . import _core, _device
from ._checks import check_choice, check_int

MAX_THREADS = 4095  # as in FASTRNN_NUM_THREADS


def set_num_threads(n: int) -> None:
    """Let at most `n` threads (1 or more, the caller's own included) work on a call. Results do not depend on it.

    Raises:
        TypeError: `n` is no int.
        ValueError: it is not from 1 to 4095.
    """
    _core.set_num_threads(check_int("n", n, 1, MAX_THREADS))


def get_num_threads() -> int:
    """How many threads may work on a call: those of `set_num_threads` or FASTRNN_NUM_THREADS, else as many as there are
    processors that the process may run on.
    """
    return _core.get_num_threads()


def native_calls() -> int:
    """Calls into the native kernels so far in this process, from any thread: how a program can see that they ran."""
    return _core.native_calls()


def show_config(mode: str = "stdout") -> dict[str, Any] | None:
    """Print what this build is and how it runs (mode "stdout"), or return it (mode "dict").

    It tells fastrnn's version, the compiler, the instruction set in use and those that this processor could use, the
    number of threads, NumPy's version, and which GPU there is.

    Raises:
        TypeError: `mode` is no str.
        ValueError: it is another one.
    """
    check_choice("mode", mode, ("stdout", "dict"))
    cuda = _device.cuda()
    config = {
        "version": version("fastrnn"),
        "compiler": _core.compiler(),
        "isa": _core.isa(),
        "available_isas": _core.available_isas(),
        "threads": _core.get_num_threads(),
        "numpy": np.__version__,
        "cuda": cuda.describe_device() + "; TF32" * cuda.tf32() if cuda else "not in this build",
    }
    if mode == "dict":
        return config
    for name, value in config.items():
        print(f"{name + ':':<15} {', '.join(value) if isinstance(value, list) else value}")
    return None

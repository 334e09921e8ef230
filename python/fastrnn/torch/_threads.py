"""One set of threads for PyTorch's operators and the kernels."""

from __future__ import annotations

import ctypes

import torch

from .. import _core

FUNCTIONS = (
    "GOMP_parallel",
    "omp_get_thread_num",
    "omp_get_num_threads",
    "omp_get_thread_limit",
    "omp_in_parallel",
)


def share() -> bool:
    """Let the kernels run on the threads of the OpenMP runtime that PyTorch has loaded; whether it has one.

    PyTorch's idle threads spin for some milliseconds after each operator. Threads of the kernels' own would have to
    share the cores with them: a layer between two operators takes up to twice as long so.
    """
    if "ATen parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return False
    library = ctypes.CDLL(torch._C.__file__)  # a look-up goes through the libraries that it depends on, too
    try:
        addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in FUNCTIONS]
    except AttributeError:  # another runtime's names
        return False
    _core.use_openmp(*(address or 0 for address in addresses))
    return True

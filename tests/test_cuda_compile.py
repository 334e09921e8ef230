"""nvcc takes the CUDA sources without a warning, for every GPU that is built for, and no kernel's registers spill."""

import subprocess

import pytest

import cuda_toolkit

TARGETS = ("fastrnn_cuda", "fastrnn_cuda_driver", "fastrnn_cuda_bench", "fastrnn_cuda_exchange")


def test_nvcc_takes_the_sources():
    if missing := cuda_toolkit.missing():
        pytest.skip(f"compiling for CUDA needs {' and '.join(missing)}")
    folder = cuda_toolkit.ROOT / "build" / "cuda_compile"
    try:
        cuda_toolkit.build(folder, *TARGETS, options=["-DFASTRNN_WERROR=ON"], capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stdout + error.stderr)

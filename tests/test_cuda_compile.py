"""nvcc takes the CUDA sources without a warning, for every GPU that is built for, and no kernel's registers spill; the
Python module that they make can be imported, and says what there is.
"""

import os
import subprocess
import sys

import pytest

import cuda_toolkit

TARGETS = (
    "fastrnn_cuda",
    "fastrnn_cuda_driver",
    "fastrnn_cuda_bench",
    "fastrnn_cuda_exchange",
    "fastrnn_cuda_module",
)


def test_nvcc_takes_the_sources():
    if missing := cuda_toolkit.missing():
        pytest.skip(f"compiling for CUDA needs {' and '.join(missing)}")
    pytest.importorskip("pybind11")
    folder = cuda_toolkit.ROOT / "build" / "cuda_compile"
    options = ["-DFASTRNN_WERROR=ON", *cuda_toolkit.python_options()]
    try:
        cuda_toolkit.build(folder, *TARGETS, options=options, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stdout + error.stderr)
    command = [sys.executable, "-c", "import _cuda; print(_cuda.describe_device())"]
    environment = os.environ | {"PYTHONPATH": str(folder / "cuda")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip() == "no device") == (not cuda_toolkit.gpus())

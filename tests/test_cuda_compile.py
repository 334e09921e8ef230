"""nvcc takes the CUDA sources without a warning, for every GPU that is built for, and no kernel's registers spill; the
Python module that they make can be imported, and says what there is. Products read what is on chip as what it is.
"""

import os
import re
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


def test_products_read_shared_memory(tmp_path):
    """By the instructions for it, and not by those that first look what memory an address is of."""
    if missing := cuda_toolkit.missing():
        pytest.skip(f"compiling for CUDA needs {' and '.join(missing)}")
    source, to = tmp_path / "lstm.cu", tmp_path / "lstm.ptx"
    source.write_text(
        '#include "layer.cuh"\n'
        "using namespace fastrnn::cuda;\n"
        "extern const Kernels lstm = layer_kernels<Lstm, Half>();\n"
    )
    command = [cuda_toolkit.find("bin/nvcc"), "-std=c++20", "-O3", "-arch=sm_90", "-ptx", "-o", to, source]
    command += ["-I", cuda_toolkit.ROOT / "cuda", "-I", cuda_toolkit.ROOT / "csrc"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loads = re.findall(r"\bld\.([a-z.]*)v4\.[a-z]+[0-9]+", to.read_text())
    assert set(loads) == {"shared.", "global."}  # global are the fetches of what other blocks have put

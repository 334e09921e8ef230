"""nvcc takes the CUDA sources without a warning, for every GPU that is built for, and no kernel's registers spill."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cuda_runner import ROOT, tool


def toolkits():
    """Folders that may hold a CUDA toolkit, or what PyPI has of one (nvidia-cuda-nvcc, nvidia-cublas ...)."""
    if "CUDA_HOME" in os.environ:
        yield Path(os.environ["CUDA_HOME"])
    if nvcc := shutil.which("nvcc"):
        yield Path(nvcc).resolve().parents[1]
    yield Path("/usr/local/cuda")
    for folder in sys.path:
        yield from sorted(Path(folder, "nvidia").glob("cu*"))


def find(path):
    return next((root / path for root in toolkits() if (root / path).exists()), None)


def test_nvcc_takes_the_sources():
    nvcc, header = find("bin/nvcc"), find("include/cublas_v2.h")
    missing = [name for name in ("cmake", "ninja", "c++") if not tool(name)]
    missing += [] if nvcc else ["nvcc"]
    missing += [] if header else ["the headers of cuBLAS"]
    if missing:
        pytest.skip(f"compiling for CUDA needs {' and '.join(missing)}")
    # A compiler of PyPI's does not look for its own libraries.
    environment = os.environ | {"CUDACXX": str(nvcc), "NVCC_APPEND_FLAGS": f"-L{nvcc.parents[1] / 'lib'}"}
    build = ROOT / "build" / "cuda_compile"
    options = ["-DFASTRNN_PYTHON=OFF", "-DFASTRNN_CUDA=ON", "-DFASTRNN_WERROR=ON"]
    options.append(f"-DFASTRNN_CUBLAS_ROOT={header.parents[1]}")
    for command in (
        [tool("cmake"), "-S", ROOT, "-B", build, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", *options],
        [tool("cmake"), "--build", build, "--target", "fastrnn_cuda", "fastrnn_cuda_driver"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stdout + done.stderr

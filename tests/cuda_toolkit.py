"""Finds nvcc, cuBLAS and GPUs, and builds with them.

python tests/cuda_toolkit.py TARGET ... builds for the GPU of this machine, in build/cuda; where there is none, for all.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOR_GPU = ROOT / "build" / "cuda"


def tool(name):
    """A program beside the interpreter or on the path, or None."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def folders():
    """Those that may hold a CUDA toolkit, or what PyPI has of one (nvidia-cuda-nvcc, nvidia-cublas ...)."""
    if "CUDA_HOME" in os.environ:
        yield Path(os.environ["CUDA_HOME"])
    if nvcc := shutil.which("nvcc"):
        yield Path(nvcc).resolve().parents[1]
    yield Path("/usr/local/cuda")
    for folder in sys.path:
        yield from sorted(Path(folder, "nvidia").glob("cu*"))


def find(path):
    """A file of the toolkit, or None."""
    return next((root / path for root in folders() if (root / path).exists()), None)


def missing():
    """What there is not of what a build needs."""
    names = [name for name in ("cmake", "ninja", "c++") if not tool(name)]
    names += [] if find("bin/nvcc") else ["nvcc"]
    return names + ([] if find("include/cublas_v2.h") else ["cuBLAS with its headers"])


def gpus():
    """The GPUs of this machine, a line each."""
    program = shutil.which("nvidia-smi")
    done = subprocess.run([program, "-L"], capture_output=True, text=True) if program else None
    return done.stdout.splitlines() if done and done.returncode == 0 else []


def build(folder, *targets, options=(), **how):
    """Raises subprocess.CalledProcessError; `how` is subprocess.run's."""
    nvcc, header = find("bin/nvcc"), find("include/cublas_v2.h")
    # A compiler of PyPI's does not look for its own libraries.
    environment = os.environ | {"CUDACXX": str(nvcc), "NVCC_APPEND_FLAGS": f"-L{nvcc.parents[1] / 'lib'}"}
    options = ["-DFASTRNN_PYTHON=OFF", "-DFASTRNN_CUDA=ON", f"-DFASTRNN_CUBLAS_ROOT={header.parents[1]}", *options]
    for command in (
        [tool("cmake"), "-S", ROOT, "-B", folder, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", *options],
        [tool("cmake"), "--build", folder, "--target", *targets],
    ):
        subprocess.run(command, env=environment, check=True, **how)


def python_options():
    """Of a build with the target fastrnn_cuda_module, for this interpreter; it must have pybind11."""
    import pybind11

    options = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    return ["-DFASTRNN_PYTHON=ON", "-DFASTRNN_JAX=OFF", *options]


def build_for_gpu(*targets, options=()):
    """In FOR_GPU. Returns the GPUs that there are."""
    here = gpus()
    build(FOR_GPU, *targets, options=[*options, *(["-DCMAKE_CUDA_ARCHITECTURES=native"] if here else [])])
    return here


if __name__ == "__main__":
    if names := missing():
        sys.exit(f"no {' and no '.join(names)} here: nothing was built")
    if not build_for_gpu(*sys.argv[1:]):
        sys.exit("there is no GPU here: all was built, and nothing was run")

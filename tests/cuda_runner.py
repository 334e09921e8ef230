"""Networks through the CUDA sources: cases for the driver of tests/cuda, and its results.

The driver is compiled for a GPU, or with the emulator of tests/cuda_emulation; both take the same cases.
"""

import fcntl
import os
import platform
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import numpy as np

from cases import backward, forward, infer, state_shapes
from cuda_toolkit import ROOT, tool

BUILD = ROOT / "build" / "cuda_emulation"
MODES = ("plain", "address", "thread")
ENVIRONMENT = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
    "TSAN_OPTIONS": "report_bugs=1:halt_on_error=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@lru_cache(maxsize=1)
def build():
    """Builds the emulator and all that runs in it. The folder of the programs, or what is missing, as a text."""
    missing = [name for name in ("cmake", "ninja", "c++") if not tool(name)]
    missing += [] if platform.machine() in ("x86_64", "AMD64") else ["an x86-64 processor"]
    missing += [] if find_spec("pybind11") else ["pybind11"]
    if missing:
        return f"the emulator of CUDA kernels needs {' and '.join(missing)}"
    import pybind11

    options = ["-DFASTRNN_CUDA_EMULATION=ON", "-DFASTRNN_WERROR=ON", f"-DPython_EXECUTABLE={sys.executable}"]
    options += [f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
    commands = [
        [tool("cmake"), "-S", ROOT, "-B", BUILD, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", *options],
        [tool("cmake"), "--build", BUILD, "--target", "cuda_emulation"],
    ]
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "in_use").open("w") as one_at_a_time:  # for tests in several processes
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
    return BUILD / "tests" / "cuda_emulation"


@lru_cache(maxsize=1)
def load_module():
    """`fastrnn._cuda` in the emulator; or what is missing, as a text."""
    folder = build()
    if isinstance(folder, str):
        return folder
    (path,) = folder.glob("_cuda.*")
    spec = spec_from_file_location("fastrnn._cuda", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------------------- values


def to_bfloat16(array):
    """The bits of the nearest bfloat16, ties to even, as uint16."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def encode(array, dtype):
    """As the driver reads it."""
    return to_bfloat16(array) if dtype == "bfloat16" else np.ascontiguousarray(array, dtype)


def decode(raw, dtype):
    """In float64, from what the driver writes or `encode` gave."""
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return raw.astype(np.float64)


def rounded(array, dtype):
    """The nearest values that the type has, in float64. NaN stays NaN."""
    values = decode(encode(array, dtype), dtype)
    return np.where(np.isnan(array), np.nan, values)


# ----------------------------------------------------------------------------------------------------------- the calls


@dataclass
class Call:
    """A float64 network of the reference, data for it, and how the driver is to run them."""

    layer: object
    data: object
    dtype: str
    strided: bool = False
    tf32: bool = False
    graph: bool = False
    way: str = "automatic"
    blocks: int = 0

    def __post_init__(self):
        """All values become values of the dtype, so that the reference is given the same."""
        for name, array in self.layer.parameters.items():
            self.layer.parameters[name] = rounded(array, self.dtype)

        def convert(array):
            return None if array is None else rounded(array, self.dtype)

        states = {
            name: None if state is None else tuple(convert(a) for a in state)
            for name, state in (("state", self.data.state), ("dstate", self.data.dstate))
        }
        self.data = replace(self.data, x=convert(self.data.x), dy=convert(self.data.dy), **states)

    @property
    def shape(self):
        """T and B."""
        axes = self.data.x.shape[:2]
        return axes[::-1] if self.layer.spec.batch_first else axes

    def request(self):
        """The case's line and arrays."""
        spec, data = self.layer.spec, self.data
        steps, rows = self.shape
        fields = {
            "cell": spec.cell,
            "dtype": self.dtype,
            "input": spec.input_size,
            "hidden": spec.hidden_size,
            "layers": spec.num_layers,
            "proj": spec.proj_size,
            "bias": int(spec.bias),
            "bidirectional": int(spec.bidirectional),
            "dropout": spec.dropout,
            "steps": steps,
            "rows": rows,
            "lengths": int(data.lengths is not None),
            "state": int(data.state is not None),
            "dy": int(data.dy is not None),
            "dstate": int(data.dstate is not None),
            "strided": int(self.strided),
            "batch_first": int(spec.batch_first),
            "seed": data.dropout_seed,
            "tf32": int(self.tf32),
            "graph": int(self.graph),
            "way": self.way,
            "blocks": self.blocks,
        }
        line = " ".join(f"{key}={value}" for key, value in fields.items()) + "\n"
        arrays = [self._time_major(data.x), *(data.state or ()), *self.layer.parameters.values()]
        arrays += [] if data.dy is None else [self._time_major(data.dy)]
        arrays += data.dstate or ()
        lengths = b"" if data.lengths is None else np.asarray(data.lengths, np.int64).tobytes()
        return line.encode() + lengths + b"".join(encode(a, self.dtype).tobytes() for a in arrays)

    def results(self, raw):
        """(inferred, forwards, gradients) by name in float64, from what the driver wrote, and how much that was."""
        spec, (steps, rows) = self.layer.spec, self.shape
        width = (spec.proj_size or spec.hidden_size) * (1 + spec.bidirectional)
        states = dict(zip(("h", "c"), state_shapes(spec, rows), strict=False))
        forwards = {"y": (steps, rows, width)} | {f"{name}_n": shape for name, shape in states.items()}
        gradients = {"dx": (steps, rows, spec.input_size)} | {f"d{name}0": shape for name, shape in states.items()}
        gradients |= {f"d{name}": array.shape for name, array in self.layer.parameters.items()}
        place, groups = 0, []
        for shapes in (forwards, forwards, gradients):
            group = {}
            for name, shape in shapes.items():
                kind = np.dtype("uint16" if self.dtype == "bfloat16" else self.dtype)
                flat = np.frombuffer(raw, kind, int(np.prod(shape)), place)
                place += flat.nbytes
                array = decode(flat.reshape(shape), self.dtype)
                group[name] = self._time_major(array) if name in ("y", "dx") else array
            groups.append(group)
        return groups, place

    def expected(self):
        """The same from the reference."""
        forwards, tape = forward(self.layer, self.data)
        names = ("y", "h_n", "c_n")
        chosen = {name: array for name, array in forwards.items() if name in names}
        return infer(self.layer, self.data), chosen, backward(self.layer, tape, self.data)

    def _time_major(self, array):
        return array.swapaxes(0, 1) if self.layer.spec.batch_first else array


def run(calls, program, *options, under=()):
    """The results of some calls, from one process of the driver, `under` another program if one is given.

    Raises RuntimeError with what it said if it fails.
    """
    environment = os.environ | ENVIRONMENT
    request = b"".join(call.request() for call in calls)
    done = subprocess.run([*under, program, *options], input=request, capture_output=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError((done.stderr + (done.stdout if under else b"")).decode(errors="replace"))
    results, place = [], 0
    for call in calls:
        groups, size = call.results(done.stdout[place:])
        results.append(groups)
        place += size
    assert place == len(done.stdout)
    return results

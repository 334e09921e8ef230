"""The one table of tolerances, and settings: for garbage collection, and put back after each test."""

import gc
import math
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import _core, _device

# ||a - b|| / ||b|| that a result may be from the reference in float64 given the same values: a function of H + I and T.
TOLERANCES = {
    "float32": {
        "forward": lambda width, steps: 2e-6 * math.sqrt(width),
        "backward": lambda width, steps: 1e-5 * math.sqrt(steps),
    },
    "float64": {
        "forward": lambda width, steps: 1e-12,
        "backward": lambda width, steps: 1e-12,
    },
    # On CUDA alone; the reference is given the rounded values, but for tf32, which is float32 with products in TF32.
    "tf32": {
        "forward": lambda width, steps: 3e-3,
        "backward": lambda width, steps: 3e-3,
    },
    "float16": {
        "forward": lambda width, steps: 3e-3,
        "backward": lambda width, steps: 3e-3,
    },
    "bfloat16": {
        "forward": lambda width, steps: 2e-2,
        "backward": lambda width, steps: 2e-2,
    },
}


def pytest_collection_finish():
    """What the modules and thousands of tests are made of stays to the end: no garbage collection need look at it."""
    gc.collect()
    gc.freeze()


def relative_error(a, b):
    """||a - b|| / ||b||; without a norm to be relative to, 0 or infinity."""
    assert a.shape == b.shape
    difference, size = np.linalg.norm(a.astype(np.float64) - b), np.linalg.norm(b)
    if size == 0:
        return 0.0 if difference == 0 else math.inf
    return difference / size


@pytest.fixture(scope="session")
def assert_close():
    """Hold the results of one network, by name, against the reference's: `which` is "forward" or "backward"."""

    def check(which, spec, steps, results, expected):
        for name, array in results.items():
            assert array.dtype == spec.dtype, name
        hold_against(which, spec.dtype, spec, steps, results, expected)

    return check


@pytest.fixture(scope="session")
def assert_near():
    """As assert_close, for results in float64 of a network that was computed in another type."""
    return hold_against


def hold_against(which, dtype, spec, steps, results, expected):
    assert results.keys() == expected.keys()
    tolerance = TOLERANCES[dtype][which](spec.hidden_size + spec.input_size, steps)
    for name, array in results.items():
        assert expected[name].dtype == np.float64, name
        error = relative_error(array, expected[name])
        assert error <= tolerance, f"{name}: error {error:.2e}, tolerance {tolerance:.2e}"


@pytest.fixture(autouse=True)
def settings():
    """What a test sets holds for that test alone; JAX keeps float32 unless a test says otherwise."""
    isa, threads = _core.isa(), fastrnn.get_num_threads()
    yield
    _core.set_isa(isa)
    _core.set_partition("automatic")
    fastrnn.set_num_threads(threads)
    if "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_enable_x64", False)


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Each instruction set in turn."""
    _core.set_isa(request.param)
    return request.param


@pytest.fixture
def cuda(monkeypatch):
    """`fastrnn._cuda` with the emulator in place of a device, whose memory is the host's."""
    import cuda_runner

    module = cuda_runner.load_module()
    if isinstance(module, str):
        pytest.skip(module)
    monkeypatch.setitem(sys.modules, "fastrnn._cuda", module)
    _device.cuda.cache_clear()
    yield module
    module.set_way("automatic")
    module.set_tf32(False)
    monkeypatch.undo()
    _device.cuda.cache_clear()

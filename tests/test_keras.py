"""`fastrnn.keras` in processes of their own, since a process has one of Keras' backends for good."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
BACKENDS = ("torch", "tensorflow", "jax")


def run(backend, *command, timeout=900):
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    # Much of the time would go to idle threads of PyTorch's, and to what XLA makes of Keras' own loops.
    environment |= {"OMP_NUM_THREADS": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, *map(str, command)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


def needs(*packages):
    for package in packages:
        if find_spec(package) is None:
            pytest.skip(f"could not import {package!r}")


def checks(backend, *options):
    """Runs pytest. A test that hangs tells where."""
    options = ("-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=300", *options)
    try:
        done = run(backend, "-m", "pytest", *options)
    except subprocess.TimeoutExpired as error:
        pytest.fail(f"{backend} did not end: {error.stdout}{error.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("backend", BACKENDS)
def test_backend(backend):
    needs("keras", backend)
    checks(backend, "-o", "python_files=check_*.py", FOLDER / "keras_checks")


@pytest.mark.parametrize("backend", BACKENDS)
def test_examples(backend):
    """All on PyTorch; one on the others, which they are run on in the same way."""
    needs("keras", backend, "sklearn", "statsmodels", "matplotlib")
    checks(backend, FOLDER / "keras_example_checks.py", *([] if backend == "torch" else ["-k", "test_forecasting"]))


@pytest.mark.parametrize(
    ("backend", "before", "reason"),
    [
        ("numpy", "", "Keras' backend numpy"),
        ("jax", "_core.xla_handlers = dict", "want of fastrnn.jax (this build of fastrnn has no kernels for JAX"),
    ],
)
def test_without_kernels(backend, before, reason):
    needs("keras", backend)
    program = """
import sys, warnings
import keras, numpy as np
from fastrnn import _core
exec(sys.argv[1])
import fastrnn.keras
x = np.ones((2, 3, 4), "float32")
ours, stock = fastrnn.keras.SimpleRNN(5), keras.layers.SimpleRNN(5)
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    y = ours(x)
print(*(str(w.message) for w in said if "fastrnn" in str(w.message)))
stock.build(x.shape)
stock.set_weights(ours.get_weights())
assert np.array_equal(y, stock(x))
assert fastrnn.native_calls() == 0
"""
    done = run(backend, "-c", program, before)
    assert done.returncode == 0, done.stderr
    assert reason in done.stdout


def test_without_keras():
    """What to install is told."""
    program = """
import sys
sys.modules["keras"] = None
import fastrnn
try:
    fastrnn.keras
except ModuleNotFoundError as error:
    print(error)
"""
    assert "pip install 'fastrnn[keras]'" in run("torch", "-c", program).stdout

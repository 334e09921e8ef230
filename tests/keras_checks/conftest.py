"""`test_keras.py` runs these files in a process for each of Keras' backends, KERAS_BACKEND."""

import keras
import pytest
from keras import layers
from twins import BACKEND

import fastrnn
from fastrnn.keras import _served
from fastrnn.keras._layers import STOCK

collect_ignore = [f"check_{other}.py" for other in {"torch", "tensorflow", "jax"} - {BACKEND}]


def pytest_collection_modifyitems(items):
    for item in items:  # of Keras' variables
        item.add_marker(pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"))


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(_served, "_warned", set())
    keras.utils.set_random_seed(0)


@pytest.fixture
def calls():
    """How many calls of the kernels there were since this was asked last."""
    before = fastrnn.native_calls()

    def since():
        nonlocal before
        before, last = fastrnn.native_calls(), before
        return before - last

    return since


@pytest.fixture
def switched_off():
    yield
    fastrnn.keras.disable()
    assert all(kind.inner_loop is loop for kind, loop in STOCK.items())
    assert not {"inner_loop", "supports_jit"} & vars(layers.SimpleRNN).keys()

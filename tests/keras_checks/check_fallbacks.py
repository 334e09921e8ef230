"""What the kernels do not serve runs in Keras' own loop, with one warning."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers
from twins import BACKEND, arrays, assert_same, every_kind, normal, twins

import fastrnn
import fastrnn.keras


class OwnCell(layers.LSTMCell):
    """Somebody's own."""


class OwnLayer(fastrnn.keras.LSTM):
    def __init__(self, units, **options):
        super().__init__(units, **options)
        self.cell = OwnCell(units, dtype=options.get("dtype"))


FALLBACKS = [
    ("LSTM", {"activation": "selu"}, {}, "activation selu with recurrent_activation sigmoid"),
    ("GRU", {"recurrent_activation": "relu6"}, {}, "with recurrent_activation relu6"),
    ("SimpleRNN", {"activation": functools.partial(keras.activations.relu, max_value=1)}, {}, "activation partial"),
    ("SimpleRNN", {"activation": layers.LeakyReLU()}, {}, "activation LeakyReLU"),
    ("LSTM", {"unroll": True}, {}, "unroll=True"),
    ("GRU", {"dtype": "mixed_bfloat16"}, {}, "computing in bfloat16"),
    ("LSTM", {"dtype": "mixed_float16"}, {}, "computing in float16"),
    ("LSTM", {"recurrent_dropout": 0.3, "seed": 1}, {"training": True}, "recurrent_dropout"),
    ("GRU", {"recurrent_dropout": 0.3, "seed": 1}, {"training": True}, "recurrent_dropout"),
    ("SimpleRNN", {"recurrent_dropout": 0.3, "seed": 1}, {"training": True}, "recurrent_dropout"),
]


@pytest.mark.parametrize(("kind", "options", "call", "reason"), FALLBACKS[:: 3 if BACKEND == "jax" else 1])
def test_fallback(kind, options, call, reason, calls):
    """Keras' results, no call of the kernels, and one warning."""
    x = normal(3, 5, 4)
    stock, ours = twins(kind, x.shape, **options)
    expected = arrays(stock(x, **call))
    name = f"fastrnn.keras, {kind}: Keras' own loop ran, not fastrnn's kernels, for "
    with pytest.warns(UserWarning, match=name + f".*{reason}") as said:
        found = arrays(ours(x, **call))
    assert __file__ in [warning.filename for warning in said]  # here is the call that it is about
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(x, **call)
    assert calls() == 0


def test_a_cell_of_somebodys_own(calls):
    layer = OwnLayer(4)
    with pytest.warns(UserWarning, match="a cell of class OwnCell"):
        layer(normal(2, 3, 4))
    assert calls() == 0


def test_no_features(calls):
    stock, ours = twins("GRU", (3, 5, 0))
    expected = arrays(stock(normal(3, 5, 0)))
    with pytest.warns(UserWarning, match="an input without features"):
        assert_same(arrays(ours(normal(3, 5, 0))), expected)
    assert calls() == 0


@every_kind
def test_recurrent_dropout_is_of_training_alone(kind, calls):
    stock, ours = twins(kind, (3, 5, 4), recurrent_dropout=0.3)
    assert_same(arrays(ours(normal(3, 5, 4))), arrays(stock(normal(3, 5, 4))))
    assert calls() == 1

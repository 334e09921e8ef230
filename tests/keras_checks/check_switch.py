"""`enable` and `disable`."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import fitted, stock_fitted
from twins import arrays, assert_same, every_kind, masks, normal, twins

import fastrnn
import fastrnn.keras


@every_kind
@pytest.mark.usefixtures("switched_off")
def test_enable(kind, calls):
    x, mask = normal(3, 6, 4), ops.convert_to_tensor(masks(6)["right"])
    layer, _ = twins(kind, x.shape, return_sequences=True)
    expected = arrays(layer(x, mask=mask))
    assert calls() == 0
    with fastrnn.keras.enable():
        assert_same(arrays(layer(x, mask=mask)), expected)
        assert calls() == 1
        with fastrnn.keras.disable():
            layer(x)
            assert calls() == 0
            with fastrnn.keras.enable():
                layer(x)
                assert calls() == 1
        layer(x)
        assert calls() == 1
    layer(x)
    assert calls() == 0
    fastrnn.keras.enable()
    fastrnn.keras.enable()
    layer(x)
    assert calls() == 1
    fastrnn.keras.disable()
    layer(x)
    assert calls() == 0


@every_kind
@pytest.mark.usefixtures("switched_off")
def test_a_program_that_cannot_be_edited(kind, calls, tmp_path):
    _, expected = stock_fitted(kind)
    calls()
    with fastrnn.keras.enable():
        model, losses = fitted(layers, kind)
        assert calls() >= 2 * 2 * 3 * 2
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    model.save(tmp_path / "model.keras")
    assert type(keras.models.load_model(tmp_path / "model.keras").layers[2]) is getattr(layers, kind)


@pytest.mark.usefixtures("switched_off")
def test_enabled_layers_fall_back(calls):
    layer, _ = twins("LSTM", (3, 5, 4), activation="selu")
    expected = arrays(layer(normal(3, 5, 4)))
    with fastrnn.keras.enable(), pytest.warns(UserWarning, match="activation selu"):
        np.testing.assert_array_equal(arrays(layer(normal(3, 5, 4)))[0], expected[0])
    assert calls() == 0

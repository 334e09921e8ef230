"""Whole models: training, files, states that are carried."""

import copy

import keras
import numpy as np
import pytest
from keras import layers
from models import fitted, stock_fitted, texts
from twins import BACKEND, EAGERLY, KINDS, every_kind, normal

import fastrnn
import fastrnn.keras


@pytest.mark.parametrize("kind", KINDS if BACKEND != "jax" else ("LSTM",))
def test_training(kind, calls, tmp_path):
    """`fit`, `evaluate`, `predict`, `save`, `load_model` and copies, as `compile` has it by default."""
    words, labels = texts()
    theirs, expected = stock_fitted(kind)
    calls()
    ours, losses = fitted(fastrnn.keras, kind)
    assert calls() >= 2 * 2 * 3 * 2  # epochs, batches, layers, forward and backward
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(ours.evaluate(words, labels, verbose=0), theirs.evaluate(words, labels, verbose=0), 1e-3)
    expected = theirs.predict(words, verbose=0)
    calls()
    found = ours.predict(words, verbose=0)
    assert calls() == 3
    np.testing.assert_allclose(found, expected, atol=1e-4)

    ours.save(tmp_path / "model.keras")
    copies = {
        "loaded": keras.models.load_model(tmp_path / "model.keras"),
        "cloned": keras.models.clone_model(ours),
        "copied": copy.deepcopy(ours),
    }
    copies["cloned"].set_weights(ours.get_weights())
    for name, model in copies.items():
        assert type(model.layers[2]) is getattr(fastrnn.keras, kind), name
        np.testing.assert_array_equal(model.predict_on_batch(words), ours.predict_on_batch(words), err_msg=name)


def test_config():
    for kind in KINDS:
        layer = getattr(fastrnn.keras, kind)(7, dropout=0.1, go_backwards=True, kernel_regularizer="l2", name="it")
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        config = keras.saving.serialize_keras_object(layer)
        assert config["module"] == "fastrnn.keras"
        assert config["registered_name"] == f"fastrnn>{kind}"
        assert isinstance(layer, getattr(layers, kind))


def test_functional_model_with_lengths_of_its_own(calls):
    """Encoder and decoder: states go from one layer to the other, and T is not known beforehand."""
    source, target = keras.Input((None, 3)), keras.Input((None, 3))
    _, *states = fastrnn.keras.LSTM(5, return_state=True)(layers.Masking()(source))
    y = fastrnn.keras.LSTM(5, return_sequences=True)(target, initial_state=states)
    model = keras.Model([source, target], layers.Dense(2)(y))
    model.compile("sgd", "mse")
    for steps in (2, 5):
        model.fit([normal(4, steps, 3), normal(4, steps + 1, 3)], normal(4, steps + 1, 2), verbose=0)
    assert model.predict([normal(4, 3, 3), normal(4, 7, 3)], verbose=0).shape == (4, 7, 2)
    assert calls() == 10


@every_kind
def test_training_with_states_across_batches(kind, calls):
    """Truncated backpropagation through time. (Keras' faster loop for PyTorch fails there, its plain one does not.)"""
    results = []
    for home, options in ((layers, {} if kind == "SimpleRNN" else {"use_cudnn": False}), (fastrnn.keras, {})):
        keras.utils.set_random_seed(1)
        recurrent = getattr(home, kind)(5, stateful=True, return_sequences=True, **options)
        model = keras.Sequential([keras.Input(batch_shape=(2, 4, 3)), recurrent, layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1, clipnorm=1.0), "mse", run_eagerly=EAGERLY and home is layers)
        losses = [model.train_on_batch(normal(2, 4, 3, seed=k), normal(2, 4, 1, seed=k)) for k in range(4)]
        results.append([losses, model.predict(normal(2, 4, 3), batch_size=2, verbose=0)])
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-5)
    assert calls() == 9


@pytest.mark.parametrize("kind", KINDS)
def test_relu_in_a_model(kind, calls, tmp_path):
    """As common tutorials have it, in an LSTM, and as `compile` has it by default; and read back from a file."""
    x, results = normal(8, 4, 1), []
    for home in (layers, fastrnn.keras):
        keras.utils.set_random_seed(1)
        recurrent = layers.Bidirectional(getattr(home, kind)(9, activation="relu"))
        model = keras.Sequential([keras.Input((4, 1)), recurrent, layers.Dense(1)])
        model.compile("adam", "mse", run_eagerly=EAGERLY and home is layers)
        losses = model.fit(x, x[:, -1], batch_size=4, shuffle=False, verbose=0).history["loss"]
        results.append([losses, model.predict(x, verbose=0)])
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-4)
    np.testing.assert_allclose(results[1][1], results[0][1], atol=1e-4)
    assert calls() == 2 * 2 * 2 + 2  # batches, directions, forward and backward; predict
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), results[1][1])
    assert calls() == 2


class Inside(keras.Model):
    """A model whose layers Keras cannot see until it is called."""

    def __init__(self, home):
        super().__init__()
        self.recurrent = home.LSTM(4, return_sequences=True)
        self.head = layers.Dense(1)

    def call(self, x, mask=None):
        return self.head(self.recurrent(x, mask=mask)[:, -1])


def test_subclassed_model(calls):
    model = Inside(fastrnn.keras)
    model.compile("sgd", "mse")
    model.fit(normal(8, 5, 3), normal(8, 1), batch_size=4, verbose=0)
    assert calls() >= 4
    outer = keras.Input((5, 3))
    keras.Model(outer, model(outer))

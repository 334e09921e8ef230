"""On TensorFlow alone: functions, XLA, gradients."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from twins import arrays, assert_same, every_kind, gradients, masks, normal, twins, weighted

import fastrnn
import fastrnn.keras


@every_kind
def test_function_of_any_shape(kind, calls):
    """One trace, with T and B not known in it."""
    stock, ours = twins(kind, (3, 6, 4), return_sequences=True, go_backwards=True)
    traces = []

    def both(layer):
        @tf.function(
            input_signature=[tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.bool)],
            reduce_retracing=True,
        )
        def step(x, mask):
            traces.append(layer)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, mask=mask)
                loss = tf.reduce_sum(y**2)
            assert y.shape.as_list() == [None, None, 5]
            return [y, *tape.gradient(loss, [x, *(v.value for v in layer.trainable_weights)])]

        return step

    functions = both(stock), both(ours)
    for steps, name in itertools.product((6, 2), ("right", "holes")):
        expected, found = (arrays(function(normal(3, steps, 4), masks(steps)[name])) for function in functions)
        assert_same(found, expected)
    assert len(traces) == 2
    assert calls() >= 8
    for shape in ((2, 2), (3, 4)):
        with pytest.raises(tf.errors.OpError):
            functions[1](normal(3, 2, 4), np.ones(shape, bool))


@every_kind
@pytest.mark.usefixtures("switched_off")
def test_xla(kind, calls):
    """It cannot call the kernels: `compile` leaves it out, and where it is asked for, Keras' own loop runs."""
    stock, ours = twins(kind, (3, 6, 4))
    assert stock.supports_jit
    assert not ours.supports_jit
    with fastrnn.keras.enable():
        assert not stock.supports_jit
    assert getattr(fastrnn.keras, kind)(3, activation="selu").supports_jit
    compiled = tf.function(lambda x: ours(x), jit_compile=True)
    with pytest.warns(UserWarning, match="a function that XLA compiles"):
        found = compiled(normal(3, 6, 4))
    assert calls() == 0
    assert_same(arrays(found), arrays(stock(normal(3, 6, 4))))
    model = keras.Sequential([ours])
    with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
        model.compile("sgd", "mse", jit_compile=True)
    model.fit(normal(3, 6, 4), normal(3, 5), verbose=0)
    assert calls() == 2


@every_kind
@pytest.mark.parametrize("graph", [False, True])
def test_gradients_outside_of_training(kind, graph):
    """What backward needs was not kept there, and is computed again."""
    stock, ours = twins(kind, (3, 6, 4), return_sequences=True)
    if not graph:
        for a, b in zip(gradients(ours, normal(3, 6, 4)), gradients(stock, normal(3, 6, 4)), strict=True):
            assert_same(a, b)
        return

    @tf.function
    def step(layer, x, training):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = weighted(layer(x, training=training))
        return tape.gradient(loss, x)

    x = tf.constant(normal(3, 6, 4))
    found = [arrays(step(layer, x, training)) for layer in (ours, stock) for training in (True, False)]
    for other in found[1:]:
        assert_same(other, found[0])


def test_second_derivatives_are_refused(calls):
    _, ours = twins("LSTM", (2, 4, 3))
    x = tf.constant(normal(2, 4, 3))
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = tf.reduce_sum(ours(x))
        square = tf.reduce_sum(inner.gradient(loss, x) ** 2)
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        outer.gradient(square, x)

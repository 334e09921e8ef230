"""Keras' layers and those of `fastrnn.keras` with the same weights, and what to hold of the two against each other."""

import contextlib
import os
import sys

if os.environ.get("KERAS_BACKEND") != "tensorflow":
    sys.modules["tensorflow"] = None  # Keras, on another backend, would import it to seed it, for seconds

import keras
import numpy as np
import pytest
from keras import layers, ops

import fastrnn.keras

BACKEND = keras.backend.backend()
KINDS = ("LSTM", "GRU", "SimpleRNN")

if BACKEND == "torch":
    import torch
elif BACKEND == "tensorflow":
    import tensorflow as tf
else:
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)  # what a call runs is counted when it ends
# As which Keras' own loops run in `fit`: XLA takes ten times as long to compile them from TensorFlow.
EAGERLY = BACKEND == "tensorflow"
# Where each test takes long to compile, those of other things than parity do with fewer kinds.
every_kind = pytest.mark.parametrize(
    "kind", {"torch": KINDS, "tensorflow": ("LSTM", "SimpleRNN"), "jax": ("LSTM",)}[BACKEND]
)


def make(home, kind, units, merge_mode=False, **options):
    """A layer of Keras' or of ours, with a merge_mode both ways."""
    layer = getattr(home, kind)(units, **options)
    if home is layers and BACKEND == "torch" and layer.stateful and kind != "SimpleRNN":
        layer.use_cudnn = False  # Keras' faster loop fails there
    return layer if merge_mode is False else layers.Bidirectional(layer, merge_mode=merge_mode, dtype=options["dtype"])


def twins(kind, shape, units=5, **options):
    """Keras' layer and ours with its weights and, of a stateful one, states, for inputs of a shape (B, T, I)."""
    options = {"dtype": "float32"} | options
    pair = make(layers, kind, units, **options), make(fastrnn.keras, kind, units, **options)
    random = np.random.default_rng(3)
    for layer in pair:
        layer.build(shape)
    bound = (0.4 if "recurrent_activation" in options else 1.5) / units**0.5  # of other gates h grows beyond bounds
    pair[0].set_weights([random.uniform(-bound, bound, w.shape) for w in pair[0].get_weights()])
    for variable in carried(pair[0]):
        variable.assign(random.uniform(-1, 1, variable.shape))
    variables = [[*layer.variables, *carried(layer)] for layer in pair]  # also what the dropout masks are drawn with
    for theirs, own in zip(*variables, strict=True):
        own.assign(theirs.value)
    return pair


def carried(layer):
    """The variables that have a stateful layer's states."""
    parts = [layer.forward_layer, layer.backward_layer] if isinstance(layer, layers.Bidirectional) else [layer]
    return [variable for part in parts for variable in part.states or ()]


def of_dtype(dtype):
    """In which tensors can have that type: float64 is a mode of JAX."""
    return jax.enable_x64(True) if (BACKEND, dtype) == ("jax", "float64") else contextlib.nullcontext()


def normal(*shape, dtype="float32", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def arrays(result):
    return [ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(result)]


def weighted(results):
    """A loss of all results that no two elements have the same part in."""
    random = np.random.default_rng(4)
    return sum(ops.sum(r * ops.cast(random.standard_normal(r.shape), r.dtype)) for r in keras.tree.flatten(results))


def gradients(layer, x, states=(), **call):
    """A layer's results, and the gradients of a loss of them: with respect to x, the states and the weights."""
    keras.utils.set_random_seed(0)
    x, *states = (ops.convert_to_tensor(a) for a in (x, *states))

    def results_of(function, x, *states):
        return function(x, **({"initial_state": list(states)} if states else {}), **call)

    if BACKEND == "torch":
        inputs = [t.detach().clone().requires_grad_() for t in (x, *states)]
        results = results_of(layer, *inputs)
        sources = [*inputs, *(variable.value for variable in layer.trainable_weights)]
        found = torch.autograd.grad(weighted(results), sources)
    elif BACKEND == "tensorflow":
        sources = [x, *states, *(variable.value for variable in layer.trainable_weights)]
        with tf.GradientTape() as tape:
            tape.watch([x, *states])
            results = results_of(layer, x, *states)
            loss = weighted(results)
        found = [tf.convert_to_tensor(g) for g in tape.gradient(loss, sources)]
    else:
        fixed = [variable.value for variable in layer.non_trainable_variables]

        def loss_of(weights, *inputs):
            def function(x, **call):
                return layer.stateless_call(weights, fixed, x, **call)[0]

            results = results_of(function, *inputs)
            return weighted(results), results

        weights = [variable.value for variable in layer.trainable_weights]
        every = tuple(range(2 + len(states)))
        program = jax.jit(jax.value_and_grad(loss_of, argnums=every, has_aux=True))
        (_, results), found = program(weights, x, *states)
        found = [*found[1:], *found[0]]
    return arrays(results), arrays(found)


def assert_same(ours, stock, tolerance=1e-5):
    """Arrays in two lists, but for rounding: the bound is relative to the largest element."""
    assert len(ours) == len(stock)
    for index, (a, b) in enumerate(zip(ours, stock, strict=True)):
        assert a.shape == b.shape, index
        assert a.dtype == b.dtype, index
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)), err_msg=str(index))


def masks(steps):
    """Of three rows, by name."""
    step, lengths = np.arange(steps), np.array([[steps], [(steps + 1) // 2], [1]])
    return {
        "right": step < lengths,
        "right-empty": step < lengths - 1,
        "left": step >= steps - lengths,
        "holes": np.random.default_rng(5).random((3, steps)) < 0.6,
        "full": np.ones((3, steps), bool),
    }

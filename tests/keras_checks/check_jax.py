"""On JAX alone: transformations."""

import jax
import numpy as np
import pytest
from twins import arrays, assert_same, every_kind, masks, normal, twins


@every_kind
def test_transformed(kind, calls):
    """`jit`, `vmap` and `grad` in one."""
    stock, ours = twins(kind, (3, 6, 4), return_sequences=True)
    mask = masks(6)["holes"]
    x = normal(2, 3, 6, 4)

    def program(layer):
        weights = [variable.value for variable in layer.trainable_weights]
        fixed = [variable.value for variable in layer.non_trainable_variables]

        def loss(weights, x):
            return (layer.stateless_call(weights, fixed, x, mask=mask)[0] ** 2).sum()

        return jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, 0))), weights

    expected, found = (arrays(function(weights, x)) for function, weights in map(program, (stock, ours)))
    assert_same(found, expected)
    assert calls() == 4


def test_large_arrays_under_jit():
    """Which XLA may hand over while they are still being written: nothing waits for ever."""
    _, ours = twins("LSTM", (64, 100, 64), units=64)
    x = normal(64, 100, 64)
    weights = [variable.value for variable in ours.trainable_weights]
    fixed = [variable.value for variable in ours.non_trainable_variables]
    step = jax.jit(jax.grad(lambda w, x: (ours.stateless_call(w, fixed, x)[0] ** 2).sum()))
    for _ in range(5):
        found = step(weights, x)
    assert all(np.isfinite(a).all() for a in arrays(found))


def test_second_derivatives_are_refused():
    _, ours = twins("LSTM", (2, 4, 3))
    with pytest.raises(ValueError, match=r"`fastrnn_\w+` cannot be differentiated"):
        jax.hessian(lambda x: ours(x).sum())(normal(2, 4, 3))

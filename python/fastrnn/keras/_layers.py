"""The layers."""

from __future__ import annotations

from typing import Any

import keras

from . import _loop, _served

# As they are before anybody puts something else in their place.
STOCK = {kind: kind.inner_loop for kind in (keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)}


class SupportsJit:
    """The attribute `supports_jit`, by which `compile` decides whether XLA compiles a model. From TensorFlow it cannot
    call the kernels."""

    def __get__(self, layer: Any, owner: type) -> Any:
        if layer is None:
            return self
        own = layer.__dict__.get("supports_jit", True)
        return own and not (keras.backend.backend() == "tensorflow" and _served.cell_of(layer) is not None)

    def __set__(self, layer: Any, value: bool) -> None:
        layer.__dict__["supports_jit"] = value


def looper(stock: type) -> Any:
    """The method `inner_loop` for a class of Keras' and those under it."""

    def inner_loop(self: Any, sequences: Any, initial_state: Any, mask: Any, training: Any = False) -> Any:
        return _loop.inner_loop(STOCK[stock], self, sequences, initial_state, mask, training)

    return inner_loop


@keras.saving.register_keras_serializable("fastrnn")
class LSTM(keras.layers.LSTM):
    """A long short-term memory in place of `keras.layers.LSTM`: the same arguments, weights, calls and results.

    The kernels serve it on the CPU, in float32 and float64, with any mask. As an activation they have tanh, sigmoid,
    relu, linear, elu, softplus, softsign, hard_sigmoid and, on JAX, leaky_relu: Keras' own functions, or their names.
    A call that they do not serve, as one that trains with `recurrent_dropout`, runs Keras' own loop, and a warning says
    why, once.

    As in Keras, a call is `layer(sequence, initial_state=None, mask=None, training=False)`: sequence (B, T, I), states
    (B, units) each, h and c, mask (B, T) of bool. It gives the last output, (B, units); with `return_sequences` all of
    them, (B, T, units); with `return_state` the last states, too. Errors are Keras' own. The equations are those of
    `fastrnn.LSTM`; `fastrnn.weights` turns its parameters into `set_weights`' and back.
    """

    inner_loop = looper(keras.layers.LSTM)
    supports_jit = SupportsJit()


@keras.saving.register_keras_serializable("fastrnn")
class GRU(keras.layers.GRU):
    """A gated recurrent unit in place of `keras.layers.GRU`: the same arguments, weights, calls and results.

    The kernels serve both variants, `reset_after=True` and `False`; the state is h alone. All else is as for `LSTM`.
    """

    inner_loop = looper(keras.layers.GRU)
    supports_jit = SupportsJit()


@keras.saving.register_keras_serializable("fastrnn")
class SimpleRNN(keras.layers.SimpleRNN):
    """An Elman network in place of `keras.layers.SimpleRNN`: the same arguments, weights, calls and results.

    The state is h alone. All else is as for `LSTM`.
    """

    inner_loop = looper(keras.layers.SimpleRNN)
    supports_jit = SupportsJit()

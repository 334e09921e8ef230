"""The kernels under Keras on TensorFlow: `tf.numpy_function` with a gradient of its own, eagerly and in `tf.function`.

XLA cannot compile such a call, nor can a SavedModel hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import tensorflow as tf
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from . import _arrays
from ._served import Cell


def refuses(x: tf.Tensor, kernel: tf.Tensor, cell: Cell) -> str | None:
    if tf.config.list_logical_devices("GPU"):
        return "tensors on a GPU (this build has kernels for the CPU)"
    if not tf.executing_eagerly() and GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        return "a function that XLA compiles (jit_compile=True)"
    return None


def branches() -> bool:
    return True


def run(
    cell: Cell,
    x: tf.Tensor,
    states: Sequence[tf.Tensor],
    weights: Sequence[tf.Tensor],
    lengths: tf.Tensor | None,
    *,
    sequences: bool,
    training: bool,
) -> tuple[tf.Tensor | None, list[tf.Tensor]]:
    """What backward needs is kept in training; elsewhere a gradient, should one be asked for, computes it again."""
    dtype, count, units = x.dtype, len(states), weights[1].shape[1]
    lengths = tf.zeros(0, tf.int64) if lengths is None else tf.cast(lengths, tf.int64)

    @tf.custom_gradient
    def network(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
        types = [dtype] * (1 + count) + [tf.uint8] * training
        results = _call(partial(_arrays.forward, cell, training), [lengths, *inputs], types)
        y, finals, tape = results[0], results[1 : 1 + count], results[1 + count :]
        y.set_shape((*inputs[0].shape[:2], units))
        for final in finals:
            final.set_shape((inputs[0].shape[0], units))
        outputs = [y, *finals] if sequences else finals

        def gradient(*derivatives: tf.Tensor) -> list[tf.Tensor]:
            function = partial(_arrays.backward, cell, training, sequences)
            saved = [y, *tape] if training else []
            return _once(function, [lengths, *saved], [*derivatives, *inputs], inputs)

        return outputs, gradient

    y, *finals = network(x, *states, *weights) if sequences else (None, *network(x, *states, *weights))
    return y, finals


def _call(function: Any, inputs: Sequence[tf.Tensor], types: Sequence[tf.DType]) -> list[tf.Tensor]:
    results = tf.numpy_function(function, inputs, types, stateful=False)
    return list(results) if isinstance(results, (list, tuple)) else [results]


def _once(function: Any, saved: Sequence[tf.Tensor], inputs: Sequence[tf.Tensor], like: Sequence[tf.Tensor]) -> Any:
    """Derivatives, of the shapes of `like`, that cannot be differentiated again: TensorFlow would take them for
    constant and give wrong second derivatives."""

    @tf.custom_gradient
    def derivatives(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], Any]:
        found = _call(function, [*saved, *inputs], [tensor.dtype for tensor in like])
        for derivative, tensor in zip(found, like, strict=True):
            derivative.set_shape(tensor.shape)

        def gradient(*_: tf.Tensor) -> Any:
            raise NotImplementedError(
                "fastrnn.keras: the kernels have no second derivatives on TensorFlow; "
                "use Keras' own layer, or fastrnn.keras.disable(), where they are needed"
            )

        return found, gradient

    return derivatives(*inputs)

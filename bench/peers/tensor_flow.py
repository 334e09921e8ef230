"""TensorFlow: Keras layers in a `tf.function`, training with a `GradientTape` inside of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # it would tell much, none of it about wrong answers
os.environ["KERAS_BACKEND"] = "tensorflow"

import numpy as np
import tensorflow as tf

from fastrnn import weights
from grid import Case
from problem import Answer, Problem, answer

from .base import Peer


class TensorFlow(Peer):
    version = tf.__version__

    def __init__(self, threads: int) -> None:
        tf.get_logger().setLevel("ERROR")  # it warns of a new function for each case
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)

    def supports(self, case: Case) -> bool:
        return True

    def prepare(self, problem: Problem) -> Callable[[], Any]:
        case = problem.case
        layer = _layer(problem)
        x = tf.constant(_batch_first(problem.x))
        state = [tf.zeros(array.shape[1:], case.dtype) for array in problem.dstate]
        mask = None
        if problem.lengths is not None:
            mask = tf.sequence_mask(problem.lengths, case.steps)

        function = tf.function(jit_compile=case.shape.batch == 1)  # XLA is the faster one with a single row only

        @function
        def infer(x: tf.Tensor, state: list[tf.Tensor]) -> Any:
            y, *state = layer(x, initial_state=state, mask=mask)
            return y, state

        @function
        def train(x: tf.Tensor, state: list[tf.Tensor], dresult: list[tf.Tensor]) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y, state = infer(x, state)
            sources = [x, *(variable.value for variable in layer.trainable_variables)]
            return y, state, tape.gradient([y, *state], sources, dresult)

        if case.streaming:
            infer(x, state)  # traces

            def step() -> Any:
                nonlocal state
                y, state = infer(x, state)
                return y, state

            return step

        if case.training:
            dresult = [tf.constant(_batch_first(problem.dy)), *(tf.constant(array[0]) for array in problem.dstate)]
            train(x, state, dresult)
            return lambda: train(x, state, dresult)

        infer(x, state)
        return lambda: infer(x, state)

    def answer(self, problem: Problem, result: Any) -> Answer:
        y, state, *gradients = tf.nest.map_structure(lambda tensor: tensor.numpy(), result)
        y, state = _batch_first(y), tuple(array[None] for array in state)
        if not gradients:
            return answer(y, state)
        dx, *dweights = gradients[0]
        cell = problem.case.cell
        dparameters = weights.from_keras(cell.split("_")[0], dweights, reset_after=cell != "gru_reset_before")
        if dweights[-1].ndim == 1:  # one bias has the gradient of either
            dparameters["bias_hh_l0"] = dparameters["bias_ih_l0"]
        return answer(y, state, _batch_first(dx), dparameters)


def _layer(problem: Problem) -> Any:
    case = problem.case
    kind, _, variant = case.cell.partition("_")
    make, options = {
        "lstm": (tf.keras.layers.LSTM, {}),
        "gru": (tf.keras.layers.GRU, {"reset_after": not variant}),
        "rnn": (tf.keras.layers.SimpleRNN, {"activation": variant}),
    }[kind]
    options |= {"return_sequences": True, "return_state": True, "zero_output_for_mask": True, "dtype": case.dtype}
    layer = make(case.shape.hidden, **options)
    layer.build((case.shape.batch, case.steps, case.shape.input))
    layer.set_weights(weights.to_keras(kind, problem.parameters, reset_after=not variant))
    return layer


def _batch_first(array: Any) -> Any:
    """From (T, B, …) to (B, T, …), or back."""
    return np.ascontiguousarray(array.swapaxes(0, 1))

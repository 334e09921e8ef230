"""fastrnn.jax: functions in a program that JAX compiles; gradients by `vjp` in the same `jit`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fastrnn
import fastrnn.jax
from grid import Case
from problem import Answer, Problem, answer

from .fastrnn import Adapter

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "lstm": fastrnn.jax.lstm,
    "gru": fastrnn.jax.gru,
    "gru_reset_before": partial(fastrnn.jax.gru, reset_after=False),
    "rnn_tanh": fastrnn.jax.rnn,
    "rnn_relu": partial(fastrnn.jax.rnn, nonlinearity="relu"),
    "rnn_sigmoid": partial(fastrnn.jax.rnn, nonlinearity="sigmoid"),
}


class FastrnnJax(Adapter):
    version = f"{fastrnn.__version__} on JAX {jax.__version__}"

    def supports(self, case: Case) -> bool:
        return case.cell in FUNCTIONS

    def prepare(self, problem: Problem) -> Callable[[], Any]:
        case = problem.case
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        jax.config.update("jax_platforms", "cpu")
        call = FUNCTIONS[case.cell]
        weights = {name: jnp.asarray(array) for name, array in problem.parameters.items()}
        x = jnp.asarray(problem.x)
        lengths = None if problem.lengths is None else jnp.asarray(problem.lengths, jnp.int32)

        if case.streaming:
            step = jax.jit(call)
            zeros = tuple(jnp.zeros_like(array) for array in problem.dstate)
            state = zeros if len(zeros) > 1 else zeros[0]
            jax.block_until_ready(step(x, weights, state))

            def go_on() -> Any:
                nonlocal state
                y, state = jax.block_until_ready(step(x, weights, state))
                return y, state

            return go_on

        def infer(weights: Any, x: Any, lengths: Any) -> Any:
            return call(x, weights, lengths=lengths)

        def train(weights: Any, x: Any, lengths: Any, dresult: Any) -> Any:
            result, backward = jax.vjp(lambda weights, x: infer(weights, x, lengths), weights, x)
            return *result, backward(dresult)

        arguments: tuple[Any, ...] = (weights, x, lengths)
        if case.training:
            dstate = tuple(map(jnp.asarray, problem.dstate))
            arguments += ((jnp.asarray(problem.dy), dstate if len(dstate) > 1 else dstate[0]),)
        compiled = jax.jit(train if case.training else infer)

        def run() -> Any:
            return jax.block_until_ready(compiled(*arguments))

        run()  # compiles
        return run

    def answer(self, problem: Problem, result: Any) -> Answer:
        y, state, *gradients = jax.tree.map(np.asarray, result)
        if not gradients:
            return answer(y, state)
        dweights, dx = gradients[0]
        return answer(y, state, dx, dweights)

"""JAX: `lax.scan` over time under `jit`, after one product of all inputs; gradients by `vjp` in the same `jit`.

XLA sizes its thread pool when it starts, by NPROC in the environment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from grid import Case
from problem import Answer, Problem, answer

from .base import Peer

State = tuple[jax.Array, ...]  # (h,) or (h, c)
Step = Callable[[jax.Array, State], State]  # from the inputs' part of the gates and the state before
Weights = dict[str, jax.Array]  # by our names, matrices as (inputs, gates * units)


class JAX(Peer):
    version = jax.__version__

    def __init__(self, threads: int) -> None:
        os.environ["NPROC"] = str(threads)

    def supports(self, case: Case) -> bool:
        return True

    def prepare(self, problem: Problem) -> Callable[[], Any]:
        case = problem.case
        jax.config.update("jax_enable_x64", case.dtype == "float64")
        jax.config.update("jax_platforms", "cpu")
        forward = partial(_forward, case.cell)
        weights = {name: jnp.asarray(array.T) for name, array in problem.parameters.items()}
        x = jnp.asarray(problem.x)
        state = tuple(jnp.zeros_like(array[0]) for array in problem.dstate)

        if case.streaming:
            compiled = jax.jit(forward)
            jax.block_until_ready(compiled(weights, x, state))

            def step() -> Any:
                nonlocal state
                y, state = jax.block_until_ready(compiled(weights, x, state))
                return y, state

            return step

        arguments = [weights, x, state]
        if problem.lengths is not None:
            steps = np.arange(case.steps)[:, None]
            arguments.append(jnp.asarray((steps < problem.lengths)[..., None]))
        if case.training:
            arguments = [(jnp.asarray(problem.dy), tuple(jnp.asarray(d[0]) for d in problem.dstate)), *arguments]
            compiled = jax.jit(partial(_train, forward))
        else:
            compiled = jax.jit(forward)

        def run() -> Any:
            return jax.block_until_ready(compiled(*arguments))

        run()  # compiles
        return run

    def answer(self, problem: Problem, result: Any) -> Answer:
        y, state, *gradients = jax.tree.map(np.asarray, result)
        state = tuple(array[None] for array in state)
        if not gradients:
            return answer(y, state)
        dweights, dx = gradients[0]
        return answer(y, state, dx, {name: array.T for name, array in dweights.items()})


def _train(forward: Callable[..., Any], dresult: Any, weights: Weights, x: jax.Array, *rest: Any) -> Any:
    result, backward = jax.vjp(lambda weights, x: forward(weights, x, *rest), weights, x)
    return *result, backward(dresult)


def _forward(
    cell: str, weights: Weights, x: jax.Array, state: State, mask: jax.Array | None = None
) -> tuple[jax.Array, State]:
    """y and the last state. Where the mask, (T, B, 1), is false, the state stays and y is 0."""
    b_ih, b_hh = weights["bias_ih_l0"], weights["bias_hh_l0"]
    b_n = None
    if cell == "gru":  # the reset gate scales this one bias, and not the sum of two
        b_rz, b_n = jnp.split(b_hh, [len(b_hh) // 3 * 2])
        b_hh = jnp.concatenate([b_rz, jnp.zeros_like(b_n)])
    inputs, bias = x @ weights["weight_ih_l0"], b_ih + b_hh  # added in the steps, which is faster than here
    step = STEPS[cell](weights["weight_hh_l0"], b_n)

    def plain(state: State, gates: jax.Array) -> tuple[State, jax.Array]:
        state = step(gates + bias, state)
        return state, state[0]

    def masked(state: State, now: tuple[jax.Array, jax.Array]) -> tuple[State, jax.Array]:
        gates, inside = now
        after = step(gates + bias, state)
        kept = tuple(jnp.where(inside, new, old) for new, old in zip(after, state, strict=True))
        return kept, jnp.where(inside, after[0], 0)

    state, y = jax.lax.scan(plain, state, inputs) if mask is None else jax.lax.scan(masked, state, (inputs, mask))
    return y, state


def _lstm(R: jax.Array, _: None) -> Step:
    def step(gates: jax.Array, state: State) -> State:
        h, c = state
        i, f, g, o = jnp.split(gates + h @ R, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        return jax.nn.sigmoid(o) * jnp.tanh(c), c

    return step


def _gru(R: jax.Array, b_n: jax.Array) -> Step:
    def step(gates: jax.Array, state: State) -> State:
        (h,) = state
        a_r, a_z, a_n = jnp.split(gates, 3, axis=-1)
        u_r, u_z, u_n = jnp.split(h @ R, 3, axis=-1)
        r, z = jax.nn.sigmoid(a_r + u_r), jax.nn.sigmoid(a_z + u_z)
        n = jnp.tanh(a_n + r * (u_n + b_n))
        return ((1 - z) * n + z * h,)

    return step


def _gru_reset_before(R: jax.Array, _: None) -> Step:
    R_rz, R_n = jnp.split(R, [2 * len(R)], axis=-1)

    def step(gates: jax.Array, state: State) -> State:
        (h,) = state
        a_rz, a_n = jnp.split(gates, [2 * len(R)], axis=-1)
        r, z = jnp.split(jax.nn.sigmoid(a_rz + h @ R_rz), 2, axis=-1)
        n = jnp.tanh(a_n + (r * h) @ R_n)
        return ((1 - z) * n + z * h,)

    return step


def _rnn(activation: Callable[[jax.Array], jax.Array], R: jax.Array, _: None) -> Step:
    return lambda gates, state: (activation(gates + state[0] @ R),)


STEPS: dict[str, Callable[..., Step]] = {
    "lstm": _lstm,
    "gru": _gru,
    "gru_reset_before": _gru_reset_before,
    "rnn_tanh": partial(_rnn, jnp.tanh),
    "rnn_relu": partial(_rnn, jax.nn.relu),
    "rnn_sigmoid": partial(_rnn, jax.nn.sigmoid),
}

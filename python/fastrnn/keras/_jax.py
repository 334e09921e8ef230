"""The kernels under Keras on JAX: the functions of `fastrnn.jax`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from jax import Array

from ._served import Cell

try:
    from ..jax import gru, lstm, rnn
    from ..jax._register import platforms
except ImportError as error:  # a build without kernels for JAX, or for another version of it
    CALLS: dict[str, Any] = {}
    MISSING: str | None = str(error)
else:
    MISSING = None
    CALLS = {
        "lstm": lstm,
        "gru": gru,
        "gru_reset_before": partial(gru, reset_after=False),
        "rnn_tanh": rnn,
        "rnn_relu": partial(rnn, nonlinearity="relu"),
        "rnn_sigmoid": partial(rnn, nonlinearity="sigmoid"),
    }


def refuses(x: Array, kernel: Array, cell: Cell) -> str | None:
    if MISSING is not None:
        return f"want of fastrnn.jax ({MISSING})"
    platform, served = jax.default_backend(), platforms()
    if platform not in served:
        return f"arrays on {platform} (this build has kernels for {' and '.join(served)})"
    if cell.options is not None and platform != "cpu":
        return f"activations that the kernels for {platform} do not have"
    return None


def branches() -> bool:
    return True


def run(
    cell: Cell,
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Array],
    lengths: Array | None,
    *,
    sequences: bool,
    training: bool,
) -> tuple[Array | None, list[Array]]:
    """JAX itself tells calls that are differentiated from others, whatever `training` is."""
    initial = tuple(state[None] for state in states)
    y, last = CALLS[cell.name](
        x,
        weights,
        initial if len(initial) > 1 else initial[0],
        lengths=lengths,
        batch_first=True,
        activations=cell.options and cell.options.activations,
    )
    finals = last if len(initial) > 1 else (last,)
    return (y if sequences else None), [final[0] for final in finals]

"""The kernels under Keras on JAX: `jax.pure_callback` with a gradient of its own. `vmap` makes a call a slice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import _arrays


def refuses(x: Array, kernel: Array) -> str | None:
    platform = jax.default_backend()
    return None if platform == "cpu" else f"arrays on {platform} (this build has kernels for the CPU)"


def branches() -> bool:
    return True


def run(
    cell: str,
    x: Array,
    states: Sequence[Array],
    weights: Sequence[Array],
    lengths: Array | None,
    *,
    sequences: bool,
    training: bool,
) -> tuple[Array | None, list[Array]]:
    """JAX itself tells calls that are differentiated from others, whatever `training` is."""
    _arrays.check(cell, [array.shape for array in (x, *states, *weights)])
    lengths = jnp.zeros(0, jnp.int32) if lengths is None else lengths
    results = _network(cell, sequences, lengths, x, *states, *weights)
    return (results[0] if sequences else None), list(results[-len(states) :])


@lru_cache(maxsize=256)
def _callback(function: Any, *options: Any) -> Any:
    """On JAX's arrays. The same one for the same options: JAX compiles a call for each function it has not seen."""
    return lambda *arrays: function(*options, *map(np.asarray, arrays))


def _call(callback: Any, inputs: Sequence[Array], results: Sequence[Any]) -> list[Array]:
    return list(jax.pure_callback(callback, results, *inputs, vmap_method="sequential"))


def _like(array: Array, shape: Sequence[int] | None = None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape if shape is None else tuple(shape), array.dtype)


def _forward(cell: str, keep: bool, lengths: Array, x: Array, *arrays: Array) -> tuple[Array, list[Array], list[Array]]:
    """y, the last states, and the tape, if it is to be kept."""
    count, units = _arrays.states_of(cell), arrays[0].shape[1]
    results = [_like(x, (*x.shape[:2], units)), *(_like(state) for state in arrays[:count])]
    if keep:
        size = _arrays.tape_bytes(cell, x.shape, units, str(x.dtype))
        results.append(jax.ShapeDtypeStruct((size,), jnp.uint8))
    y, *found = _call(_callback(_arrays.forward, cell, keep), [lengths, x, *arrays], results)
    return y, found[:count], found[count:]


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _network(cell: str, sequences: bool, lengths: Array, *inputs: Array) -> list[Array]:
    y, finals, _ = _forward(cell, False, lengths, *inputs)
    return [y, *finals] if sequences else finals


def _network_forward(cell: str, sequences: bool, lengths: Array, *inputs: Array) -> tuple[list[Array], Any]:
    y, finals, tape = _forward(cell, True, lengths, *inputs)
    return [y, *finals] if sequences else finals, (lengths, [y, *tape], inputs)


def _network_backward(cell: str, sequences: bool, kept: Any, derivatives: Sequence[Array]) -> tuple[Any, ...]:
    lengths, saved, inputs = kept
    callback = _callback(_arrays.backward, cell, True, sequences)
    found = _call(callback, [lengths, *saved, *derivatives, *inputs], [_like(array) for array in inputs])
    return None, *found


_network.defvjp(_network_forward, _network_backward)

"""Arrays on several devices.

In `jax.shard_map` JAX has to know which arrays differ from device to device. It follows that through its own operators,
and where an array is the same on all devices it adds their derivatives up. Results of a foreign call it takes to be the
same everywhere. A choice between an array and itself, by a condition that differs wherever one of the call's arrays
does, says that they are not. XLA sees that there is nothing to choose. (There are functions that say it outright; their
names and arguments change from version to version.)

Elsewhere XLA gives every device all of a call's arrays, and each computes the same. Where types tell how arrays are
split (on explicit axes, those of `jax.make_mesh`), arrays are put together before a call and results split after it in
JAX's own operators, so that the types of results and derivatives are right.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

Array = Any  # jax.Array
Tree = TypeVar("Tree")


def differing_as(tree: Tree, arrays: Any) -> Tree:
    """The same arrays, to differ between devices as all of `arrays` together do."""
    if not _inside_shard_map():
        return tree
    condition = reduce(jnp.logical_or, [(array.ravel()[:1] > 0).any() for array in jax.tree.leaves(arrays)])
    same: Tree = jax.tree.map(lambda array: jnp.where(condition, array, array), tree)
    return same


def _inside_shard_map() -> bool:
    types = getattr(jax.sharding.get_abstract_mesh(), "axis_types", ())
    return jax.sharding.AxisType.Manual in types


def whole(tree: Tree) -> Tree:
    """The same arrays, each put together where its type says that it is split."""
    together: Tree = jax.tree.map(lambda array: _split(array, array, (None,) * array.ndim), tree)
    return together


def split_as(array: Array, model: Array, axes: tuple[int | None, ...]) -> Array:
    """The array, each axis split as this one of the model; None: not split."""
    spec = jax.typeof(model).sharding.spec
    return _split(array, model, tuple(None if axis is None else spec[axis] for axis in axes))


def _split(array: Array, model: Array, spec: tuple[Any, ...]) -> Array:
    """The array as the spec says, on the mesh of the model; as it is, if the model is not split."""
    sharding = jax.typeof(model).sharding
    if not any(sharding.spec) or not hasattr(jax, "set_mesh"):  # such types are an experiment in JAX ≤ 0.7.0
        return array
    return jax.sharding.reshard(array, NamedSharding(sharding.mesh, PartitionSpec(*spec)))

"""Calls inside `jax.shard_map`: JAX has to know which arrays differ from device to device.

It follows that through its own operators, and where an array is the same on all devices it adds their derivatives up.
Results of a foreign call it takes to be the same everywhere. A choice between an array and itself, by a condition that
differs wherever one of the call's arrays does, says that they are not. XLA sees that there is nothing to choose. (There
are functions that say it outright; their names and arguments change from version to version.)
"""

from __future__ import annotations

from functools import reduce
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

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

"""The calls of the kernels, `fastrnn_forward` and `fastrnn_backward`, with their derivative and their rule for `vmap`.

A network is described by the attributes of its Spec, and a call names its arrays: what `csrc/bindings_xla.cpp` reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, TypeAlias

import jax
import jax.custom_batching
import jax.ffi
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero, custom_vjp_primal_tree_values

from .. import _core, _device
from .._spec import SPEC_FIELDS
from ..reference import CELLS
from ._spread import differing_as

Array: TypeAlias = Any  # jax.Array
Arrays: TypeAlias = dict[str, Any]  # by name; None where there is none

LINE = 256  # bytes; every array of a tape begins at a multiple, on the CPU of 64


@dataclass(frozen=True)
class Network:
    """A Spec by its values, for which programs can be cached, and the shapes of its arrays."""

    values: tuple[Any, ...]  # in the order of SPEC_FIELDS
    dtype: str  # of arrays; the Spec's is float32 for types that it cannot have

    @classmethod
    def of(cls, spec: _core.Spec, dtype: str) -> Network:
        return cls(tuple(_hashable(getattr(spec, name)) for name in SPEC_FIELDS), dtype)

    @property
    def fields(self) -> dict[str, Any]:
        return dict(zip(SPEC_FIELDS, self.values, strict=True))

    @property
    def attributes(self) -> dict[str, Any]:
        """Of a call: the fields, but the options one by one."""
        attributes = self.fields
        activations, clip, coupled, peephole = attributes.pop("options") or ((), None, False, False)
        return attributes | {
            "dtype": self.dtype,
            "activations": " ".join(f"{name} {alpha!r} {beta!r}" for name, alpha, beta in activations),
            "clip": float(clip or 0),
            "coupled_input_forget": coupled,
            "peephole": peephole,
        }

    def with_rows_first(self) -> Network:
        return Network(tuple((self.fields | {"batch_first": True}).values()), self.dtype)

    @cached_property
    def spec(self) -> _core.Spec:
        return _core.make_spec(**self.fields)

    @cached_property
    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.spec.parameter_shapes())

    @property
    def has_cell(self) -> bool:
        return CELLS[self.spec.cell].has_cell

    @property
    def drops(self) -> bool:
        return self.spec.dropout > 0 and self.spec.num_layers > 1

    @property
    def directions(self) -> int:
        return 1 + self.spec.bidirectional

    @property
    def output(self) -> int:
        return self.spec.proj_size or self.spec.hidden_size

    def extent(self, x: Any) -> tuple[int, tuple[int, ...]]:
        """The steps of an x of 2 or 3 axes, and its rows as an axis, of which one sequence has none."""
        if len(x.shape) == 2:
            return x.shape[0], ()
        return (x.shape[1], x.shape[:1]) if self.spec.batch_first else (x.shape[0], x.shape[1:2])

    def state_shapes(self, x: Any) -> dict[str, tuple[int, ...]]:
        """Of h, and of c where the cell has one."""
        _, batch = self.extent(x)
        states = self.spec.num_layers * self.directions
        shapes = {"h": (states, *batch, self.output)}
        return shapes | ({"c": (states, *batch, self.spec.hidden_size)} if self.has_cell else {})

    def tape_bytes(self, x: Any) -> Any:
        """Room for any platform's tape: for which of them the program is to be is not known yet. The sizes of x may be
        `jax.export`'s symbols, of which nobody knows the larger one."""
        parts = [[n * x.dtype.itemsize for n in _core.tape_widths(self.spec)]]  # bytes a step and row
        if (module := _device.cuda()) and self.spec.options is None:
            parts.append([n * size for n, size in module.tape_widths(_device.network(self.spec, self.dtype))])
        steps, batch = self.extent(x)
        return max(map(sum, parts)) * steps * (batch[0] if batch else 1) + max(map(len, parts)) * LINE


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


def _call(target: str, net: Network, inputs: Arrays, outputs: dict[str, tuple[tuple[int, ...], Any]]) -> Arrays:
    """Call a kernel; outputs are given by their shapes and dtypes."""
    given = {name: array for name, array in inputs.items() if array is not None}
    results = jax.ffi.ffi_call(
        target, [jax.ShapeDtypeStruct(*output) for output in outputs.values()], vmap_method="sequential"
    )(*given.values(), inputs=" ".join(given), outputs=" ".join(outputs), **net.attributes)
    return differing_as(dict(zip(outputs, results, strict=True)), given)


@partial(jax.jit, static_argnums=(0, 2), inline=True)
def _forward(net: Network, inputs: Arrays, tape: bool) -> Arrays:
    """y, h_n, for an LSTM c_n, and if wanted the tape."""
    x = inputs["x"]
    outputs = {"y": ((*x.shape[:-1], net.directions * net.output), x.dtype)}
    outputs |= {f"{name}_n": (shape, x.dtype) for name, shape in net.state_shapes(x).items()}
    if tape:
        outputs["tape"] = ((net.tape_bytes(x),), jnp.uint8)
    return _call("fastrnn_forward", net, inputs, outputs)


@partial(jax.jit, static_argnums=(0, 2), inline=True)
def _backward(net: Network, inputs: Arrays, need_dx: bool) -> Arrays:
    """dh0, for an LSTM dc0, the gradients of the parameters, and if wanted dx, all by these names."""
    x = inputs["x"]
    outputs = {f"d{name}0": (shape, x.dtype) for name, shape in net.state_shapes(x).items()}
    outputs |= {f"d{name}": (shape, x.dtype) for name, shape in net.parameter_shapes.items()}
    if need_dx:
        outputs["dx"] = (x.shape, x.dtype)
    return _call("fastrnn_backward", net, inputs, outputs)


# --------------------------------------------------------------------------------------------------------------- vmap


@lru_cache(maxsize=256)
def _inference(net: Network) -> Callable[[Arrays], Arrays]:
    """A forward call without a tape. A `vmap` over anything but the parameters makes one call with more rows of it."""

    @jax.custom_batching.custom_vmap
    def infer(inputs: Arrays) -> Arrays:
        return _forward(net, inputs, False)

    @infer.def_vmap
    def rule(size: int, batched: list[Arrays], inputs: Arrays) -> tuple[Arrays, Any]:
        (mapped,) = batched
        if any(mapped[name] for name in net.parameter_shapes):
            axes = {name: 0 if m else None for name, m in mapped.items()}
            results = jax.vmap(lambda inputs: _forward(net, inputs, False), (axes,))(inputs)
            return results, dict.fromkeys(results, True)

        # One sequence each are the rows of a batch; of batches, rows follow one another.
        own = inputs["x"].shape[mapped["x"] :]  # of one call
        one_sequence = len(own) == 2
        wider = net.with_rows_first() if one_sequence else net
        row_axes = {"x": 0 if wider.spec.batch_first else 1, "lengths": 0, "h0": 1, "c0": 1}

        def fold(name: str) -> Array:
            array, axis = inputs[name], row_axes[name]
            if mapped[name]:
                array = jnp.moveaxis(array, 0, axis)
            else:
                array = jnp.repeat(jnp.expand_dims(array, axis), size, axis)
            shape = array.shape
            if one_sequence and name != "lengths":
                return array
            return array.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])

        def unfold(name: str, array: Array) -> Array:
            axis = row_axes["x" if name == "y" else "h0"]
            if not one_sequence:
                shape = array.shape
                array = array.reshape(*shape[:axis], size, own[row_axes["x"]], *shape[axis + 1 :])
            return jnp.moveaxis(array, axis, 0)

        folded = {name: fold(name) for name in row_axes if inputs.get(name) is not None}
        results = {name: unfold(name, array) for name, array in _inference(wider)(inputs | folded).items()}
        return results, dict.fromkeys(results, True)

    compiled: Callable[[Arrays], Arrays] = jax.jit(infer, inline=True)
    return compiled


# -------------------------------------------------------------------------------------------------------- derivatives


@lru_cache(maxsize=256)
def differentiable(net: Network) -> Callable[[Arrays], Arrays]:
    """The function from checked inputs (x; h0, c0, lengths and seed, or None; the parameters) to y, h_n and, for an
    LSTM, c_n, with its derivative in reverse mode. Dropout acts where there is a seed."""

    @jax.custom_vjp
    def call(inputs: Arrays) -> Arrays:
        if inputs["seed"] is None:
            return _inference(net)(inputs)
        results = _forward(net, inputs, True)
        del results["tape"]
        return results

    def forward(inputs: Arrays) -> tuple[Arrays, Any]:
        wanted = inputs["x"].perturbed
        inputs = custom_vjp_primal_tree_values(inputs)
        results = _forward(net, inputs, True)
        tape = results.pop("tape")
        need_dx = () if wanted else None  # residuals are arrays; that there is a tuple can be told from their structure
        return results, (inputs, results["y"], tape, need_dx)

    def backward(residuals: Any, cotangents: Arrays) -> tuple[Arrays]:
        inputs, y, tape, need_dx = residuals
        given = {f"d{name}": None if isinstance(d, SymbolicZero) else d for name, d in cotangents.items()}
        found = _backward(net, inputs | {"y": y, "tape": tape} | given, need_dx is not None)
        return ({name: None if array is None else found.get(f"d{name}") for name, array in inputs.items()},)

    call.defvjp(forward, backward, symbolic_zeros=True)
    compiled: Callable[[Arrays], Arrays] = jax.jit(call, inline=True)  # shard_map outside of jit takes it so alone
    return compiled

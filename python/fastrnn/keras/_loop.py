"""What takes the place of a layer's `inner_loop`: all of its time steps as one call of the kernels.

Here are the parts that Keras' operators can say for every backend: weights, masks, directions, dropout. The call
itself is the backend's: `_torch`, `_tensorflow` and `_jax` each have

    refuses(x, kernel, cell)
                    why the kernels cannot serve a call with these tensors here and now, or None
    branches()      whether a tensor's value may decide what is computed
    run(cell, x, states, weights, lengths, sequences=…, training=…)
                    y, (B, T, H), 0 past a row's length (None unless `sequences`), and the last states, each (B, H)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from ..weights import _KERAS
from . import _served

NAME = keras.backend.backend()  # for good: it cannot change in a process
BACKEND: Any = importlib.import_module(f"{__package__}._{NAME}") if NAME in ("torch", "tensorflow", "jax") else None


def inner_loop(stock: Callable[..., Any], layer: Any, sequences: Any, state: Any, mask: Any, training: Any) -> Any:
    """The last output (B, H), all outputs (B, T, H), and the last states (B, H): as `stock`, Keras' own, returns them.

    Without `return_sequences` the outputs are the last one, (B, 1, H).
    """
    masks = keras.tree.flatten(mask)
    found = masks[0] if masks else None
    kernel = ops.convert_to_tensor(layer.cell.kernel)
    dtype = keras.backend.standardize_dtype(kernel.dtype)
    cell = _served.cell_of(layer)
    states = keras.tree.flatten(state)
    if _served.kind_of(layer) == "gru":
        states = states[:1]  # as Keras' own loop
    reason = _served.unserved(layer, sequences, found, training, dtype)
    if reason is None and len(states) != len(layer.state_size):
        reason = f"{len(states)} initial states"
    if reason is None:
        reason = f"Keras' backend {NAME}" if BACKEND is None else BACKEND.refuses(sequences, kernel, cell)
    if reason is not None:
        result = stock(layer, sequences, state, mask, training=training)
        _served.warn_once(layer, reason)
        return result
    x = ops.cast(sequences, dtype)
    states = [ops.cast(s, dtype) for s in states]
    if any(len(s.shape) == 1 or s.shape[0] == 1 for s in states):  # one state for all rows
        states = [ops.broadcast_to(s, (ops.shape(x)[0], layer.units)) for s in states]
    if found is not None:
        rows, steps = found.shape
        sizes = zip(x.shape[:2], (None if rows == 1 else rows, steps), strict=True)  # one row may stand for all
        if any(None not in (a, b) and a != b for a, b in sizes):
            raise ValueError(f"mask must be of shape {tuple(x.shape[:2])}, got {tuple(found.shape)}")
    if layer.stateful:
        states = [ops.copy(s) for s in states]  # the variables are written to before the gradients are computed
    if training and layer.cell.dropout:
        x = x * ops.expand_dims(layer.cell.get_dropout_mask(sequences[:, 0, :]), 1)
    if found is None:
        return _plain(layer, x, states, bool(training))
    return _masked(layer, x, states, ops.cast(found, "bool"), bool(training))


def _weights(layer: Any) -> list[Any]:
    """weight_ih, weight_hh and, with a bias, bias_ih and bias_hh, in the kernels' layout."""
    cell, order = layer.cell, _KERAS[_served.KINDS[type(layer.cell)]]

    def in_order(array: Any) -> Any:
        blocks = ops.split(array, len(order), axis=-1)
        return ops.concatenate([blocks[gate] for gate in order], axis=-1)

    matrices = ops.convert_to_tensor(cell.kernel), ops.convert_to_tensor(cell.recurrent_kernel)
    arrays = [ops.transpose(in_order(matrix)) for matrix in matrices]
    if cell.use_bias:
        bias = in_order(ops.convert_to_tensor(cell.bias))
        arrays += [bias[0], bias[1]] if len(bias.shape) == 2 else [bias, ops.zeros_like(bias)]
    return arrays


def _plain(layer: Any, x: Any, states: list[Any], training: bool) -> tuple[Any, Any, list[Any]]:
    """Without a mask."""
    if layer.go_backwards:
        x = ops.flip(x, axis=1)
    y, finals = _run(layer, x, states, None, training)
    return finals[0], ops.expand_dims(finals[0], 1) if y is None else y, finals


def _masked(layer: Any, x: Any, states: list[Any], mask: Any, training: bool) -> tuple[Any, Any, list[Any]]:
    """The steps that count come first in each row, so that the kernels take it for a shorter one; where the mask pads
    on the right, they are there already. A step that does not count repeats the output before it, or gives 0."""
    mask = ops.broadcast_to(mask, ops.shape(x)[:2])  # raises where sizes that were not known before do not fit
    if layer.go_backwards:
        mask = ops.flip(mask, axis=1)
    length = ops.shape(mask)[1]
    step = ops.expand_dims(ops.arange(length, dtype="int32"), 0)
    count = ops.cumsum(ops.cast(mask, "int32"), axis=1)
    lengths = ops.sum(ops.cast(mask, "int32"), axis=1)
    padded = ops.all(ops.equal(mask, step < ops.expand_dims(lengths, 1)))

    def gathered() -> Any:
        order = ops.sort(ops.where(mask, step, step + length), axis=1)
        order = ops.where(order < length, order, order - length)
        return _rows(x, length - 1 - order if layer.go_backwards else order)

    x_first = _either(padded, lambda: ops.flip(x, axis=1) if layer.go_backwards else x, gathered)
    y, finals = _run(layer, x_first, states, lengths, training)

    # Before a row's first step Keras repeats zeros, and on JAX the initial state.
    before = states[0] if NAME == "jax" else ops.zeros_like(states[0])
    held = ops.where(ops.expand_dims(lengths > 0, 1), finals[0], before)
    if layer.zero_output_for_mask:
        held = ops.where(mask[:, -1:], held, 0)
    if y is None:
        return held, ops.expand_dims(held, 1), finals

    every = ops.expand_dims(mask, -1)

    def spread() -> Any:
        latest = _rows(y, ops.maximum(count - 1, 0))
        if layer.zero_output_for_mask:
            return ops.where(every, latest, 0)
        return ops.where(ops.expand_dims(count > 0, -1), latest, ops.expand_dims(before, 1))

    def repeated() -> Any:
        return y if layer.zero_output_for_mask else ops.where(every, y, ops.expand_dims(held, 1))

    return held, _either(padded, repeated, spread), finals


def _run(layer: Any, x: Any, states: list[Any], lengths: Any, training: bool) -> tuple[Any, list[Any]]:
    options = {"sequences": layer.return_sequences, "training": training}
    y, finals = BACKEND.run(_served.cell_of(layer), x, states, _weights(layer), lengths, **options)
    return y, finals


def _rows(array: Any, index: Any) -> Any:
    """Of an array (B, T, N) the steps of an index (B, T): by whole rows, which is much faster than by elements."""
    batch, length, width = ops.shape(array)
    first = ops.expand_dims(ops.arange(batch, dtype="int32") * length, 1)
    rows = ops.take(ops.reshape(array, (batch * length, width)), index + first, axis=0)
    return ops.reshape(rows, (batch, length, width))  # which of nothing they are not on JAX


def _either(condition: Any, one: Callable[[], Any], other: Callable[[], Any]) -> Any:
    """`one()` if a condition holds; where it cannot be asked, `other()`, which is right for either case."""
    return ops.cond(condition, one, other) if BACKEND.branches() else other()

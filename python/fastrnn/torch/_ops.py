"""The kernels as PyTorch operators, `torch.ops.fastrnn.forward` and `torch.ops.fastrnn.backward`, with shapes for
tracing, derivatives of any order and a rule for `vmap`.

An operator takes batches, (T, B, …) or, with `batch_first`, (B, T, …), on the CPU, in float32 or float64; and in builds
with CUDA on a GPU, in float16 and bfloat16 too. What it does there is queued on PyTorch's current stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _device
from ._call import gradients, new_tape, run
from ._network import LINE, Network, network_of
from ._second import second_derivatives

# -------------------------------------------------------------------------------------------------------- the operators


def _check(name: str, tensor: Tensor, shape: Sequence[Any], dtype: torch.dtype, device: torch.device) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape) or tensor.device != device:
        raise ValueError(
            f"fastrnn: {name} must be {dtype} {tuple(shape)} on {device}, "
            f"got {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        )


def check_lengths(lengths: Tensor, steps: int) -> None:
    """Raises ValueError unless all are from 0 to `steps`."""
    if lengths.numel() and not 0 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ValueError(f"lengths must be from 0 to {steps}, got {lengths.tolist()}")


def _checked(
    net: Network,
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
) -> tuple[list[Tensor], Tensor | None, Tensor | None, Tensor | None, int]:
    """The arguments that forward and backward have in common, contiguous where they must be."""
    if x.dim() != 3:
        raise ValueError(f"fastrnn: x must have 3 dimensions, got {x.dim()}")
    if net.cuda is None and x.device.type != "cpu":
        raise ValueError(f"fastrnn: x must be on the CPU, got {x.device}")
    rows, steps = (x.shape[0], x.shape[1]) if net.batch_first else (x.shape[1], x.shape[0])
    _check("x", x, (*x.shape[:2], net.input), net.dtype, x.device)
    for index, (weight, shape) in enumerate(zip(weights, net.shapes, strict=True)):
        _check(f"weights[{index}]", weight, shape, net.dtype, x.device)
    if h0 is not None:
        _check("h0", h0, (net.states, rows, net.output), net.dtype, x.device)
    if c0 is not None:
        _check("c0", c0, (net.states, rows, net.hidden), net.dtype, x.device)
    if lengths is not None:
        _check("lengths", lengths, (rows,), torch.int64, lengths.device)
        if lengths.is_cuda and torch.cuda.is_current_stream_capturing():
            lengths = lengths.clamp(0, steps)  # to look at them would wait for the device, which a capture forbids
        elif net.cuda is not None:  # for the CPU the core looks
            check_lengths(lengths, steps)
        if x.is_cuda and lengths.is_cpu:  # from pinned memory, or the copy would wait for all that is queued
            lengths = lengths.pin_memory().to(x.device, non_blocking=True)
        lengths = lengths.to(x.device)
    h0, c0, lengths = (None if t is None else t.contiguous() for t in (h0, c0, lengths))
    return [w.contiguous() for w in weights], h0, c0, lengths, 0 if seed is None else int(seed)


@torch.library.custom_op("fastrnn::forward", mutates_args=())
def forward(
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
    cell: str,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    dropout: float,
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, h_n, c_n (empty unless an LSTM's) and the tape (empty unless `training`)."""
    options = cell, num_layers, bidirectional, batch_first, dropout
    return run_forward(False, x, weights, h0, c0, lengths, seed, options, training)


def run_forward(
    on_cuda: bool,
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
    options: tuple[Any, ...],
    training: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`forward` by the kernels for the CPU or for CUDA."""
    net = network_of(options[0], x, weights, *options[1:], on_cuda=on_cuda)
    weights, h0, c0, lengths, number = _checked(net, x, weights, h0, c0, lengths, seed)
    tape = new_tape(net, x) if training else None
    y, h_n, c_n = run(net, weights, x, h0, c0, lengths, None, tape, number)
    return y, h_n, x.new_empty(0) if c_n is None else c_n, x.new_empty(0, dtype=torch.uint8) if tape is None else tape


@forward.register_fake
def _(x: Tensor, weights: Sequence[Tensor], h0: Any, c0: Any, lengths: Any, seed: Any, *options: Any) -> Any:
    *described, training = options
    net = network_of(described[0], x, weights, *described[1:], on_cuda=x.device.type == "cuda")
    rows, steps = (x.shape[0], x.shape[1]) if net.batch_first else (x.shape[1], x.shape[0])
    y = x.new_empty((*x.shape[:2], net.width))
    h_n = x.new_empty(net.state_shape((rows,), net.output))
    c_n = x.new_empty(net.state_shape((rows,), net.hidden) if net.has_cell else 0)
    return y, h_n, c_n, x.new_empty(net.tape_bytes(steps, rows) if training else 0, dtype=torch.uint8)


_BACKWARD_SCHEMA = (  # spelt out: older versions cannot read a list of tensors off the annotations
    "(Tensor x, Tensor[] weights, Tensor? h0, Tensor? c0, Tensor? lengths, Tensor? seed, Tensor y, Tensor tape, "
    "Tensor? dy, Tensor? dh_n, Tensor? dc_n, str cell, SymInt num_layers, bool bidirectional, bool batch_first, "
    "float dropout, bool need_dx) -> (Tensor, Tensor, Tensor, Tensor[])"
)


@torch.library.custom_op("fastrnn::backward", mutates_args=(), schema=_BACKWARD_SCHEMA)
def backward(
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
    y: Tensor,
    tape: Tensor,
    dy: Tensor | None,
    dh_n: Tensor | None,
    dc_n: Tensor | None,
    cell: str,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    dropout: float,
    need_dx: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """dx (empty unless `need_dx`), dh0, dc0 (empty unless an LSTM's) and the gradients of the weights."""
    options = cell, num_layers, bidirectional, batch_first, dropout
    return run_backward(False, x, weights, h0, c0, lengths, seed, y, tape, dy, dh_n, dc_n, options, need_dx)


def run_backward(
    on_cuda: bool,
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
    y: Tensor,
    tape: Tensor,
    dy: Tensor | None,
    dh_n: Tensor | None,
    dc_n: Tensor | None,
    options: tuple[Any, ...],
    need_dx: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """`backward` by the kernels for the CPU or for CUDA."""
    net = network_of(options[0], x, weights, *options[1:], on_cuda=on_cuda)
    weights, h0, c0, lengths, number = _checked(net, x, weights, h0, c0, lengths, seed)
    rows, steps = (x.shape[0], x.shape[1]) if net.batch_first else (x.shape[1], x.shape[0])
    _check("y", y, (*x.shape[:2], net.width), net.dtype, x.device)
    _check("tape", tape, (net.tape_bytes(steps, rows),), torch.uint8, x.device)
    for name, given, shape in (
        ("dy", dy, y.shape),
        ("dh_n", dh_n, (net.states, rows, net.output)),
        ("dc_n", dc_n if net.has_cell else None, (net.states, rows, net.hidden)),
    ):
        if given is not None:
            _check(name, given, shape, net.dtype, x.device)
    tape = tape.contiguous()
    if tape.data_ptr() % LINE:
        tape = tape.clone()  # memory of another allocator's
    dx, dh0, dc0, dweights = gradients(
        net,
        weights,
        x,
        h0,
        c0,
        lengths,
        y.contiguous(),
        tape,
        number,
        dy,
        dh_n,
        dc_n if net.has_cell else None,
        need_dx,
    )
    return x.new_empty(0) if dx is None else dx, dh0, x.new_empty(0) if dc0 is None else dc0, dweights


@backward.register_fake
def _(x: Tensor, weights: Sequence[Tensor], *others: Any) -> Any:
    cell, *options, need_dx = others[9:]
    net = network_of(cell, x, weights, *options, on_cuda=x.device.type == "cuda")
    rows = x.shape[0 if net.batch_first else 1]
    dx = x.new_empty(x.shape if need_dx else 0)
    dh0 = x.new_empty(net.state_shape((rows,), net.output))
    dc0 = x.new_empty(net.state_shape((rows,), net.hidden) if net.has_cell else 0)
    return dx, dh0, dc0, [x.new_empty(shape) for shape in net.shapes]


# ----------------------------------------------------------------------------------------------------------- on a GPU


def serves_cuda() -> bool:
    """Whether this build has kernels for CUDA tensors."""
    return _device.cuda() is not None


def forward_on_cuda(x: Tensor, weights: Sequence[Tensor], *others: Any) -> Any:
    """`forward` for CUDA tensors."""
    h0, c0, lengths, seed, *options, training = others
    return run_forward(True, x, weights, h0, c0, lengths, seed, tuple(options), training)


def backward_on_cuda(
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
    y: Tensor,
    tape: Tensor,
    dy: Tensor | None,
    dh_n: Tensor | None,
    dc_n: Tensor | None,
    *others: Any,
) -> Any:
    """`backward` for CUDA tensors."""
    *options, need_dx = others
    return run_backward(True, x, weights, h0, c0, lengths, seed, y, tape, dy, dh_n, dc_n, tuple(options), need_dx)


if serves_cuda():
    forward.register_kernel("cuda")(forward_on_cuda)
    backward.register_kernel("cuda")(backward_on_cuda)


# ---------------------------------------------------------------------------------------------------------- derivatives


def _forward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weights, h0, c0, lengths, seed, *options, training = inputs
    if not training:
        raise RuntimeError("fastrnn::forward: a call that is to be differentiated needs training=True")
    y, _, _, tape = output
    ctx.save_for_backward(x, h0, c0, lengths, seed, y, tape, *weights)
    ctx.options = options
    ctx.set_materialize_grads(False)


def _forward_gradient(ctx: Any, dy: Tensor | None, dh_n: Tensor | None, dc_n: Tensor | None, _: Any) -> tuple[Any, ...]:
    x, h0, c0, lengths, seed, y, tape, *weights = ctx.saved_tensors
    need_dx, _, need_dh0, need_dc0, *_ = ctx.needs_input_grad
    dx, dh0, dc0, dweights = backward(x, weights, h0, c0, lengths, seed, y, tape, dy, dh_n, dc_n, *ctx.options, need_dx)
    return (dx if need_dx else None, dweights, dh0 if need_dh0 else None, dc0 if need_dc0 else None) + (None,) * 8


forward.register_autograd(_forward_gradient, setup_context=_forward_context)


def _backward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    x, weights, h0, c0, lengths, seed, _, _, dy, dh_n, dc_n, *options, need_dx = inputs
    ctx.save_for_backward(x, h0, c0, lengths, seed, dy, dh_n, dc_n, *weights)
    ctx.options = options
    ctx.need_dx = need_dx
    ctx.set_materialize_grads(False)


def _backward_gradient(ctx: Any, ddx: Tensor | None, ddh0: Any, ddc0: Any, ddweights: Any) -> tuple[Any, ...]:
    x, h0, c0, lengths, seed, dy, dh_n, dc_n, *weights = ctx.saved_tensors
    net = network_of(ctx.options[0], x, weights, *ctx.options[1:], on_cuda=x.device.type == "cuda")
    given = x, h0, c0, dy, dh_n, dc_n
    dx, dh0, dc0, *outward, dweights = second_derivatives(
        net, weights, lengths, seed, given, (ddx if ctx.need_dx else None, ddh0, ddc0), ddweights
    )
    none_of = [None if t is None else d for t, d in zip(given, (dx, dh0, dc0, *outward), strict=True)]
    return none_of[0], dweights, *none_of[1:3], None, None, None, None, *none_of[3:], *(None,) * 6


backward.register_autograd(_backward_gradient, setup_context=_backward_context)


# ----------------------------------------------------------------------------------------------------------------- vmap


def _for_each(op: Any, info: Any, in_dims: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, Any]:
    """The operator on each slice, one after the other: each has weights, a tape or gradients of its own."""

    def slice_of(value: Any, dim: Any, index: int) -> Any:
        if isinstance(value, (list, tuple)) and isinstance(dim, (list, tuple)):
            return [slice_of(v, d, index) for v, d in zip(value, dim, strict=True)]
        return value if dim is None else value.select(dim, index)

    results = [
        op(*(slice_of(value, dim, index) for value, dim in zip(args, in_dims, strict=True)))
        for index in range(info.batch_size)
    ]
    stacked = [
        [torch.stack(each) for each in zip(*parts, strict=True)] if isinstance(parts[0], list) else torch.stack(parts)
        for parts in zip(*results, strict=True)
    ]
    return tuple(stacked), tuple([0] * len(s) if isinstance(s, list) else 0 for s in stacked)


@forward.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    x, weights, h0, c0, lengths, seed, *options, batch_first, dropout, training = args
    x_dim, weight_dims, h_dim, c_dim, length_dim, *_ = in_dims
    if training or any(dim is not None for dim in weight_dims):
        return _for_each(forward, info, in_dims, args)

    def fold(value: Tensor | None, dim: int | None, rows: int) -> Tensor | None:
        """More rows in one batch, at this axis."""
        if value is None:
            return None
        many = value.unsqueeze(rows).expand(*value.shape[:rows], info.batch_size, *value.shape[rows:])
        many = many if dim is None else value.movedim(dim, rows)
        return many.flatten(rows, rows + 1)

    axis = 0 if batch_first else 1
    folded = fold(x, x_dim, axis), weights, fold(h0, h_dim, 1), fold(c0, c_dim, 1), fold(lengths, length_dim, 0)
    y, h_n, c_n, tape = forward(*folded, seed, *options, batch_first, dropout, training)
    y, h_n = (t.unflatten(a, (info.batch_size, -1)) for t, a in ((y, axis), (h_n, 1)))
    c_n, c_axis = (c_n.unflatten(1, (info.batch_size, -1)), 1) if c_n.dim() == 3 else (c_n, None)
    return (y, h_n, c_n, tape), (axis, 1, c_axis, None)


@backward.register_vmap
def _(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
    return _for_each(backward, info, in_dims, args)

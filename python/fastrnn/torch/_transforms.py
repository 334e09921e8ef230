"""The operators for `torch.func`: its `grad`, `vjp` and `jacrev` ask for functions with a `setup_context`, which those
that `torch.library` generates do not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack, get_unwrapped, is_functorch_wrapped_tensor

from . import _network, _ops, _second


def differentiated(tensors: Sequence[Tensor]) -> bool:
    """Whether derivatives may be asked for, by a transform at work or by autograd around them all: not where there is
    `vmap` alone, on tensors that need no gradient."""
    if any(level.key() != TransformType.Vmap for level in get_interpreter_stack()):
        return True
    return torch.is_grad_enabled() and any(_requires_grad(t) for t in tensors)


def _requires_grad(tensor: Tensor) -> bool:
    """Whether a tensor needs a gradient, or one of those that it wraps."""
    while is_functorch_wrapped_tensor(tensor) and not tensor.requires_grad:
        tensor = get_unwrapped(tensor)
    return bool(tensor.requires_grad)


class Forward(torch.autograd.Function):
    """`torch.ops.fastrnn.forward` for training: y, h_n, c_n and the tape. Weights follow the other arguments."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        lengths: Tensor | None,
        seed: Tensor | None,
        options: tuple[Any, ...],
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        return _ops.forward(x, list(weights), h0, c0, lengths, seed, *options, True)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, h0, c0, lengths, seed, ctx.options, *weights = inputs
        y, _, c_n, tape = output
        ctx.save_for_backward(x, h0, c0, lengths, seed, y, tape, *weights)
        ctx.mark_non_differentiable(tape, *([] if _network.has_cell(ctx.options[0]) else [c_n]))

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dh_n: Tensor, dc_n: Tensor, _: Any) -> tuple[Any, ...]:
        x, h0, c0, lengths, seed, y, tape, *weights = ctx.saved_tensors
        dc_n = dc_n if _network.has_cell(ctx.options[0]) else None
        dx, dh0, dc0, *dweights = Backward.apply(
            x, h0, c0, lengths, seed, y, tape, dy, dh_n, dc_n, ctx.options, *weights
        )
        return dx, None if h0 is None else dh0, None if c0 is None else dc0, None, None, None, *dweights


class Backward(torch.autograd.Function):
    """`torch.ops.fastrnn.backward`: dx, dh0, dc0 and the gradients of the weights, one after the other."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        lengths: Tensor | None,
        seed: Tensor | None,
        y: Tensor,
        tape: Tensor,
        dy: Tensor,
        dh_n: Tensor,
        dc_n: Tensor | None,
        options: tuple[Any, ...],
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        dx, dh0, dc0, dweights = _ops.backward(
            x, list(weights), h0, c0, lengths, seed, y, tape, dy, dh_n, dc_n, *options, True
        )
        return dx, dh0, dc0, *dweights

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, h0, c0, lengths, seed, _, _, dy, dh_n, dc_n, ctx.options, *weights = inputs
        ctx.save_for_backward(x, h0, c0, lengths, seed, dy, dh_n, dc_n, *weights)
        if not _network.has_cell(ctx.options[0]):
            ctx.mark_non_differentiable(output[2])

    @staticmethod
    def backward(ctx: Any, ddx: Tensor, ddh0: Tensor, ddc0: Tensor, *ddweights: Tensor) -> tuple[Any, ...]:
        x, h0, c0, lengths, seed, dy, dh_n, dc_n, *weights = ctx.saved_tensors
        given = x, h0, c0, dy, dh_n, dc_n
        net = _network.network_of(ctx.options[0], x, weights, *ctx.options[1:], on_cuda=x.device.type == "cuda")
        *found, dweights = _second.second_derivatives(net, weights, lengths, seed, given, (ddx, ddh0, ddc0), ddweights)
        dx, dh0, dc0, *ends = (None if t is None else d for t, d in zip(given, found, strict=True))
        return dx, dh0, dc0, None, None, None, None, *ends, None, *dweights

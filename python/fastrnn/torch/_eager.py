"""The kernels for plain tensors in plain Python, where an operator's way through PyTorch's dispatcher would take longer
than a short sequence: a call of the core, or in training an `autograd.Function`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _ops
from ._ops import Network


class Fused(torch.autograd.Function):
    """y, h_n and, for an LSTM, c_n of a network whose arguments are checked. Weights follow the other arguments."""

    @staticmethod
    def forward(
        ctx: Any,
        net: Network,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        lengths: Tensor | None,
        seed: int,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        y, h_n, c_n, tape = _ops.train(net, [w.data_ptr() for w in weights], x, h0, c0, lengths, seed)
        ctx.save_for_backward(x, h0, c0, lengths, y, tape, *weights)
        ctx.net, ctx.seed = net, seed
        ctx.memory = _memory(x, h0, c0, lengths, y, tape, *weights)
        ctx.layout = x.shape, x.stride()
        ctx.set_materialize_grads(False)
        return (y, h_n) if c_n is None else (y, h_n, c_n)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dh_n: Tensor | None, dc_n: Tensor | None = None) -> tuple[Any, ...]:
        x, h0, c0, lengths, y, tape, *weights = ctx.saved_tensors
        _, need_dx, need_dh0, need_dc0, *_ = ctx.needs_input_grad
        # A program's hooks may have put other tensors in the place of those that were saved: the operator checks them.
        same = _memory(x, h0, c0, lengths, y, tape, *weights) == ctx.memory and ctx.layout == (x.shape, x.stride())
        direct = same and not torch.is_grad_enabled() and plain(dy, dh_n, dc_n)
        call = _ops.gradients if direct else _through_operator
        dx, dh0, dc0, dweights = call(ctx.net, weights, x, h0, c0, lengths, y, tape, ctx.seed, dy, dh_n, dc_n, need_dx)
        return None, dx, dh0 if need_dh0 else None, dc0 if need_dc0 else None, None, None, *dweights


def _memory(*tensors: Tensor | None) -> list[int]:
    return [_ops.address(t) for t in tensors]


def plain(*tensors: Tensor | None) -> bool:
    """Whether nothing is to be known of the tensors but their memory."""
    return (
        all(t is None or type(t) is Tensor for t in tensors)
        and not torch._C._len_torch_dispatch_stack()
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def _through_operator(
    net: Network,
    weights: Sequence[Tensor],
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    y: Tensor,
    tape: Tensor,
    seed: int,
    dy: Tensor | None,
    dh_n: Tensor | None,
    dc_n: Tensor | None,
    need_dx: bool,
) -> tuple[Tensor | None, Tensor, Tensor | None, list[Tensor]]:
    """The operator can be differentiated once more."""
    axis = 0 if net.batch_first else 1
    unbatched = x.dim() == 2
    if unbatched:
        x, y, dy = (None if t is None else t.unsqueeze(axis) for t in (x, y, dy))
        h0, c0, dh_n, dc_n = (None if t is None else t.unsqueeze(1) for t in (h0, c0, dh_n, dc_n))
    numbers = net.arguments["num_layers"], net.arguments["bidirectional"], net.batch_first, net.dropout
    dx, dh0, dc0, dweights = _ops.backward(
        x,
        weights,
        h0,
        c0,
        lengths,
        torch.tensor([seed], device="cpu"),
        y,
        tape,
        dy,
        dh_n,
        dc_n,
        net.cell,
        *numbers,
        need_dx,
    )
    if unbatched:
        dx, dh0, dc0 = dx.squeeze(axis) if need_dx else dx, dh0.squeeze(1), dc0.squeeze(1) if net.has_cell else dc0
    return dx if need_dx else None, dh0, dc0 if net.has_cell else None, dweights

"""The kernels for plain tensors in plain Python, where an operator's way through PyTorch's dispatcher would take longer
than a short sequence: a call of the core, or in training an `autograd.Function`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor

from .. import _core
from . import _call, _ops, _packed
from ._network import Network


class Fused(torch.autograd.Function):
    """y, h_n and, for an LSTM, c_n of a network whose arguments are checked. With `batch_sizes`, x and y are those of a
    PackedSequence's data, (N, I) and (N, D*H_out). Weights follow the other arguments."""

    @staticmethod
    def forward(
        ctx: Any,
        net: Network,
        x: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        lengths: Tensor | None,
        batch_sizes: Tensor | None,
        seed: int,
        *weights: Tensor,
    ) -> tuple[Tensor, ...]:
        tape = _call.new_tape(net, x)
        y, h_n, c_n = _call.run(net, weights, x, h0, c0, lengths, batch_sizes, tape, seed)
        saved = x, h0, c0, lengths, batch_sizes, y, tape, *weights
        ctx.save_for_backward(*saved)
        ctx.net, ctx.seed = net, seed
        ctx.memory = _memory(*saved)
        ctx.layout = x.shape, x.stride()
        ctx.set_materialize_grads(False)
        return (y, h_n) if c_n is None else (y, h_n, c_n)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dh_n: Tensor | None, dc_n: Tensor | None = None) -> tuple[Any, ...]:
        x, h0, c0, lengths, batch_sizes, y, tape, *weights = saved = ctx.saved_tensors
        _, need_dx, need_dh0, need_dc0, *_ = ctx.needs_input_grad
        # A program's hooks may have put other tensors in the place of those that were saved: the operator checks them.
        same = _memory(*saved) == ctx.memory and ctx.layout == (x.shape, x.stride())
        net, seed = ctx.net, ctx.seed

        def derivatives(dy: Tensor | None, dh_n: Tensor | None, dc_n: Tensor | None) -> Any:
            given = net, weights, x, h0, c0, lengths, y, tape, seed, dy, dh_n, dc_n
            if same and not torch.is_grad_enabled() and plain(dy, dh_n, dc_n):
                with suppress(_core.UnreadableError):  # of ends without memory, which PyTorch knows
                    return _call.gradients(*given, need_dx, need_dh0, batch_sizes)
            if batch_sizes is None:
                return _through_operator(*given, need_dx)
            return _through_padding(net, weights, x, h0, c0, batch_sizes, seed, (dy, dh_n, dc_n))

        ends = dy, dh_n, dc_n
        batched = any(d is not None and is_legacy_batchedtensor(d) for d in ends)
        dx, dh0, dc0, dweights = _for_each(derivatives, ends) if batched else derivatives(*ends)
        return (
            None,
            dx if need_dx else None,
            dh0 if need_dh0 else None,
            dc0 if need_dc0 else None,
            None,
            None,
            None,
            *dweights,
        )


def _for_each(derivatives: Callable[..., Any], ends: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """Of each slice of ends that `torch.autograd.grad(is_grads_batched=True)` has made one batch of, as one batch."""
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    whole = [None if d is None else torch._remove_batch_dim(d, level, 1, 0) for d in ends]
    count = max(len(d) for d in whole if d is not None)  # of what is no batch there is 1
    slices = [[None] * count if d is None else d.expand(count, *d.shape[1:]) for d in whole]

    def together(parts: Sequence[Tensor | None]) -> Tensor | None:
        found = [part for part in parts if part is not None]
        return torch._add_batch_dim(torch.stack(found), 0, level) if found else None

    dx, dh0, dc0, dweights = zip(*(derivatives(*each) for each in zip(*slices, strict=True)), strict=True)
    return together(dx), together(dh0), together(dc0), [together(parts) for parts in zip(*dweights, strict=True)]


def _memory(*tensors: Tensor | None) -> list[int]:
    return [t.data_ptr() for t in tensors if t is not None]


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
    return dx, dh0, dc0 if net.has_cell else None, dweights


def _through_padding(
    net: Network,
    weights: Sequence[Tensor],
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    batch_sizes: Tensor,
    seed: int,
    ends: Sequence[Tensor | None],
) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor]]:
    """What can be differentiated once more, of packed data: once more forward, on padded rows."""
    again = torch.is_grad_enabled()
    padding = _packed.Padding.of(batch_sizes, batch_first=False)
    numbers = net.arguments["num_layers"], net.arguments["bidirectional"], False, net.dropout
    with torch.enable_grad():
        # Each a node of its own, so that the derivative by one of them has no part of what it was computed from.
        given = [None if t is None else t.view_as(t) for t in (x, h0, c0, *weights)]
        known = [t if t.requires_grad else t.requires_grad_() for t in given if t is not None]
        data, h, c, *parameters = given
        assert data is not None
        seeds = torch.tensor([seed], device="cpu")
        y, *finals, _ = _ops.forward(
            padding.pad(data), parameters, h, c, padding.lengths, seeds, net.cell, *numbers, True
        )
        results = zip((padding.unpad(y), *finals), ends, strict=True)
        outputs, outward = zip(*((result, d) for result, d in results if d is not None), strict=True)
    found = iter(torch.autograd.grad(outputs, known, outward, create_graph=again))
    dx, dh0, dc0, *dweights = (None if t is None else next(found) for t in given)
    return dx, dh0, dc0, dweights

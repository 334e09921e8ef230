"""Second derivatives, of the network in PyTorch's own operators, with the dropout masks of the kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _dropout
from . import _cells
from ._network import Network


def second_derivatives(
    net: Network,
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    seed: Tensor | None,
    given: tuple[Tensor | None, ...],
    dd: tuple[Tensor | None, ...],
    ddweights: Sequence[Tensor | None] | None,
) -> tuple[Any, ...]:
    """The backward pass's own: of the network in PyTorch's operators, from its inputs.

    Args:
        given: x, h0, c0, dy, dh_n, dc_n.
        dd, ddweights: the loss's derivatives with respect to dx, dh0, dc0 and those of the weights.

    Returns:
        The loss's derivatives with respect to those given, and a list of those with respect to the weights.
    """
    x, *others = given
    assert x is not None
    rows = x.shape[0 if net.batch_first else 1]
    h_shape, c_shape = net.state_shape((rows,), net.output), net.state_shape((rows,), net.hidden)
    shapes = [h_shape, c_shape, (*x.shape[:2], net.width), h_shape, c_shape]
    h0, c0, dy, dh_n, dc_n = (x.new_zeros(s) if t is None else t for t, s in zip(others, shapes, strict=True))
    inputs = (x, h0, *([c0] if net.has_cell else []), *weights)
    outward = (dy, dh_n, *([dc_n] if net.has_cell else []))
    wanted = [*dd[: 2 + net.has_cell], *(ddweights or [None] * len(weights))]

    def results_of(*inputs: Tensor) -> tuple[Tensor, ...]:
        x, h0, *others = inputs
        c0 = others.pop(0) if net.has_cell else None
        return differentiable(net, x, others, h0, c0, lengths, seed)

    def first(*arguments: Tensor) -> Any:
        inputs, outward = arguments[: -2 - net.has_cell], arguments[-2 - net.has_cell :]
        return torch.func.vjp(results_of, *inputs)[1](outward)

    derivatives, pull = torch.func.vjp(first, *inputs, *outward)
    found = pull(tuple(torch.zeros_like(d) if w is None else w for d, w in zip(derivatives, wanted, strict=True)))
    dx, dh0, *rest = found
    dc0, rest = (rest[0], rest[1:]) if net.has_cell else (None, rest)
    dweights, ends = rest[: len(weights)], rest[len(weights) :]
    return dx, dh0, dc0, *ends, *([] if net.has_cell else [None]), list(dweights)


def kept(seed: Tensor, layer: int, probability: float, shape: Sequence[Any]) -> Tensor:
    """As `fastrnn._dropout.kept`: which elements of a layer's input, (T, B, W), the kernels keep."""

    def signed(number: int) -> int:
        return number - 2**64 if number >= 2**63 else number

    def shifted(z: Tensor, bits: int) -> Tensor:
        return (z >> bits) & (2 ** (64 - bits) - 1)  # what comes in from the left is 0 in unsigned numbers

    def splitmix64(z: Tensor) -> Tensor:
        z = z + signed(0x9E3779B97F4A7C15)
        z = (z ^ shifted(z, 30)) * signed(0xBF58476D1CE4E5B9)
        z = (z ^ shifted(z, 27)) * signed(0x94D049BB133111EB)
        return z ^ shifted(z, 31)

    steps, rows, width = shape
    position = torch.arange(steps * rows * width, device=seed.device).view(steps, rows, width)
    return shifted(splitmix64(position + splitmix64(splitmix64(seed) + layer)), 40) >= int(probability * 2**24)


def differentiable(
    net: Network,
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
) -> tuple[Tensor, ...]:
    """y, h_n and, of an LSTM, c_n by PyTorch's own operators, with the kernels' dropout masks for `seed`."""
    rows = x.shape[0] if net.batch_first else x.shape[1]
    initial = [x.new_zeros(net.state_shape((rows,), net.output)) if h0 is None else h0]
    if net.has_cell:
        initial.append(x.new_zeros(net.state_shape((rows,), net.hidden)) if c0 is None else c0)

    def dropout(inputs: Tensor, layer: int) -> Tensor:
        assert seed is not None
        keep = kept(seed.to(inputs.device), layer, net.dropout, inputs.shape)
        return inputs * keep * _dropout.scale(net.dropout)

    y, finals = _cells.run(
        net.cell,
        x.transpose(0, 1) if net.batch_first else x,
        tuple(initial),
        weights,
        lengths=lengths if lengths is None else lengths.to(x.device),
        dropout=dropout if net.drops and seed is not None else None,
        **net.arguments,
    )
    return (y.transpose(0, 1) if net.batch_first else y), *finals

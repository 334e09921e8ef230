"""The kernels as PyTorch operators, `torch.ops.fastrnn.forward` and `torch.ops.fastrnn.backward`, with shapes for
tracing, derivatives of any order and a rule for `vmap`; and the call of the core that `_eager` makes, too: results are
allocated here, and addresses of tensors handed over.

An operator takes batches, (T, B, …) or, with `batch_first`, (B, T, …), on the CPU, in float32 or float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import _core, _dropout
from . import _cells

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
LINE = 64  # bytes; every array of a tape begins at a multiple


class Network:
    """A Spec, and what PyTorch needs to know of it."""

    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: torch.dtype,
    ) -> None:
        options = num_layers, bias, batch_first, dropout, bidirectional, proj_size, DTYPES[dtype]
        self.spec = _core.make_spec(cell, input_size, hidden_size, *options)
        self.cell = cell
        self.dtype = dtype
        self.batch_first = batch_first
        self.shapes = [torch.Size(shape) for _, shape in self.spec.parameter_shapes()]
        self.states = num_layers * (1 + bidirectional)
        self.input = input_size
        self.hidden = hidden_size
        self.output = proj_size or hidden_size
        self.width = self.output * (1 + bidirectional)
        self.has_cell = cell == "lstm"
        self.drops = dropout > 0 and num_layers > 1
        self.dropout = dropout
        self.arguments: dict[str, Any] = {"num_layers": num_layers, "bias": bias, "bidirectional": bidirectional}
        self._tape_widths = [n for n in _core.tape_widths(self.spec) if n]
        self._itemsize = dtype.itemsize

    def tape_bytes(self, steps: Any, rows: Any) -> Any:
        """Of a call's tape; the sizes may be symbols."""
        values = steps * rows * self._itemsize
        return sum((n * values + LINE - 1) // LINE * LINE for n in self._tape_widths)

    def state_shape(self, batch: tuple[Any, ...], width: int) -> tuple[Any, ...]:
        return (self.states, *batch, width)


network = lru_cache(maxsize=256)(Network)


# ------------------------------------------------------------------------------------------------------ the native call


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def infer(
    net: Network, weights: Sequence[int], x: Tensor, h0: Tensor | None, c0: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y, h_n and c_n of an x (T, B, I), (B, T, I) or (T, I), given weights by their addresses."""
    return _forward(net, weights, x, h0, c0, lengths, None, 0)


def train(
    net: Network,
    weights: Sequence[int],
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """The same with dropout, and the tape."""
    axes = x.shape
    steps, rows = (axes[0], 1) if len(axes) == 2 else (axes[1], axes[0]) if net.batch_first else axes[:2]
    tape = torch.empty(net.tape_bytes(steps, rows), dtype=torch.uint8)
    return *_forward(net, weights, x, h0, c0, lengths, tape, seed), tape


def _forward(
    net: Network,
    weights: Sequence[int],
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    tape: Tensor | None,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor | None]:
    shape, dtype = x.shape, net.dtype
    batch = () if len(shape) == 2 else (shape[0 if net.batch_first else 1],)
    y = torch.empty((*shape[:-1], net.width), dtype=dtype)
    h_n = torch.empty((net.states, *batch, net.output), dtype=dtype)
    c_n = torch.empty((net.states, *batch, net.hidden), dtype=dtype) if net.has_cell else None
    _core.forward_at(
        net.spec,
        weights,
        torch.get_num_threads(),
        x.data_ptr(),
        shape,
        x.stride(),
        address(lengths),
        address(h0),
        address(c0),
        y.data_ptr(),
        h_n.data_ptr(),
        address(c_n),
        address(tape),
        seed,
    )
    return y, h_n, c_n


def gradients(
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
    """dx (None where not needed), dh0, dc0 and those of the weights, for a loss's derivatives dy, dh_n and dc_n."""
    shape, dtype = x.shape, net.dtype
    batch = () if len(shape) == 2 else (shape[0 if net.batch_first else 1],)
    dy, dh_n, dc_n = (None if d is None else d.contiguous() for d in (dy, dh_n, dc_n))
    dx = torch.empty(shape, dtype=dtype) if need_dx else None
    dh0 = torch.empty((net.states, *batch, net.output), dtype=dtype)
    dc0 = torch.empty((net.states, *batch, net.hidden), dtype=dtype) if net.has_cell else None
    dweights = [torch.empty(size, dtype=dtype) for size in net.shapes]
    _core.backward_at(
        net.spec,
        [w.data_ptr() for w in weights],
        torch.get_num_threads(),
        x.data_ptr(),
        shape,
        x.stride(),
        address(lengths),
        address(h0),
        address(c0),
        y.data_ptr(),
        tape.data_ptr(),
        seed,
        address(dy),
        address(dh_n),
        address(dc_n),
        address(dx),
        dh0.data_ptr(),
        address(dc0),
        [d.data_ptr() for d in dweights],
    )
    return dx, dh0, dc0, dweights


def draw_seed() -> Tensor:
    """Of dropout masks, from PyTorch's default generator."""
    return torch.randint(2**62, (1,))


# -------------------------------------------------------------------------------------------------------- the operators


def _network_of(
    cell: str,
    x: Tensor,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    dropout: float,
) -> Network:
    """The network that an operator's arguments describe: its sizes are those of the weights."""
    count = num_layers * (1 + bidirectional)
    each = len(weights) // count if count > 0 else 0
    if cell not in _cells.STEPS or each not in (2, 3, 4, 5) or len(weights) != each * count:
        raise ValueError(f"fastrnn: {len(weights)} weights are not those of {num_layers} layers of {cell!r}")
    bias, projected = each > 3, each in (3, 5)
    output = weights[1].shape[-1]
    hidden = weights[each - 1].shape[-1] if projected else output
    sizes = weights[0].shape[-1], hidden, num_layers
    proj_size = output if projected else 0
    return network(cell, *sizes, bias, batch_first, dropout, bidirectional, proj_size, x.dtype)


def _check(name: str, tensor: Tensor, shape: Sequence[Any], dtype: torch.dtype) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != tuple(shape) or tensor.device.type != "cpu":
        raise ValueError(
            f"fastrnn: {name} must be {dtype} {tuple(shape)} on the CPU, "
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
    rows, steps = (x.shape[0], x.shape[1]) if net.batch_first else (x.shape[1], x.shape[0])
    _check("x", x, (*x.shape[:2], net.input), net.dtype)
    for index, (weight, shape) in enumerate(zip(weights, net.shapes, strict=True)):
        _check(f"weights[{index}]", weight, shape, net.dtype)
    if h0 is not None:
        _check("h0", h0, (net.states, rows, net.output), net.dtype)
    if c0 is not None:
        _check("c0", c0, (net.states, rows, net.hidden), net.dtype)
    if lengths is not None:
        _check("lengths", lengths, (rows,), torch.int64)
        check_lengths(lengths, steps)
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
    net = _network_of(cell, x, weights, num_layers, bidirectional, batch_first, dropout)
    weights, h0, c0, lengths, number = _checked(net, x, weights, h0, c0, lengths, seed)
    pointers = [w.data_ptr() for w in weights]
    if training:
        y, h_n, c_n, tape = train(net, pointers, x, h0, c0, lengths, number)
    else:
        y, h_n, c_n = infer(net, pointers, x, h0, c0, lengths)
        tape = torch.empty(0, dtype=torch.uint8)
    return y, h_n, x.new_empty(0) if c_n is None else c_n, tape


@forward.register_fake
def _(x, weights, h0, c0, lengths, seed, cell, num_layers, bidirectional, batch_first, dropout, training):  # type: ignore[no-untyped-def]
    net = _network_of(cell, x, weights, num_layers, bidirectional, batch_first, dropout)
    rows, steps = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    y = x.new_empty((*x.shape[:2], net.width))
    h_n = x.new_empty(net.state_shape((rows,), net.output))
    c_n = x.new_empty(net.state_shape((rows,), net.hidden) if net.has_cell else 0)
    return y, h_n, c_n, x.new_empty(net.tape_bytes(steps, rows) if training else 0, dtype=torch.uint8)


@torch.library.custom_op("fastrnn::backward", mutates_args=())
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
    net = _network_of(cell, x, weights, num_layers, bidirectional, batch_first, dropout)
    weights, h0, c0, lengths, number = _checked(net, x, weights, h0, c0, lengths, seed)
    rows, steps = (x.shape[0], x.shape[1]) if batch_first else (x.shape[1], x.shape[0])
    _check("y", y, (*x.shape[:2], net.width), net.dtype)
    _check("tape", tape, (net.tape_bytes(steps, rows),), torch.uint8)
    for name, given, shape in (
        ("dy", dy, y.shape),
        ("dh_n", dh_n, (net.states, rows, net.output)),
        ("dc_n", dc_n if net.has_cell else None, (net.states, rows, net.hidden)),
    ):
        if given is not None:
            _check(name, given, shape, net.dtype)
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
def _(
    x,
    weights,
    h0,
    c0,
    lengths,
    seed,
    y,
    tape,
    dy,
    dh_n,
    dc_n,
    cell,
    num_layers,
    bidirectional,
    batch_first,
    dropout,
    need_dx,
):  # type: ignore[no-untyped-def]
    net = _network_of(cell, x, weights, num_layers, bidirectional, batch_first, dropout)
    rows = x.shape[0] if batch_first else x.shape[1]
    dx = x.new_empty(x.shape if need_dx else 0)
    dh0 = x.new_empty(net.state_shape((rows,), net.output))
    dc0 = x.new_empty(net.state_shape((rows,), net.hidden) if net.has_cell else 0)
    return dx, dh0, dc0, [x.new_empty(shape) for shape in net.shapes]


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
    """Second derivatives: those of the network in PyTorch's own operators, from the inputs."""
    x, h0, c0, lengths, seed, dy, dh_n, dc_n, *weights = ctx.saved_tensors
    further = torch.is_grad_enabled()  # third derivatives are wanted, too
    with torch.enable_grad():
        # Aliases: the derivative is to see each input as independent of the others.
        inputs = [None if t is None else t.view_as(t) for t in (x, h0, c0, *weights)]
        inputs = [t if t is None or t.requires_grad else t.detach().requires_grad_() for t in inputs]
        x, h0, c0, *weights = inputs
        net = _network_of(ctx.options[0], x, weights, *ctx.options[1:])
        results = differentiable(net, x, weights, h0, c0, lengths, seed)
        outward = [None if d is None else d.view_as(d) for d in (dy, dh_n, dc_n)]
        outward = [d if d is None or d.requires_grad else d.detach().requires_grad_() for d in outward]
        pairs = [(r, d) for r, d in zip(results, outward, strict=False) if d is not None]
        sources = [t for t in inputs if t is not None]
        first = torch.autograd.grad(
            [r for r, _ in pairs], sources, [d for _, d in pairs], create_graph=True, allow_unused=True
        )
        derived = dict(zip((id(t) for t in sources), first, strict=True))
        wanted = [
            (x, ddx if ctx.need_dx else None),
            (h0, ddh0),
            (c0, ddc0),
            *zip(weights, ddweights or [], strict=False),
        ]
        second = [(derived[id(t)], dd) for t, dd in wanted if t is not None and dd is not None]
        second = [(g, dd) for g, dd in second if g is not None and g.requires_grad]
        arguments = [*sources, *(d for d in outward if d is not None)]
        if second:
            found = torch.autograd.grad(
                [g for g, _ in second],
                arguments,
                [dd for _, dd in second],
                create_graph=further,
                allow_unused=True,
            )
        else:
            found = (None,) * len(arguments)
    of = dict(zip((id(t) for t in arguments), found, strict=True))
    dx, dh0, dc0, *dweights = (None if t is None else of[id(t)] for t in inputs)
    return (dx, list(dweights), dh0, dc0, None, None, None, None, *(of.get(id(d)) for d in outward)) + (None,) * 6


backward.register_autograd(_backward_gradient, setup_context=_backward_context)


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
        kept = _dropout.kept(0 if seed is None else int(seed), layer, net.dropout, tuple(inputs.shape))
        return inputs * torch.from_numpy(kept) * _dropout.scale(net.dropout)

    y, finals = _cells.run(
        net.cell,
        x.transpose(0, 1) if net.batch_first else x,
        tuple(initial),
        weights,
        lengths=lengths,
        dropout=dropout if net.drops else None,
        **net.arguments,
    )
    return (y.transpose(0, 1) if net.batch_first else y), *finals

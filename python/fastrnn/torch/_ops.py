"""The kernels as PyTorch operators, `torch.ops.fastrnn.forward` and `torch.ops.fastrnn.backward`, with shapes for
tracing, derivatives of any order and a rule for `vmap`; and the call of the core that `_eager` makes, too: results are
allocated here, and addresses of tensors handed over.

An operator takes batches, (T, B, …) or, with `batch_first`, (B, T, …), on the CPU, in float32 or float64; and in builds
with CUDA on a GPU, in float16 and bfloat16 too. What it does there is queued on PyTorch's current stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import _core, _device, _dropout
from .._options import read
from ..reference import CELLS
from . import _cells

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
CUDA_DTYPES = DTYPES | {torch.float16: "float16", torch.bfloat16: "bfloat16"}
LINE, CUDA_LINE = 64, 256  # bytes; every array of a tape begins at a multiple
LARGE = 4 << 20  # bytes; from here on the core's memory is in large pages, and used again


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
        on_cuda: bool = False,
    ) -> None:
        numbers = num_layers, bias, batch_first, dropout, bidirectional, proj_size
        name, options = read(cell, 1 + bidirectional)
        own = DTYPES.get(dtype, "float32")
        self.spec = _core.make_spec(name, input_size, hidden_size, *numbers, own, options)
        self.cuda = None
        self.cell = cell
        self.dtype = dtype
        self.batch_first = batch_first
        self.shapes = [torch.Size(shape) for _, shape in self.spec.parameter_shapes()]
        self.states = num_layers * (1 + bidirectional)
        self.input = input_size
        self.hidden = hidden_size
        self.output = proj_size or hidden_size
        self.width = self.output * (1 + bidirectional)
        self.has_cell = CELLS[name].has_cell
        self.drops = dropout > 0 and num_layers > 1
        self.dropout = dropout
        self.arguments: dict[str, Any] = {"num_layers": num_layers, "bias": bias, "bidirectional": bidirectional}
        self._line = LINE
        self._tape = [(n, dtype.itemsize) for n in _core.tape_widths(self.spec) if n]  # values, and bytes of a value
        if on_cuda:
            self.cuda = _device.network(self.spec, CUDA_DTYPES[dtype])
            self._line = CUDA_LINE
            self._tape = _device.cuda().tape_widths(self.cuda)

    def tape_bytes(self, steps: Any, rows: Any) -> Any:
        """Of a call's tape; the sizes may be symbols."""
        line, values = self._line, steps * rows
        return sum((n * size * values + line - 1) // line * line for n, size in self._tape)

    def state_shape(self, batch: tuple[Any, ...], width: int) -> tuple[Any, ...]:
        return (self.states, *batch, width)


network = lru_cache(maxsize=256)(Network)


def has_cell(text: str) -> bool:
    """Whether a cell, behind whose name activations may follow, has a c."""
    return CELLS[text.partition(" ")[0]].has_cell


# ------------------------------------------------------------------------------------------------------ the native call


def new_tape(net: Network, x: Tensor) -> Tensor:
    """For a call on an x of this shape."""
    axes = x.shape
    steps, rows = (axes[0], 1) if len(axes) == 2 else (axes[1], axes[0]) if net.batch_first else axes[:2]
    size = net.tape_bytes(steps, rows)
    if size >= LARGE and net.cuda is None:
        try:
            return torch.frombuffer(_core.memory(size), dtype=torch.uint8)
        except MemoryError:
            return x.new_empty(size, dtype=torch.uint8)  # or PyTorch's own error, which programs know
    return x.new_empty(size, dtype=torch.uint8)


def batch_axis(net: Network, shape: torch.Size, batch_sizes: Tensor | None) -> tuple[int, ...]:
    """The axis of the batch, if there is one, in a state for an x of this shape."""
    if batch_sizes is not None:
        return (min(max(int(batch_sizes[0]), 0), shape[0]),)  # the core refuses what is out of this range
    return () if len(shape) == 2 else (shape[0 if net.batch_first else 1],)


def run(
    net: Network,
    weights: Sequence[Tensor] | _core.Prepared,
    x: Tensor,
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    batch_sizes: Tensor | None = None,
    tape: Tensor | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """y, h_n and c_n of an x (T, B, I), (B, T, I) or (T, I), or, with `batch_sizes`, of a PackedSequence's data (N, I);
    with a tape, which is filled, in training."""
    shape = x.shape
    if batch_sizes is not None:
        batch_sizes = batch_sizes.clone()  # which another thread may change
    batch = batch_axis(net, shape, batch_sizes)
    y = x.new_empty(*shape[:-1], net.width)
    h_n = x.new_empty(net.states, *batch, net.output)
    c_n = x.new_empty(net.states, *batch, net.hidden) if net.has_cell else None
    if net.cuda is not None:
        assert not isinstance(weights, _core.Prepared)
        with _Queue(x) as queue:
            arguments = _arguments(x, lengths, h0, c0, y, tape, seed)
            pointers = [w.data_ptr() for w in weights]
            _device.cuda().forward_at(net.cuda, pointers, arguments, h_n.data_ptr(), _address(c_n), *queue)
        return y, h_n, c_n
    threads, steps = torch.get_num_threads(), 0 if batch_sizes is None else len(batch_sizes)
    _core.forward_at(
        net.spec, weights, threads, x, shape, x.stride(), batch_sizes, steps, lengths, h0, c0, y, h_n, c_n, tape, seed
    )
    return y, h_n, c_n


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


class _Queue:
    """Where a call on CUDA tensors goes: what gives it memory, its device and its stream."""

    def __init__(self, x: Tensor) -> None:
        self.x = x
        self.device = torch.cuda.device(x.device) if x.is_cuda else nullcontext()  # the emulator's is the host
        self.memory: list[Tensor] = []

    def __enter__(self) -> tuple[Any, int, int]:
        self.device.__enter__()
        stream = torch.cuda.current_stream(self.x.device).cuda_stream if self.x.is_cuda else 0
        return self.allocate, self.x.get_device() if self.x.is_cuda else 0, stream

    def __exit__(self, *error: Any) -> None:
        self.device.__exit__(*error)

    def allocate(self, size: int) -> int:
        self.memory.append(self.x.new_empty(size, dtype=torch.uint8))
        return self.memory[-1].data_ptr()


def _arguments(
    x: Tensor, lengths: Tensor | None, h0: Tensor | None, c0: Tensor | None, y: Tensor, tape: Tensor | None, seed: int
) -> Any:
    inputs = _address(lengths), _address(h0), _address(c0)
    return _device.cuda().Arguments(x.data_ptr(), x.shape, x.stride(), *inputs, y.data_ptr(), _address(tape), seed)


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
    need_dh0: bool = True,
    batch_sizes: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None, list[Tensor]]:
    """dx and dh0 (None where not needed), dc0 and those of the weights, for a loss's derivatives dy, dh_n and dc_n."""
    shape = x.shape
    if batch_sizes is not None:
        batch_sizes = batch_sizes.clone()
    batch = batch_axis(net, shape, batch_sizes)
    dy, dh_n, dc_n = (None if d is None else d.contiguous().resolve_neg() for d in (dy, dh_n, dc_n))
    dx = x.new_empty(*shape) if need_dx else None
    dh0 = x.new_empty(net.states, *batch, net.output) if need_dh0 else None
    dc0 = x.new_empty(net.states, *batch, net.hidden) if net.has_cell else None
    dweights = [x.new_empty(*size) for size in net.shapes]
    if net.cuda is not None:
        with _Queue(x) as queue:
            _device.cuda().backward_at(
                net.cuda,
                [w.data_ptr() for w in weights],
                _arguments(x, lengths, h0, c0, y, tape, seed),
                *(_address(t) for t in (dy, dh_n, dc_n, dx, dh0, dc0)),
                [d.data_ptr() for d in dweights],
                *queue,
            )
        return dx, dh0, dc0, dweights
    threads, steps = torch.get_num_threads(), 0 if batch_sizes is None else len(batch_sizes)
    given = weights, threads, x, shape, x.stride(), batch_sizes, steps, lengths, h0, c0, y, tape, seed
    _core.backward_at(net.spec, *given, dy, dh_n, dc_n, dx, dh0, dc0, dweights)
    return dx, dh0, dc0, dweights


def draw_seed() -> Tensor:
    """Of dropout masks, from PyTorch's default generator."""
    return torch.randint(2**62, (1,), device="cpu")


# -------------------------------------------------------------------------------------------------------- the operators


def network_of(
    cell: str,
    x: Tensor,
    weights: Sequence[Tensor],
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    dropout: float,
    *,
    on_cuda: bool,
) -> Network:
    """The network that an operator's arguments describe: its sizes are those of the weights, and activations may follow
    the name of its cell, as `_options.written` has it."""
    num_layers = int(num_layers)  # with `dynamic=True` some versions of the compiler make it a symbol
    count = num_layers * (1 + bidirectional)
    each = len(weights) // count if count > 0 else 0
    if cell.partition(" ")[0] not in CELLS or each not in (2, 3, 4, 5) or len(weights) != each * count:
        raise ValueError(f"fastrnn: {len(weights)} weights are not those of {num_layers} layers of {cell!r}")
    bias, projected = each > 3, each in (3, 5)
    output = int(weights[1].shape[-1])  # an int where sizes are symbols: a program is compiled for its weights' shapes
    hidden = int(weights[each - 1].shape[-1]) if projected else output
    sizes = int(weights[0].shape[-1]), hidden, num_layers
    proj_size = output if projected else 0
    return network(cell, *sizes, bias, batch_first, dropout, bidirectional, proj_size, x.dtype, on_cuda)


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

"""The call of the core, on the CPU or queued on a GPU: results are allocated here, addresses of tensors handed over."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from .. import _core, _device
from ._network import Network, batch_axis

LARGE = 4 << 20  # bytes; from here on the core's memory is in large pages, and used again


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

"""What a network is: its sizes, its type, its cell, as the core has it and as PyTorch needs it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .. import _core, _device
from .._options import read
from ..reference import CELLS

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
CUDA_DTYPES = DTYPES | {torch.float16: "float16", torch.bfloat16: "bfloat16"}
LINE, CUDA_LINE = 64, 256  # bytes; every array of a tape begins at a multiple


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


def batch_axis(net: Network, shape: torch.Size, batch_sizes: Tensor | None) -> tuple[int, ...]:
    """The axis of the batch, if there is one, in a state for an x of this shape."""
    if batch_sizes is not None:
        return (min(max(int(batch_sizes[0]), 0), shape[0]),)  # the core refuses what is out of this range
    return () if len(shape) == 2 else (shape[0 if net.batch_first else 1],)


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

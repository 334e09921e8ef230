"""The kernels under Keras on PyTorch: the operators of `fastrnn.torch`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..torch._modules import operate, unserved
from ._served import Cell


def refuses(x: Tensor, kernel: Tensor, cell: Cell) -> str | None:
    if cell.options is not None and x.device.type == "cuda":
        return "activations that the kernels for CUDA do not have"
    return unserved(x, (), (kernel,))


def branches() -> bool:
    """Not in a program that is being compiled, and not under `torch.func`."""
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None


def run(
    cell: Cell,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Tensor | None,
    *,
    sequences: bool,
    training: bool,
) -> tuple[Tensor | None, list[Tensor]]:
    h0, c0 = (*(s.unsqueeze(0) for s in states), None)[:2]
    lengths = None if lengths is None else lengths.long()
    y, *finals = operate(x, weights, h0, c0, lengths, None, cell.text, 1, False, True, 0.0)
    return y if sequences else None, [final.squeeze(0) for final in finals[: len(states)]]

"""The networks in PyTorch's own operators, one step after the other: what can be differentiated any number of times,
forward and backward, mapped by `vmap`, and run on any device.

The kernels' second derivatives come from here, and the results of what neither the kernels nor an operator of PyTorch
serve. A step is that of `fastrnn.reference`, with PyTorch's functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus, softsign

from .._options import PUBLISHED, read
from ..reference import CELLS, Cell, Weights

Dropout = Callable[[Tensor, int], Tensor]  # (the input of a layer, the layer's number) -> what is left of it
States = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM
Function = Callable[[Tensor], Tensor]

# f(a, α, β)
FUNCTIONS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "tanh": lambda a, *_: a.tanh(),
    "sigmoid": lambda a, *_: a.sigmoid(),
    "relu": lambda a, *_: a.relu(),
    "affine": lambda a, α, β: α * a + β,
    "leaky_relu": lambda a, α, _: torch.where(a < 0, α * a, a),
    "thresholded_relu": lambda a, α, _: torch.where(a <= α, 0, a),
    "scaled_tanh": lambda a, α, β: α * (β * a).tanh(),
    "hard_sigmoid": lambda a, α, β: (α * a + β).clamp(0, 1),
    "elu": lambda a, α, _: torch.where(a < 0, α * a.clamp(max=0).expm1(), a),  # whose exponential overflows nowhere
    "softsign": lambda a, *_: softsign(a),
    "softplus": lambda a, *_: softplus(a, threshold=40),  # from where on it is a in float64, too
}


def cells_of(cell: str, directions: int) -> list[Cell]:
    """The cell of each direction; a cell is a name, or what `_options.written` makes of it and its activations."""
    name, options = read(cell, directions)
    functions = [(f, 0.0, 0.0) for f in PUBLISHED[name]] * directions
    if options is not None and options.activations is not None:
        functions = list(options.activations)
    each = len(functions) // directions
    applied = [_function(*f) for f in functions]
    kind: Any = type(CELLS[name])
    return [kind(*applied[each * d : each * (d + 1)]) for d in range(directions)]


def _function(name: str, alpha: float, beta: float) -> Function:
    function = FUNCTIONS[name]
    return lambda a: function(a, alpha, beta)


def by_layer(weights: Sequence[Tensor], count: int, bias: bool) -> list[Weights]:
    """The flat list of weights, `count` layers and directions of them."""
    each = len(weights) // count
    layers = []
    for k in range(0, len(weights), each):
        w_ih, w_hh, *others = weights[k : k + each]
        biases: Any = others[:2] if bias else (0, 0)
        layers.append(Weights(w_ih, w_hh, *biases, *others[2 if bias else 0 :]))
    return layers


def run(
    cell: str,
    x: Tensor,
    initial: States,
    weights: Sequence[Tensor],
    *,
    num_layers: int,
    bias: bool,
    bidirectional: bool,
    lengths: Tensor | None = None,
    dropout: Dropout | None = None,
) -> tuple[Tensor, States]:
    """Take a network over x, (T, B, I), from `initial`: h (L*D, B, H_out) and, for an LSTM, c (L*D, B, H).

    Returns y, (T, B, D*H_out), 0 past a row's length, and the last states.
    """
    directions = 1 + bidirectional
    cells = cells_of(cell, directions)
    layers = by_layer(weights, num_layers * directions, bias)
    finals = []
    for layer in range(num_layers):
        if dropout is not None and layer > 0:
            x = dropout(x, layer)
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            states = tuple(s[index] for s in initial)
            y, final = _sequence(cells[direction], x, states, layers[index], lengths, reverse=direction == 1)
            outputs.append(y)
            finals.append(final)
        x = torch.cat(outputs, -1) if bidirectional else outputs[0]
    return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))


def _sequence(
    cell: Cell, x: Tensor, states: States, weights: Weights, lengths: Tensor | None, reverse: bool
) -> tuple[Tensor, States]:
    """One layer and direction."""
    outputs: list[Tensor] = []
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        x_t = x[t]
        alive = None if lengths is None else (t < lengths).unsqueeze(-1)
        if alive is not None:
            x_t = torch.where(alive, x_t, 0)  # what pads the input may be NaN, which has no finite derivative
        after, _, _ = cell.step(weights, x_t, states)
        if alive is None:
            states = after
            outputs.append(states[0])
        else:
            states = tuple(torch.where(alive, new, old) for new, old in zip(after, states, strict=True))
            outputs.append(torch.where(alive, after[0], 0))
    if not outputs:
        return x.new_zeros((0, *states[0].shape)), states
    return torch.stack(outputs[::-1] if reverse else outputs), states

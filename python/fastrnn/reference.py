"""The same networks in plain NumPy: to read, and to check the kernels against.

From the inside out:

- a cell (`RNNCell`, `LSTMCell`, `GRUCell`, `GRUResetBeforeCell`) is one time step, forward and backward;
- `run` and `run_backward` take a cell over a sequence: the time loop, lengths, reverse;
- `infer`, `forward` and `backward` take it through layers and directions, with dropout between layers;
- `RNN`, `LSTM` and `GRU` are the classes of `fastrnn` on top of these.

A step works on all rows of a batch at once, and on those alone that have not ended: arrays in a cell are (B, width),
with B the rows still alive. W_ih, W_hh, b_ih, b_hh hold the rows of all gates, one gate after the other.

Backward functions are the chain rule, line by line. Their variables are named after what they are the derivative of:
`dh` is dloss/dh, `da` that of the pre-activations. With a = W x for each row, da gives dx = da W and dW = da^T x.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from . import _dropout, layers
from ._checks import check_int, got
from ._core import Spec, check
from ._options import Options
from ._spec import Array, State

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "Cell",
    "GRUCell",
    "GRUResetBeforeCell",
    "LSTMCell",
    "Prepared",
    "RNNCell",
    "Tape",
    "Weights",
    "backward",
    "forward",
    "infer",
    "prepare",
    "run",
    "run_backward",
    "sigmoid",
]


# ---------------------------------------------------------------------------------------------------------- one step


@dataclass
class Weights:
    """The parameters of one layer and direction, or their gradients."""

    ih: Array  # (G*H, I)
    hh: Array  # (G*H, H_out)
    b_ih: Array  # (G*H,), zeros in a network without biases
    b_hh: Array  # (G*H,)
    hr: Array | None = None  # (H_out, H), where h is projected
    peephole: Array | None = None  # (3*H,), of i, f, o, where the gates see c

    def zeros(self) -> Weights:
        def zeros(array: Array) -> Array:
            return np.zeros(array.shape, array.dtype)

        hr, peephole = (None if array is None else zeros(array) for array in (self.hr, self.peephole))
        return Weights(zeros(self.ih), zeros(self.hh), zeros(self.b_ih), zeros(self.b_hh), hr, peephole)


States = tuple[Array, ...]  # (h,), or (h, c) of a cell that has a c
Gates = tuple[Array, ...]  # (B, H) of each gate


class Cell(Protocol):
    """One time step of a cell, forward and backward."""

    @property
    def gates(self) -> int:
        """G"""

    @property
    def has_cell(self) -> bool:
        """Whether the state is (h, c): beside h, which is the output, a c of H numbers."""

    def step(self, w: Weights, x: Array, state: States) -> tuple[States, Gates, Gates]:
        """The state after reading x, the gates' sums `a`, and the activated gates.

        In operators that arrays of NumPy and tensors of PyTorch have in common: `fastrnn.torch` differentiates it.
        """

    def step_backward(
        self,
        w: Weights,
        dw: Weights,
        x: Array,
        before: States,
        sums: Array,
        gates: Array,
        after: States,
        dafter: States,
    ) -> tuple[Array, States]:
        """dx and the gradient of the state before, given that of the state after; adds to `dw`."""


def split(a: Array, parts: int) -> list[Array]:
    """The last axis in equal parts."""
    size = a.shape[-1] // parts
    return [a[..., k * size : (k + 1) * size] for k in range(parts)]


def sigmoid(a: Array) -> Array:
    """1 / (1 + e^-a), with e^-|a| alone, which cannot overflow."""
    e = np.exp(-np.abs(a))
    value: Array = np.where(a >= 0, 1, e) / (1 + e)
    return value


# f(a, α, β), and its slope there, which for most follows from y = f(a).
FUNCTIONS: dict[str, tuple[Callable[..., Array], Callable[..., Array]]] = {
    "tanh": (lambda a, *_: np.tanh(a), lambda a, y, *_: 1 - y**2),
    "sigmoid": (lambda a, *_: sigmoid(a), lambda a, y, *_: y * (1 - y)),
    "relu": (lambda a, *_: np.maximum(a, 0), lambda a, y, *_: ~(a <= 0)),
    "affine": (lambda a, α, β: α * a + β, lambda a, y, α, β: np.full_like(a, α)),
    "leaky_relu": (lambda a, α, _: np.where(a < 0, α * a, a), lambda a, y, α, _: np.where(a < 0, α, 1)),
    "thresholded_relu": (lambda a, α, _: np.where(a <= α, 0, a), lambda a, y, α, _: ~(a <= α)),
    "scaled_tanh": (lambda a, α, β: α * np.tanh(β * a), lambda a, y, α, β: α * β * (1 - np.tanh(β * a) ** 2)),
    "hard_sigmoid": (lambda a, α, β: np.clip(α * a + β, 0, 1), lambda a, y, α, β: np.where((y <= 0) | (y >= 1), 0, α)),
    "elu": (lambda a, α, _: np.where(a < 0, α * np.expm1(a), a), lambda a, y, α, _: np.where(a < 0, y + α, 1)),
    "softsign": (lambda a, *_: a / (1 + np.abs(a)), lambda a, y, *_: (1 / (1 + np.abs(a))) ** 2),
    "softplus": (lambda a, *_: np.logaddexp(a, 0), lambda a, y, *_: sigmoid(a)),
}

FLAT = {"relu", "thresholded_relu", "hard_sigmoid"}  # somewhere


@dataclass(frozen=True)
class Activation:
    """f, the function that a cell applies to the sums `a` of a gate."""

    name: str
    alpha: float = 0
    beta: float = 0
    clip: float | None = None  # a is clipped to -clip … clip before

    def __call__(self, a: Array) -> Array:
        y = FUNCTIONS[self.name][0](self._clipped(a), self.alpha, self.beta)
        return np.asarray(y, a.dtype)

    def slope(self, a: Array, y: Array) -> Array:
        """df/da, where f(a) = y."""
        slope = np.asarray(FUNCTIONS[self.name][1](self._clipped(a), y, self.alpha, self.beta), a.dtype)
        return slope if self.clip is None else np.where(np.abs(a) > self.clip, 0, slope)

    def backward(self, a: Array, y: Array, dy: Array) -> Array:
        """dloss/da, given dloss/dy. Where f is flat by its definition nothing passes, were dy infinite or NaN."""
        slope = self.slope(a, y)
        da = dy * slope
        return np.where(slope == 0, 0, da) if self.clip is not None or self.name in FLAT else da

    def _clipped(self, a: Array) -> Array:
        return a if self.clip is None else np.clip(a, -self.clip, self.clip)


SIGMOID, TANH, RELU = Activation("sigmoid"), Activation("tanh"), Activation("relu")


@dataclass(frozen=True)
class RNNCell:
    """Elman 1990:  h' = f(W_ih x + b_ih + W_hh h + b_hh), f one of tanh, relu, sigmoid; or another."""

    f: Activation

    gates: ClassVar[int] = 1
    has_cell: ClassVar[bool] = False

    def step(self, w: Weights, x: Array, state: States) -> tuple[States, Gates, Gates]:
        (h,) = state
        a = x @ w.ih.T + w.b_ih + h @ w.hh.T + w.b_hh
        h = self.f(a)
        return (h,), (a,), (h,)

    def step_backward(
        self,
        w: Weights,
        dw: Weights,
        x: Array,
        before: States,
        sums: Array,
        gates: Array,
        after: States,
        dafter: States,
    ) -> tuple[Array, States]:
        (h,), (h_new,), (dh_new,) = before, after, dafter
        da = self.f.backward(sums[:, 0], h_new, dh_new)
        dw.ih += da.T @ x
        dw.hh += da.T @ h
        dw.b_ih += da.sum(0)
        dw.b_hh += da.sum(0)
        return da @ w.ih, (da @ w.hh,)


@dataclass(frozen=True)
class LSTMCell:
    """Hochreiter & Schmidhuber 1997, forget gate of Gers et al. 2000, peepholes of Gers & Schmidhuber 2000, projection
    of Sak et al. 2014.

    i, f, o = s(a_i), s(a_f), s(a_o);  g = t(a_g);  a = W_ih x + b_ih + W_hh h + b_hh;  s = sigmoid, t = u = tanh
    c' = f * c + i * g
    m  = o * u(c')
    h' = m, or W_hr m

    Peepholes add p_i * c to a_i, p_f * c to a_f, p_o * c' to a_o. Where i and f are coupled, f = 1 - i. What is clipped
    is a, not c'.
    """

    s: Activation
    t: Activation
    u: Activation
    coupled: bool = False

    gates: ClassVar[int] = 4
    has_cell: ClassVar[bool] = True

    def step(self, w: Weights, x: Array, state: States) -> tuple[States, Gates, Gates]:
        h, c = state
        a_i, a_f, a_g, a_o = split(x @ w.ih.T + w.b_ih + h @ w.hh.T + w.b_hh, 4)
        if w.peephole is not None:
            p_i, p_f, p_o = split(w.peephole, 3)
            a_i, a_f = a_i + p_i * c, a_f + p_f * c
        i, g = self.s(a_i), self.t(a_g)
        f = 1 - i if self.coupled else self.s(a_f)
        c = f * c + i * g
        if w.peephole is not None:
            a_o = a_o + p_o * c
        o = self.s(a_o)
        m = o * self.u(c)
        h = m if w.hr is None else m @ w.hr.T
        return (h, c), (a_i, a_f, a_g, a_o), (i, f, g, o)

    def step_backward(
        self,
        w: Weights,
        dw: Weights,
        x: Array,
        before: States,
        sums: Array,
        gates: Array,
        after: States,
        dafter: States,
    ) -> tuple[Array, States]:
        """dc' has three sources: the steps to come, h' through u(c'), and o through its peephole."""
        (h, c), (_, c_new), (dh_new, dc_new) = before, after, dafter
        a_i, a_f, a_g, a_o = (sums[:, k] for k in range(4))
        i, f, g, o = (gates[:, k] for k in range(4))
        u_c = self.u(c_new)
        if w.hr is None or dw.hr is None:
            dm = dh_new
        else:
            dm = dh_new @ w.hr
            dw.hr += dh_new.T @ (o * u_c)
        da_o = self.s.backward(a_o, o, dm * u_c)
        dc_new = dc_new + dm * o * self.u.slope(c_new, u_c)
        if w.peephole is not None:
            p_i, p_f, p_o = split(w.peephole, 3)
            dc_new = dc_new + p_o * da_o
        di, df, dg, dc = dc_new * g, dc_new * c, dc_new * i, dc_new * f
        if self.coupled:
            di, da_f = di - df, np.zeros_like(df)
        else:
            da_f = self.s.backward(a_f, f, df)
        da_i, da_g = self.s.backward(a_i, i, di), self.t.backward(a_g, g, dg)
        if w.peephole is not None and dw.peephole is not None:
            dc = dc + p_i * da_i + p_f * da_f
            dw.peephole += np.concatenate([(da_i * c).sum(0), (da_f * c).sum(0), (da_o * c_new).sum(0)])
        da = np.concatenate([da_i, da_f, da_g, da_o], axis=1)
        dw.ih += da.T @ x
        dw.hh += da.T @ h
        dw.b_ih += da.sum(0)
        dw.b_hh += da.sum(0)
        return da @ w.ih, (da @ w.hh, dc)


@dataclass(frozen=True)
class GRUCell:
    """The variant of cuDNN, Keras and PyTorch: the reset gate acts after the recurrent product.

    a = W_ih x + b_ih;  u = W_hh h + b_hh;  s = sigmoid, t = tanh
    r, z = s(a_r + u_r), s(a_z + u_z)
    n    = t(a_n + r * u_n)
    h'   = (1 - z) * n + z * h
    """

    s: Activation
    t: Activation

    gates: ClassVar[int] = 3
    has_cell: ClassVar[bool] = False

    def step(self, w: Weights, x: Array, state: States) -> tuple[States, Gates, Gates]:
        (h,) = state
        a_r, a_z, a_n = split(x @ w.ih.T + w.b_ih, 3)
        u_r, u_z, u_n = split(h @ w.hh.T + w.b_hh, 3)
        a_r, a_z = a_r + u_r, a_z + u_z
        r, z = self.s(a_r), self.s(a_z)
        a_n = a_n + r * u_n
        n = self.t(a_n)
        return ((1 - z) * n + z * h,), (a_r, a_z, a_n), (r, z, n)

    def step_backward(
        self,
        w: Weights,
        dw: Weights,
        x: Array,
        before: States,
        sums: Array,
        gates: Array,
        after: States,
        dafter: States,
    ) -> tuple[Array, States]:
        """b_ih and b_hh have different gradients for n: r scales the recurrent part alone."""
        (h,), (dh_new,) = before, dafter
        a_r, a_z, a_n = (sums[:, k] for k in range(3))
        r, z, n = (gates[:, k] for k in range(3))
        size = h.shape[1]
        u_n = h @ w.hh[2 * size :].T + w.b_hh[2 * size :]
        da_n = self.t.backward(a_n, n, dh_new * (1 - z))
        da_z = self.s.backward(a_z, z, dh_new * (h - n))
        da_r = self.s.backward(a_r, r, da_n * u_n)
        da = np.concatenate([da_r, da_z, da_n], axis=1)
        du = np.concatenate([da_r, da_z, da_n * r], axis=1)
        dw.ih += da.T @ x
        dw.hh += du.T @ h
        dw.b_ih += da.sum(0)
        dw.b_hh += du.sum(0)
        return da @ w.ih, (du @ w.hh + dh_new * z,)


@dataclass(frozen=True)
class GRUResetBeforeCell:
    """Cho et al. 2014: the reset gate acts before the recurrent product.

    r, z = s(a_r), s(a_z);  a = W_ih x + b_ih + W_hh h + b_hh;  s = sigmoid, t = tanh
    n    = t(W_in x + b_in + W_hn (r * h) + b_hn)
    h'   = (1 - z) * n + z * h
    """

    s: Activation
    t: Activation

    gates: ClassVar[int] = 3
    has_cell: ClassVar[bool] = False

    def step(self, w: Weights, x: Array, state: States) -> tuple[States, Gates, Gates]:
        (h,) = state
        size = h.shape[1]
        a_r, a_z, a_n = split(x @ w.ih.T + w.b_ih + w.b_hh, 3)
        u_r, u_z = split(h @ w.hh[: 2 * size].T, 2)
        a_r, a_z = a_r + u_r, a_z + u_z
        r, z = self.s(a_r), self.s(a_z)
        a_n = a_n + (r * h) @ w.hh[2 * size :].T
        n = self.t(a_n)
        return ((1 - z) * n + z * h,), (a_r, a_z, a_n), (r, z, n)

    def step_backward(
        self,
        w: Weights,
        dw: Weights,
        x: Array,
        before: States,
        sums: Array,
        gates: Array,
        after: States,
        dafter: States,
    ) -> tuple[Array, States]:
        """h has four ways to h': through r and z, through r * h, and directly."""
        (h,), (dh_new,) = before, dafter
        a_r, a_z, a_n = (sums[:, k] for k in range(3))
        r, z, n = (gates[:, k] for k in range(3))
        size = h.shape[1]
        da_n = self.t.backward(a_n, n, dh_new * (1 - z))
        drh = da_n @ w.hh[2 * size :]  # of r * h
        da_z = self.s.backward(a_z, z, dh_new * (h - n))
        da_r = self.s.backward(a_r, r, drh * h)
        da_rz = np.concatenate([da_r, da_z], axis=1)
        da = np.concatenate([da_rz, da_n], axis=1)
        dw.ih += da.T @ x
        dw.hh[: 2 * size] += da_rz.T @ h
        dw.hh[2 * size :] += da_n.T @ (r * h)
        dw.b_ih += da.sum(0)
        dw.b_hh += da.sum(0)
        return da @ w.ih, (da_rz @ w.hh[: 2 * size] + drh * r + dh_new * z,)


CELLS: dict[str, Cell] = {
    "rnn_tanh": RNNCell(TANH),
    "rnn_relu": RNNCell(RELU),
    "rnn_sigmoid": RNNCell(SIGMOID),
    "lstm": LSTMCell(SIGMOID, TANH, TANH),
    "gru": GRUCell(SIGMOID, TANH),
    "gru_reset_before": GRUResetBeforeCell(SIGMOID, TANH),
}


def cells_of(spec: Spec) -> list[Cell]:
    """The cell of each direction of a network, with its options."""
    cell, directions = CELLS[spec.cell], 1 + spec.bidirectional
    if spec.options is None:
        return [cell] * directions
    activations, clip, coupled, _ = spec.options
    assert activations is not None
    # What is clipped are the sums of gates; the third function of an LSTM is of c.
    functions = [Activation(*a, None if k % 3 == 2 and cell.has_cell else clip) for k, a in enumerate(activations)]
    each = len(functions) // directions
    extra = {"coupled": True} if coupled else {}
    parts = (functions[k * each : (k + 1) * each] for k in range(directions))
    return [type(cell)(*part, **extra) for part in parts]


# ------------------------------------------------------------------------------------------------------ one sequence


@dataclass
class Record:
    """What one layer and direction did: all that its backward pass needs. Zeros past a row's length."""

    x: Array  # (T, B, I)
    before: States  # the state each step started from: h (T, B, H_out) and, if the cell has one, c (T, B, H)
    sums: Array  # (T, B, G, H)
    gates: Array  # (T, B, G, H)
    after: States  # the state each step ended with


def _alive(steps: int, lengths: Array, reverse: bool) -> Iterator[tuple[int, Array]]:
    """The time steps in the order of reading, each with the rows that have it.

    Reading forward, a row leaves at its end. Reading in reverse, it joins there: until then its state stays what it
    was initially, which is all it takes to start each row at its own last step.
    """
    for t in reversed(range(steps)) if reverse else range(steps):
        yield t, np.flatnonzero(t < lengths)


def run(
    cell: Cell, w: Weights, x: Array, initial: States, lengths: Array, reverse: bool = False
) -> tuple[States, Record]:
    """Take a cell over x, (T, B, I), from the state `initial`, each (B, width).

    Returns the state after each row's last step, and the record. The outputs are `record.after[0]`.
    """
    steps, batch, _ = x.shape
    state = tuple(s.copy() for s in initial)
    before = tuple(np.zeros((steps, *s.shape), x.dtype) for s in state)
    after = tuple(np.zeros_like(b) for b in before)
    sums, gates = np.zeros((2, steps, batch, cell.gates, len(w.ih) // cell.gates), x.dtype)
    for t, rows in _alive(steps, lengths, reverse):
        old = tuple(s[rows] for s in state)
        new, a, activated = cell.step(w, x[t, rows], old)
        sums[t, rows], gates[t, rows] = np.stack(a, axis=1), np.stack(activated, axis=1)
        for k in range(len(state)):
            before[k][t, rows], after[k][t, rows], state[k][rows] = old[k], new[k], new[k]
    return state, Record(x, before, sums, gates, after)


def run_backward(
    cell: Cell, w: Weights, record: Record, dy: Array, dfinal: States, lengths: Array, reverse: bool = False
) -> tuple[Array, States, Weights]:
    """dx, the gradient of the initial state and that of the weights, given those of the outputs and the last state."""
    dx, dw = np.zeros_like(record.x), w.zeros()
    dstate = tuple(d.copy() for d in dfinal)
    for t, rows in _alive(len(dx), lengths, not reverse):
        dafter = (dstate[0][rows] + dy[t, rows], *(d[rows] for d in dstate[1:]))
        before = tuple(s[t, rows] for s in record.before)
        after = tuple(s[t, rows] for s in record.after)
        x, sums, gates = record.x[t, rows], record.sums[t, rows], record.gates[t, rows]
        dx[t, rows], dbefore = cell.step_backward(w, dw, x, before, sums, gates, after, dafter)
        for d, new in zip(dstate, dbefore, strict=True):
            d[rows] = new
    return dx, dstate, dw


# ------------------------------------------------------------------------------------------------- the whole network


@dataclass(eq=False, repr=False)
class Tape:
    """What one forward call leaves for its backward calls."""

    spec: Spec
    x: Array  # as given
    layout: Layout
    lengths: Array  # (B,)
    weights: list[Weights]  # by layer, then direction
    records: list[Record]  # likewise
    masks: list[Array | None]  # by layer: which of its inputs dropout kept

    @property
    def nbytes(self) -> int:
        """How many bytes the tape holds, beside x and the weights, to which it refers."""
        arrays = [array for r in self.records for array in (*r.before, r.sums, r.gates, *r.after)]
        arrays += [r.x for r in self.records[1 + self.spec.bidirectional :: 1 + self.spec.bidirectional]]
        arrays += [mask for mask in self.masks if mask is not None]
        return sum(array.nbytes for array in arrays)

    def gates(self, layer: int, direction: int = 0) -> Array:
        """The activated gates, (T, B, G, H) in the layout of x; those of an RNN are h. Read-only, zeros at padding.

        Raises TypeError or ValueError for a layer or direction that there is not.
        """
        return self._view(self._record(layer, direction).gates)

    def cells(self, layer: int, direction: int = 0) -> Array:
        """The c of a cell that has one, (T, B, H) in the layout of x. Read-only, zeros at padding.

        Raises TypeError or ValueError for a layer or direction that there is not.
        """
        if not CELLS[self.spec.cell].has_cell:
            raise ValueError(f"cells: a network of {self.spec.cell} has none")
        return self._view(self._record(layer, direction).after[1])

    def _record(self, layer: int, direction: int) -> Record:
        directions = 1 + self.spec.bidirectional
        layer = check_int("layer", layer, 0, self.spec.num_layers - 1)
        direction = check_int("direction", direction, 0, directions - 1)
        return self.records[layer * directions + direction]

    def _view(self, array: Array) -> Array:
        view = self.layout.sequence_out(array)
        view.flags.writeable = False
        return view

    def __repr__(self) -> str:
        rows = "one sequence" if self.layout.unbatched else f"B {len(self.lengths)}"
        return f"Tape({_described(self.spec)}, T {len(self.records[0].x)}, {rows}, {_shown(self.nbytes)})"


class Prepared:
    """A network with a copy of its weights, for inference."""

    spec: Spec
    weights: list[Array]  # in the flat order

    def __init__(self, spec: Spec, weights: Sequence[Array]) -> None:
        check(spec, weights, np.zeros((0, 0, spec.input_size), spec.dtype), None, None)
        self.spec = spec
        self.weights = [np.array(array) for array in weights]

    @property
    def nbytes(self) -> int:
        """How many bytes the copy takes."""
        return sum(array.nbytes for array in self.weights)

    def __call__(self, x: Array, state: State = None, *, lengths: Any = None) -> tuple[Array, State]:
        """As `infer`, with these weights."""
        return infer(self.spec, self.weights, x, state, lengths)

    def __repr__(self) -> str:
        return f"Prepared({_described(self.spec)}, {_shown(self.nbytes)})"


def _described(spec: Spec) -> str:
    return repr(spec).removeprefix("Spec(").removesuffix(")")


def _shown(size: int) -> str:
    """A number of bytes."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size >= 1000:
            size, unit = (size + 500) // 1000, larger
    return f"{size} {unit}"


def prepare(spec: Spec, weights: Sequence[Array]) -> Prepared:
    """A network for inference with a copy of these weights, which are as in `infer`. Raises as `infer` does."""
    return Prepared(spec, weights)


def infer(spec: Spec, weights: Sequence[Array], x: Array, state: State, lengths: Any) -> tuple[Array, State]:
    """y and the last state, without dropout.

    Args:
        spec: the network, with the sizes I, H, L (layers), D (directions) and H_out: `proj_size` where given, else H.
        weights: all arrays in the order of `spec.parameter_shapes()`, of those shapes. All arrays of a call, and what
            it returns, have the dtype of the spec.
        x: (T, B, I); (B, T, I) with `batch_first`; or one sequence (T, I).
        state: h0 (L*D, B, H_out), or (h0, c0) with c0 (L*D, B, H) where the cell has a c; without B if x has none. None
            in any place is zeros.
        lengths: None (all rows have T steps) or (B,) integers in 0…T; for one sequence an int.

    Returns:
        y, (T, B, D*H_out) in x's layout, and the state after each row's last step, shaped as `state`.

    Raises:
        TypeError, ValueError: an argument has a wrong type, dtype, shape or value.
    """
    y, final, _ = _stack(spec, weights, x, state, lengths, None)
    return y, final


def forward(
    spec: Spec, weights: Sequence[Array], x: Array, state: State, lengths: Any, dropout_seed: int
) -> tuple[Array, State, Tape]:
    """y and the last state, as `infer`, but with dropout, and the tape. y is read-only, as that of the kernels.

    Args:
        spec, weights, x, state, lengths: as in `infer`.
        dropout_seed: fixes the masks, an int from 0 to 2^64 - 1.

    Raises:
        TypeError, ValueError: as `infer`.
    """
    y, final, tape = _stack(spec, weights, x, state, lengths, dropout_seed)
    y.flags.writeable = False
    return y, final, tape


def _stack(
    spec: Spec, weights: Sequence[Array], x: Array, state: State, lengths: Any, dropout_seed: int | None
) -> tuple[Array, State, Tape]:
    check(spec, weights, x, state, lengths)
    layout, cells = Layout(spec, x), cells_of(spec)
    y = layout.sequence_in(_plain(x))
    steps, batch, _ = y.shape
    rows = np.broadcast_to(np.asarray(steps if lengths is None else lengths), (batch,)).copy()
    initial = layout.states_in(state)
    final: list[States] = []
    tape = Tape(spec, x, layout, rows, _unflatten(spec, [_plain(array) for array in weights]), [], [])
    with np.errstate(all="ignore"):  # NaN and Inf travel in silence, as in the kernels
        for layer in range(spec.num_layers):
            mask = None
            if layer > 0 and spec.dropout > 0 and dropout_seed is not None:
                mask = _dropout.kept(dropout_seed, layer, spec.dropout, y.shape)
            y = _drop(y, mask, spec.dropout)
            tape.masks.append(mask)
            outputs = []
            for k, reverse in _directions(spec, layer):
                last, record = run(cells[reverse], tape.weights[k], y, initial[k], rows, reverse)
                final.append(last)
                outputs.append(record.after[0])
                tape.records.append(record)
            y = np.concatenate(outputs, axis=2)
    h, *c = layout.states_out(final)
    return np.ascontiguousarray(layout.sequence_out(y)), (h, *c) if c else h, tape


def backward(tape: Tape, dy: Array | None, dstate: State) -> tuple[Array, Array, Array | None, list[Array]]:
    """dx, dh0, dc0 (None unless the cell has a c), and the gradients of the weights in the flat order.

    Args:
        tape: from `forward`.
        dy: the loss's derivative with respect to y, in its shape and dtype; None is zeros.
        dstate: likewise of the last state, dh_n or (dh_n, dc_n); None in any place is zeros.

    Returns:
        Arrays of the shapes and the dtype of x, h0, c0 and the weights.

    Raises:
        TypeError, ValueError: dy, dh_n or dc_n have a wrong type, dtype or shape.
    """
    spec, layout, cells = tape.spec, tape.layout, cells_of(tape.spec)
    dx = layout.sequence_in(_checked("dy", dy, layout.y_shape, spec))
    dfinal = layout.states_in(_checked_states(dstate, layout))
    dinitial, dweights = dfinal.copy(), tape.weights.copy()  # to be replaced one by one
    with np.errstate(all="ignore"):
        for layer in reversed(range(spec.num_layers)):
            parts = np.split(dx, 1 + spec.bidirectional, axis=2)  # each direction's share of the outputs
            inputs = []
            for (k, reverse), part in zip(_directions(spec, layer), parts, strict=True):
                d, dinitial[k], dweights[k] = run_backward(
                    cells[reverse], tape.weights[k], tape.records[k], part, dfinal[k], tape.lengths, reverse
                )
                inputs.append(d)
            dx = _drop(sum(inputs[1:], inputs[0]), tape.masks[layer], spec.dropout)
    dh0, *dc0 = layout.states_out(dinitial)
    flat = [array for dw in dweights for array in _flatten(spec, dw)]
    return np.ascontiguousarray(layout.sequence_out(dx)), dh0, dc0[0] if dc0 else None, flat


def _directions(spec: Spec, layer: int) -> list[tuple[int, bool]]:
    """Of a layer's directions: the place in lists by layer and direction, and whether it reads in reverse."""
    return [(2 * layer, False), (2 * layer + 1, True)] if spec.bidirectional else [(layer, False)]


def _drop(x: Array, mask: Array | None, probability: float) -> Array:
    """Dropout. It is its own derivative."""
    return x if mask is None else np.where(mask, x * x.dtype.type(_dropout.scale(probability)), x.dtype.type(0))


# --------------------------------------------------------------------------------------- the caller's arrays and ours


class Layout:
    """Turns what the caller has into (T, B, …) and (L*D, B, …), and back: `batch_first`, and x without a batch."""

    def __init__(self, spec: Spec, x: Array) -> None:
        self.spec = spec
        self.unbatched = x.ndim == 2
        self.swapped = spec.batch_first and not self.unbatched
        h = spec.proj_size or spec.hidden_size
        self.widths = (h, spec.hidden_size) if CELLS[spec.cell].has_cell else (h,)  # of h, and of c
        self.y_shape = (*x.shape[:-1], h * (1 + spec.bidirectional))
        batch = () if self.unbatched else (x.shape[0 if self.swapped else 1],)
        count = spec.num_layers * (1 + spec.bidirectional)
        self.state_shapes = [(count, *batch, width) for width in self.widths]

    def sequence_in(self, array: Array) -> Array:
        return array[:, None] if self.unbatched else array.swapaxes(0, 1) if self.swapped else array

    def sequence_out(self, array: Array) -> Array:
        return array[:, 0] if self.unbatched else array.swapaxes(0, 1) if self.swapped else array[:]

    def states_in(self, state: State) -> list[States]:
        """From h or (h, c), each may be None for zeros, to a tuple for each layer and direction."""
        if len(self.widths) == 1:
            state = (state,)
        elif state is None:
            state = (None, None)
        arrays = [
            np.zeros(shape, self.spec.dtype) if array is None else _plain(array)
            for array, shape in zip(state, self.state_shapes, strict=True)
        ]
        return list(zip(*(a[:, None] if self.unbatched else a for a in arrays), strict=True))

    def states_out(self, states: list[States]) -> States:
        """The reverse: h, or h and c, each of all layers and directions."""
        arrays = (np.stack(parts) for parts in zip(*states, strict=True))
        return tuple(array[:, 0] if self.unbatched else array for array in arrays)


def _plain(array: Array) -> Array:
    """The array itself, without what a class of its own, such as np.matrix, does in another way."""
    return np.ndarray.view(array, np.ndarray)


def _checked(name: str, array: Any, shape: tuple[int, ...], spec: Spec) -> Array:
    """A gradient that the caller gave, or zeros for None."""
    if array is None:
        return np.zeros(shape, spec.dtype)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array or None, {got(array)}")
    if array.dtype != spec.dtype:
        hint = f"; use {name}.astype(np.{spec.dtype})" if array.dtype.kind in "fiu" else ""
        raise TypeError(f"{name} must be of dtype {spec.dtype}, got {array.dtype}{hint}")
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{name}: expected a NumPy array of {spec.dtype}, got a masked one")
    if array.shape != shape:
        raise ValueError(f"{name} must be of shape {shape}, got {array.shape}")
    return _plain(array)


def _checked_states(dstate: State, layout: Layout) -> State:
    spec, shapes = layout.spec, layout.state_shapes
    if len(shapes) == 1:
        return _checked("dh_n", dstate, shapes[0], spec)
    if dstate is None:
        return None
    if not isinstance(dstate, (tuple, list)) or len(dstate) != 2:
        raise TypeError(f"dstate must be a tuple (dh_n, dc_n), {got(dstate)}")
    return _checked("dh_n", dstate[0], shapes[0], spec), _checked("dc_n", dstate[1], shapes[1], spec)


def _unflatten(spec: Spec, weights: Sequence[Array]) -> list[Weights]:
    """The weights of each layer and direction, with zeros for biases that are not there."""
    peephole = bool(spec.options and Options(*spec.options).peephole)
    size = 2 + 2 * spec.bias + (spec.proj_size > 0) + peephole
    groups = []
    for k in range(0, len(weights), size):
        ih, hh, *rest = weights[k : k + size]
        b_ih, b_hh = (rest.pop(0), rest.pop(0)) if spec.bias else 2 * [np.zeros(len(ih), ih.dtype)]
        hr = rest.pop(0) if spec.proj_size else None
        groups.append(Weights(ih, hh, b_ih, b_hh, hr, rest.pop(0) if peephole else None))
    return groups


def _flatten(spec: Spec, w: Weights) -> list[Array]:
    biases = [w.b_ih, w.b_hh] if spec.bias else []
    return [w.ih, w.hh, *biases, *(array for array in (w.hr, w.peephole) if array is not None)]


# -------------------------------------------------------------------------------------------------------- the classes


class _InNumPy:
    _engine: Any = sys.modules[__name__]


class RNN(_InNumPy, layers.RNN):
    """`fastrnn.RNN` in plain NumPy."""


class LSTM(_InNumPy, layers.LSTM):
    """`fastrnn.LSTM` in plain NumPy."""


class GRU(_InNumPy, layers.GRU):
    """`fastrnn.GRU` in plain NumPy."""

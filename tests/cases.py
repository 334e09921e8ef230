"""Networks of every cell in the registry, data for them, and designs that cover many options with few cases."""

import itertools
import random
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from unittest import mock

import numpy as np

import fastrnn
from fastrnn import _core, layers, reference
from fastrnn._options import Options
from fastrnn._spec import make_spec

DTYPES = ("float32", "float64")
ISAS = tuple(_core.available_isas())
PARTITIONS = ("rows", "units")
PROJECTED = "lstm_projected"
CELLS = (*reference.CELLS, PROJECTED)  # every cell that there is, and the option that makes another one of it
WITH_C = (*(cell for cell, own in reference.CELLS.items() if own.has_cell), PROJECTED)  # whose state is (h, c)


class Native(layers._Layer):
    """A network by the name of its cell."""

    def __init__(self, cell, *sizes, seed=1, **options):
        if cell == PROJECTED:
            cell, options = "lstm", {"proj_size": max(1, 2 * sizes[1] // 3)} | options
        super().__init__(make_spec(cell, *sizes, **options), seed)


class Reference(reference._InNumPy, Native):
    """The same network in NumPy."""


def in_float64(layer):
    """The reference in float64 with the layer's own weights."""
    spec = layer.spec
    options = {name: getattr(spec, name) for name in ("bias", "batch_first", "dropout", "bidirectional", "proj_size")}
    options["options"] = spec.options and Options(*spec.options)
    twin = Reference(spec.cell, spec.input_size, spec.hidden_size, spec.num_layers, **options, dtype="float64")
    for name, array in layer.parameters.items():
        twin.parameters[name] = array.astype(np.float64)
    return twin


# --------------------------------------------------------------------------------------------------------------- data


@dataclass
class Data:
    """The arguments of a forward and a backward call."""

    x: np.ndarray
    state: tuple | None  # (h0,), or (h0, c0)
    dy: np.ndarray
    dstate: tuple | None
    lengths: object = None
    dropout_seed: int = field(default=3)

    def astype(self, dtype):
        def convert(value):
            if isinstance(value, tuple):
                return tuple(convert(a) for a in value)
            return value if value is None else value.astype(dtype)

        return replace(self, **{name: convert(getattr(self, name)) for name in ("x", "state", "dy", "dstate")})

    def rows(self, chosen):
        """Some rows of a time-major batch."""
        states = [None if s is None else tuple(a[:, chosen] for a in s) for s in (self.state, self.dstate)]
        lengths = None if self.lengths is None else np.asarray(self.lengths)[chosen]
        return replace(
            self, x=self.x[:, chosen], dy=self.dy[:, chosen], state=states[0], dstate=states[1], lengths=lengths
        )


def state_shapes(spec, *batch):
    """Of h, and of c where the cell has one."""
    widths = [spec.proj_size or spec.hidden_size] + [spec.hidden_size] * reference.CELLS[spec.cell].has_cell
    return [(spec.num_layers * (1 + spec.bidirectional), *batch, width) for width in widths]


def make_data(layer, steps, batch, *, seed=0, initial=True, lengths=None):
    """Random arguments for a layer. batch None: a single sequence. lengths True: random ones, with a 0 and a T."""
    spec, rng = layer.spec, np.random.default_rng(seed)
    axes = (steps,) if batch is None else (batch, steps) if spec.batch_first else (steps, batch)
    rows = () if batch is None else (batch,)

    def draw(*shape):
        return rng.normal(size=shape).astype(spec.dtype)

    states = [tuple(draw(*shape) for shape in state_shapes(spec, *rows)) for _ in range(2)]
    width = (spec.proj_size or spec.hidden_size) * (1 + spec.bidirectional)
    if lengths is True:
        lengths = rng.integers(steps + 1, size=rows)
        if batch is None:
            lengths = max(1, steps - 1)
        elif batch > 1:
            lengths[rng.choice(batch, 2, replace=False)] = 0, steps
    return Data(draw(*axes, spec.input_size), states[0] if initial else None, draw(*axes, width), states[1], lengths)


def as_state(arrays):
    """As calls take it: h alone, or the pair."""
    return arrays[0] if arrays is not None and len(arrays) == 1 else arrays


def as_arrays(state):
    return state if isinstance(state, tuple) else (state,)


def infer(layer, data):
    """What a call for inference gives, by name."""
    y, final = layer(data.x, as_state(data.state), lengths=data.lengths)
    return {"y": y} | dict(zip(("h_n", "c_n"), as_arrays(final), strict=False))


def forward(layer, data):
    """What a call for training gives, by name, with what lies on the tape; and the tape."""
    y, final, tape = layer.forward(data.x, as_state(data.state), lengths=data.lengths, dropout_seed=data.dropout_seed)
    results = {"y": y} | dict(zip(("h_n", "c_n"), as_arrays(final), strict=False))
    for k, d in np.ndindex(layer.num_layers, 1 + layer.bidirectional):
        results[f"gates of layer {k} direction {d}"] = tape.gates(k, d)
        if "c_n" in results:
            results[f"cells of layer {k} direction {d}"] = tape.cells(k, d)
    return results, tape


def named(gradients):
    """All gradients in one dict."""
    states = {"dh0": gradients.h0} | ({} if gradients.c0 is None else {"dc0": gradients.c0})
    return {"dx": gradients.x} | states | {f"d{name}": g for name, g in gradients.parameters.items()}


def backward(layer, tape, data):
    return named(layer.backward(tape, data.dy, as_state(data.dstate)))


def train(layer, data):
    """The results of a forward and of a backward call."""
    results, tape = forward(layer, data)
    return results, backward(layer, tape, data)


def everything(layer, data):
    """All that a network gives, inference and training, by name."""
    forwards, gradients = train(layer, data)
    return {f"inferred {name}": a for name, a in infer(layer, data).items()} | forwards | gradients


def assert_same_bits(results, expected, what=""):
    """Dicts of arrays, the same to the last bit."""
    assert results.keys() == expected.keys()
    for name, array in results.items():
        assert array.dtype == expected[name].dtype
        assert np.array_equal(array, expected[name], equal_nan=True), f"{name} differs {what}"


# ------------------------------------------------------------------------------------------------------- edge cases


# Units: several vectors of any instruction set, and a part of one. Inputs: another number, likewise.
H, I, T, B = 37, 21, 9, 7  # noqa: E741
DEEP = {"num_layers": 2, "bidirectional": True}
WAYS = [(1, "automatic"), (2, "automatic"), *itertools.product((2, 3), PARTITIONS), (5, "units")]  # for share_work
OF_ROWS = {"y": 1, "h_n": 1, "c_n": 1, "dx": 1, "dh0": 1, "dc0": 1}  # results that have an axis of rows, and which


def share_work(threads, partition):
    fastrnn.set_num_threads(threads)
    _core.set_partition(partition)


def check_against_reference(assert_close, layer, data):
    exact, same = in_float64(layer), data.astype(np.float64)
    results, expected = train(layer, data), train(exact, same)
    assert_close("forward", layer.spec, len(data.x), results[0], expected[0])
    assert_close("backward", layer.spec, len(data.x), results[1], expected[1])
    return results


# -------------------------------------------------------------------------------------------------------------- relu


class Kinks:
    """How near a pre-activation came to the kink of a relu, where a rounding error turns into another derivative."""

    nearest = np.inf


@contextmanager
def watched_kinks():
    """While it lasts, the reference notes how near its relus come to their kink. Sums of nothing but zeros have no
    rounding error."""
    kinks = Kinks()

    relu, slope = reference.FUNCTIONS["relu"]

    def watching(a, *parameters):
        kinks.nearest = min(kinks.nearest, float(np.abs(a[a != 0]).min(initial=np.inf)))
        return relu(a, *parameters)

    with mock.patch.dict(reference.FUNCTIONS, relu=(watching, slope)):
        yield kinks


NEAR_A_KINK = 2e-6  # what rounding in float32 can do to a pre-activation of size 1


# ------------------------------------------------------------------------------------------------------------ designs


@dataclass(frozen=True)
class Case:
    """A network and the shape of a call."""

    cell: str
    hidden: int
    inputs: int
    batch: int | None  # None: a single sequence
    steps: int
    layers: int = 1
    bidirectional: bool = False
    bias: bool = True
    batch_first: bool = False
    dropout: float = 0.0
    initial: bool = True
    ragged: bool = False

    def __str__(self):
        batch = "" if self.batch is None else f"-B{self.batch}"
        size = f"{self.cell}-H{self.hidden}-I{self.inputs}{batch}-T{self.steps}-L{self.layers}"
        flags = [f.name for f in fields(self) if getattr(self, f.name) is True and f.name != "bias"]
        return "-".join([size, *flags, *(["dropout"] if self.dropout else []), *([] if self.bias else ["no_bias"])])

    def network(self, cls, dtype, seed=1):
        options = {name: getattr(self, name) for name in ("bias", "batch_first", "dropout", "bidirectional")}
        return cls(self.cell, self.inputs, self.hidden, self.layers, **options, dtype=dtype, seed=seed)

    def data(self, layer, seed=0):
        return make_data(
            layer, self.steps, self.batch, seed=seed, initial=self.initial, lengths=True if self.ragged else None
        )


def covering(factors, valid, *, seed=0, tries=60):
    """Combinations of the factors' values in which each pair of two factors' values that can occur does occur."""
    choose = random.Random(seed)
    names = list(factors)

    def pairs(combination):
        return set(itertools.combinations(combination.items(), 2))

    missing = {
        ((a, u), (b, v))
        for a, b in itertools.combinations(names, 2)
        for u, v in itertools.product(factors[a], factors[b])
    }
    chosen = []
    while missing:
        wanted = dict(min(missing, key=str))  # a sorted choice: sets have no order
        drawn = ({name: choose.choice(factors[name]) for name in names} | wanted for _ in range(tries))
        candidates = [combination for combination in drawn if valid(**combination)]
        if not candidates:
            missing.discard(tuple(wanted.items()))  # the two values exclude each other
            continue
        best = max(candidates, key=lambda combination: len(pairs(combination) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen

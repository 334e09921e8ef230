"""What a network can have that its cell, as published, has not: activations, clipping, peepholes, coupled gates."""

import copy
import itertools
import math
import pickle
from dataclasses import dataclass

import numpy as np
import pytest

import fastrnn
from cases import (
    DTYPES,
    ISAS,
    PARTITIONS,
    PROJECTED,
    Native,
    assert_same_bits,
    backward,
    covering,
    everything,
    forward,
    in_float64,
    infer,
    make_data,
)
from fastrnn import _core, functional
from fastrnn._options import FUNCTIONS, PUBLISHED, Options

CELLS = {
    "rnn_tanh": 1,
    "lstm": 3,
    PROJECTED: 3,
    "gru": 2,
    "gru_reset_before": 2,
}  # and how many functions each applies

# Parameters that are nobody's default.
CHOSEN = {
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "affine": ("affine", 0.7, 0.1),
    "leaky_relu": ("leaky_relu", 0.3),
    "thresholded_relu": ("thresholded_relu", 0.05),
    "scaled_tanh": ("scaled_tanh", 1.3, 0.6),
    "hard_sigmoid": ("hard_sigmoid", 0.3, 0.45),
    "elu": ("elu", 0.8),
    "softsign": "softsign",
    "softplus": "softplus",
}
SMOOTH = "tanh", "sigmoid", "affine", "scaled_tanh", "softsign", "softplus"


@dataclass(frozen=True)
class Case:
    """A network with options, and the shape of a call."""

    cell: str
    first: str  # the first of its functions; the next are those that follow in the table
    clip: float | None
    peephole: bool
    coupled: bool
    each_its_own: bool  # each direction has its own functions
    hidden: int
    inputs: int
    batch: int | None
    steps: int
    layers: int
    bidirectional: bool
    bias: bool
    ragged: bool

    def __str__(self):
        return "-".join(f"{value}" for value in vars(self).values())

    def names(self, functions):
        count, begin = CELLS[self.cell] * (1 + (self.each_its_own and self.bidirectional)), functions.index(self.first)
        return [functions[(begin + 4 * k) % len(functions)] for k in range(count)]

    def network(self, dtype, smooth):
        names = self.names(SMOOTH if smooth else tuple(CHOSEN))
        options = Options([CHOSEN[name] for name in names], None if smooth else self.clip, self.coupled, self.peephole)
        switches = {"bias": self.bias, "bidirectional": self.bidirectional, "options": options}
        layer = Native(self.cell, self.inputs, self.hidden, self.layers, dtype=dtype, **switches)
        for array in layer.parameters.values():
            array *= 0.4  # gates that are no probabilities let h grow without bounds
        return layer


FACTORS = {
    "cell": tuple(CELLS),
    "first": tuple(CHOSEN),
    "clip": (None, 0.6),
    "peephole": (False, True),
    "coupled": (False, True),
    "each_its_own": (False, True),
    "hidden": (2, 17, 33, 70),
    "inputs": (1, 20, 31),
    "batch": (None, 1, 5, 16),
    "steps": (1, 2, 9),
    "layers": (1, 2),
    "bidirectional": (False, True),
    "bias": (True, False),
    "ragged": (False, True),
}


def valid(cell, peephole, coupled, each_its_own, bidirectional, **rest):
    return (cell.startswith("lstm") or not (peephole or coupled)) and (bidirectional or not each_its_own)


CASES = [Case(**combination) for combination in covering(FACTORS, valid)]


def hold(layer, case, assert_close):
    """Inference, training and gradients against the reference in float64."""
    exact = in_float64(layer)
    data = make_data(layer, case.steps, case.batch, lengths=True if case.ragged else None)
    wide = data.astype(np.float64)
    expected, expected_tape = forward(exact, wide)
    results, tape = forward(layer, data)
    assert_close("forward", layer.spec, case.steps, results, expected)
    gradients = backward(layer, tape, data)
    assert_close("backward", layer.spec, case.steps, gradients, backward(exact, expected_tape, wide))
    outputs = infer(layer, data)
    assert_same_bits(outputs, {name: results[name] for name in outputs}, "between inference and training")
    assert_same_bits(infer(layer.prepare(), data), outputs, "when prepared")


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_parity(case, isa, assert_close):
    """In float32 with smooth functions alone: near a kink, rounding decides on the slope."""
    _core.set_isa(isa)
    hold(case.network("float64", smooth=False), case, assert_close)
    if case.first in SMOOTH:
        hold(case.network("float32", smooth=True), case, assert_close)


def test_more_steps_than_a_chunk_holds(assert_close):
    case = Case("lstm", "hard_sigmoid", None, True, True, False, 5, 3, 4, 700, 2, True, True, True)
    hold(case.network("float64", smooth=False), case, assert_close)


# ------------------------------------------------------------------------------------------------ the functions alone


EXACT = {
    "tanh": np.tanh,
    "sigmoid": lambda a: np.exp(-np.logaddexp(0, -a)),
    "relu": lambda a: a * (a > 0),
    "affine": lambda a: 0.7 * a + 0.1,
    "leaky_relu": lambda a: a * (1 - 0.7 * (a < 0)),
    "thresholded_relu": lambda a: a * (a > 0.05),
    "scaled_tanh": lambda a: 1.3 * np.tanh(0.6 * a),
    "hard_sigmoid": lambda a: np.maximum(0, np.minimum(1, 0.3 * a + 0.45)),
    "elu": lambda a: np.maximum(a, 0) + 0.8 * np.expm1(np.minimum(a, 0)),
    "softsign": lambda a: a / (1 + np.abs(a)),
    "softplus": lambda a: np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a))),
}

LIMITS = {  # at infinity and -infinity
    "tanh": (1, -1),
    "sigmoid": (1, 0),
    "relu": (np.inf, 0),
    "affine": (np.inf, -np.inf),
    "leaky_relu": (np.inf, -np.inf),
    "thresholded_relu": (np.inf, 0),
    "scaled_tanh": (1.3, -1.3),
    "hard_sigmoid": (1, 0),
    "elu": (np.inf, -0.8),
    "softsign": (np.nan, np.nan),
    "softplus": (np.inf, 0),
}


def through(name, values, isa, dtype="float64", **options):
    """f(values) and its slopes there, from an RNN whose weights do nothing else."""
    _core.set_isa(isa)
    layer = fastrnn.RNN(1, 1, bias=False, dtype=dtype, activations=(CHOSEN[name],), **options)
    layer.parameters["weight_ih_l0"][:], layer.parameters["weight_hh_l0"][:] = 1, 0
    x = np.asarray(values, dtype)[None, :, None]
    y, _, tape = layer.forward(x)
    return y.ravel(), layer.backward(tape, np.ones_like(y)).x.ravel()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CHOSEN)
def test_function(name, dtype, isa):
    """Everywhere: near 0, far from it, and where exponentials overflow."""
    far = np.concatenate([np.geomspace(1e-6, 1e4, 301), np.finfo(dtype).max / [4, 16, 1e4, 1e9]])
    a = np.concatenate([np.linspace(-12, 12, 4001), far, -far])
    a = a.astype(dtype).astype(np.float64)
    value, slope = through(name, a, isa, dtype)
    exact = EXACT[name](a)
    rounding = np.finfo(dtype).eps * 8 * np.abs(exact) + np.finfo(dtype).tiny  # what is below it counts as 0
    parameters = name in ("affine", "hard_sigmoid", "scaled_tanh", "leaky_relu", "elu")  # themselves rounded
    away = 4 * np.finfo(dtype).eps if parameters else 0
    assert np.all(np.abs(value - exact) <= rounding + away * (1 + np.abs(a)))
    step = 1e-6 * np.maximum(1, np.abs(a))
    kinks = {"thresholded_relu": [0.05], "hard_sigmoid": [-1.5, 0.55 / 0.3]}.get(name, [0.0])
    smooth = np.min([np.abs(a - kink) for kink in kinks], axis=0) > 2 * step
    differences = (EXACT[name](a + step) - EXACT[name](a - step)) / (2 * step)
    np.testing.assert_allclose(slope[smooth], differences[smooth], rtol=0, atol=1e-6 if dtype == "float32" else 1e-9)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", CHOSEN)
def test_function_of_what_is_no_number(name, isa):
    value, slope = through(name, [np.nan, np.inf, -np.inf, 3.0], isa)
    assert np.isnan(value[0])
    np.testing.assert_array_equal(value[1:3], LIMITS[name])
    assert np.isfinite([value[3], slope[3]]).all()


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("options", [{}, {"clip": 1.5}])
def test_nan_as_gradient(name, options):
    """It passes, but not where the function is flat by its definition; as in the reference."""
    found = []
    for home in (fastrnn, fastrnn.reference):
        layer = home.RNN(1, 1, bias=False, dtype="float64", activations=(CHOSEN[name],), **options)
        layer.parameters["weight_ih_l0"][:], layer.parameters["weight_hh_l0"][:] = 1, 0
        y, _, tape = layer.forward(np.array([-3.0, -2, -1, 0, 1, 2, 3])[None, :, None])
        found.append(np.isnan(layer.backward(tape, np.full_like(y, np.nan)).x.ravel()))
    np.testing.assert_array_equal(*found)
    assert found[0].any()
    flat = name in ("relu", "thresholded_relu", "hard_sigmoid") or options
    assert found[0].all() == (not flat)


def test_defaults_are_those_of_onnx():
    """Of the operators LeakyRelu, ThresholdedRelu, HardSigmoid and Elu in the specification."""
    assert FUNCTIONS["leaky_relu"] == (0.01,)
    assert FUNCTIONS["thresholded_relu"] == (1.0,)
    assert FUNCTIONS["hard_sigmoid"] == (0.2, 0.5)
    assert FUNCTIONS["elu"] == (1.0,)
    one = fastrnn.RNN(2, 3, seed=0, activations=(("hard_sigmoid", 0.2, 0.5),))
    other = fastrnn.RNN(2, 3, seed=0, activations=("hard_sigmoid",))
    x = np.ones((4, 1, 2), np.float32)
    np.testing.assert_array_equal(one(x)[0], other(x)[0])


def test_clip():
    """Beyond it, the value is that at the limit, and the slope 0."""
    value, slope = through("softsign", [-3.0, -0.5, 0.25, 2.0], ISAS[-1], clip=0.5)
    np.testing.assert_array_equal(value, [-0.5 / 1.5, -0.5 / 1.5, 0.2, 0.5 / 1.5])
    np.testing.assert_allclose(slope, [0, 1 / 1.5**2, 1 / 1.25**2, 0], rtol=1e-15)


# --------------------------------------------------------------------------------------------- against plain formulas


def test_peephole_against_scalar_python():
    """Gers & Schmidhuber 2000, unit by unit; i and f see the c before the step, o that after."""
    layer = fastrnn.LSTM(2, 3, dtype="float64", seed=4, peephole=True)
    w = {name.removesuffix("_l0"): array for name, array in layer.parameters.items()}
    x, h, c = np.random.default_rng(0).normal(size=(4, 2)), np.zeros(3), np.array([0.5, -1.0, 2.0])
    y, (_, c_n) = layer(x, (h[None], c[None]))

    def sigma(a):
        return 1 / (1 + math.exp(-a))

    for t in range(4):
        a = w["weight_ih"] @ x[t] + w["bias_ih"] + w["weight_hh"] @ h + w["bias_hh"]
        new_h = np.zeros(3)
        for u in range(3):
            p_i, p_f, p_o = (w["weight_peephole"][k * 3 + u] for k in range(3))
            i, f = sigma(a[u] + p_i * c[u]), sigma(a[3 + u] + p_f * c[u])
            c[u] = f * c[u] + i * math.tanh(a[6 + u])
            new_h[u] = sigma(a[9 + u] + p_o * c[u]) * math.tanh(c[u])
        h = new_h
        np.testing.assert_allclose(y[t], h, rtol=0, atol=1e-14)
    np.testing.assert_allclose(c_n[0], c, rtol=0, atol=1e-14)


def test_peepholes_of_weight_zero_are_none():
    plain, peephole = (fastrnn.LSTM(3, 5, seed=1, peephole=p) for p in (False, True))
    peephole.parameters |= plain.parameters
    peephole.parameters["weight_peephole_l0"][:] = 0
    x = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    np.testing.assert_allclose(peephole(x)[0], plain(x)[0], rtol=0, atol=1e-6)


def test_coupled_gates():
    """f = 1 - i, whatever the rows of f say, which get no gradient."""
    layer = fastrnn.LSTM(3, 4, seed=1, coupled_input_forget=True, bidirectional=True, peephole=True)
    x = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    y, _, tape = layer.forward(x)
    i, f = tape.gates(0, 1)[:, :, 0], tape.gates(0, 1)[:, :, 1]
    np.testing.assert_array_equal(f, 1 - i)
    grads = layer.backward(tape, np.ones_like(y)).parameters
    rows = slice(4, 8)
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "weight_peephole_l0"):
        assert np.all(grads[name][rows] == 0)
        assert np.any(grads[name] != 0)
    for array in layer.parameters.values():
        array[rows] = 7
    np.testing.assert_array_equal(layer(x)[0], y)


def test_named_functions_are_the_plain_ones():
    """What is published already runs in the kernels without options."""
    assert fastrnn.LSTM(2, 3, activations=("sigmoid", "tanh", "tanh")).spec.options is None
    assert fastrnn.GRU(2, 3, bidirectional=True, activations=2 * ("sigmoid", "tanh")).spec.options is None
    for name in ("tanh", "relu", "sigmoid"):
        layer = fastrnn.RNN(2, 3, activations=[name])
        assert layer.spec.options is None
        assert layer.nonlinearity == name
        assert layer.activations == (name,)
    x = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    for cls in (fastrnn.RNN, fastrnn.LSTM, fastrnn.GRU):
        far = cls(3, 5, seed=1, clip=1e30)
        assert far.spec.options is not None
        np.testing.assert_array_equal(far(x)[0], cls(3, 5, seed=1)(x)[0])


# ------------------------------------------------------------------------------------------------------- same bits


def networks():
    many = Options(("hard_sigmoid", "softsign", "elu"), 0.9, True, True)
    return [
        Native("lstm", 20, 35, 2, bidirectional=True, options=many),
        Native(PROJECTED, 20, 35, options=many),
        *(
            Native(cell, 20, 35, 2, options=Options(("leaky_relu", "softplus")[-count:], 0.9))
            for cell, count in CELLS.items()
            if not cell.startswith("lstm")
        ),
    ]


@pytest.mark.parametrize("layer", networks(), ids=lambda layer: layer.spec.cell)
def test_same_bits_however_the_work_is_shared(layer):
    data = make_data(layer, 30, 7, lengths=True)
    fastrnn.set_num_threads(1)
    expected = everything(layer, data)
    for threads, partition in itertools.product((2, 3), PARTITIONS):
        fastrnn.set_num_threads(threads)
        _core.set_partition(partition)
        assert_same_bits(everything(layer, data), expected, f"with {threads} threads by {partition}")


@pytest.mark.parametrize("layer", networks(), ids=lambda layer: layer.spec.cell)
def test_a_row_alone_has_the_bits_of_the_batch(layer):
    data = make_data(layer, 9, 6, lengths=True)
    together = infer(layer, data)
    for b in range(6):
        alone = infer(layer, data.rows([b]))
        assert_same_bits(alone, {name: array[:, [b]] for name, array in together.items()}, f"in row {b}")


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("batch", [0, 2])
def test_nothing_to_do(steps, batch):
    layer = fastrnn.LSTM(3, 4, peephole=True, clip=1.0, seed=0)
    y, _, tape = layer.forward(np.ones((steps, batch, 3), np.float32))
    grads = layer.backward(tape, np.ones_like(y)).parameters
    assert np.any(grads["weight_peephole_l0"] != 0) == (steps * batch > 0)


@pytest.mark.parametrize(("cell", "saved"), [("rnn_tanh", 2), ("lstm", 8), ("gru", 7), ("gru_reset_before", 6)])
def test_size_of_the_tape(cell, saved):
    """Beside each gate the tape keeps its slope."""
    assert _core.tape_widths(Native(cell, 3, 10, options=Options(clip=1.0)).spec)[0] == 10 * saved


# ------------------------------------------------------------------------------------------------------- the interface


def example():
    return fastrnn.LSTM(
        2, 3, bidirectional=True, seed=2, peephole=True, coupled_input_forget=True, clip=2.5, activations=(
            "hard_sigmoid", ("scaled_tanh", 1.5), "tanh", "sigmoid", "tanh", ("elu", 0.5),
        ),
    )  # fmt: skip


def test_attributes():
    layer = example()
    assert layer.peephole
    assert layer.coupled_input_forget
    assert layer.clip == 2.5
    assert layer.activations[:2] == (("hard_sigmoid", 0.2, 0.5), ("scaled_tanh", 1.5, 1.0))
    assert layer.parameters["weight_peephole_l0_reverse"].shape == (9,)
    assert eval(repr(layer), {"LSTM": fastrnn.LSTM}).spec.options == layer.spec.options
    assert "options" in repr(layer.spec)
    plain = fastrnn.GRU(2, 3)
    assert plain.clip is None
    assert plain.activations == ("sigmoid", "tanh")
    assert not fastrnn.LSTM(2, 3).peephole
    assert fastrnn.RNN(2, 3, activations=("elu",)).activations == (("elu", 1.0),)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_keeps_them(tmp_path, suffix):
    layer, path, x = example(), tmp_path / f"m{suffix}", np.ones((4, 1, 2), np.float32)
    layer.save(path)
    for other in (fastrnn.LSTM.load(path), fastrnn.load(path), copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.spec.options == layer.spec.options
        np.testing.assert_array_equal(other(x)[0], layer(x)[0])


def test_spec_survives_pickling():
    spec = example().spec
    assert pickle.loads(pickle.dumps(spec)).options == spec.options


def test_functional():
    layer, x = example(), np.random.default_rng(0).normal(size=(5, 3, 2)).astype(np.float32)
    options = {"peephole": True, "coupled_input_forget": True, "clip": 2.5, "activations": layer.activations}
    for weights in (layer.parameters, list(layer.parameters.values())):
        y, _ = functional.lstm(x, weights, bidirectional=True, **options)
        np.testing.assert_array_equal(y, layer(x)[0])
        y, _, tape = functional.lstm_forward(x, weights, bidirectional=True, **options)
        assert functional.backward(tape, np.ones_like(y)).parameters.keys() == layer.parameters.keys()
    for name, cls in {"rnn": fastrnn.RNN, "gru": fastrnn.GRU}.items():
        layer = cls(2, 3, clip=0.5, seed=0)
        for call in (getattr(functional, name), getattr(functional, f"{name}_forward")):
            np.testing.assert_array_equal(call(x, layer.parameters, clip=0.5)[0], layer(x)[0])


def test_peepholes_in_the_layout_of_onnx():
    """Which has those of o before those of f."""
    parameters = example().parameters
    onnx = fastrnn.weights.to_onnx("lstm", parameters)
    i, f, o = np.split(parameters["weight_peephole_l0_reverse"], 3)
    np.testing.assert_array_equal(onnx["P"][1], np.concatenate([i, o, f]))
    back = fastrnn.weights.from_onnx("lstm", onnx)
    assert_same_bits(back, parameters)
    with pytest.raises(ValueError, match="P must be of shape"):
        fastrnn.weights.from_onnx("lstm", onnx | {"P": onnx["P"][:, 1:]})
    with pytest.raises(ValueError, match="unexpected P"):
        fastrnn.weights.from_onnx(
            "gru", fastrnn.weights.to_onnx("gru", fastrnn.GRU(2, 3).parameters) | {"P": onnx["P"]}
        )


@pytest.mark.parametrize(
    ("cls", "options", "error", "message"),
    [
        ("LSTM", {"activations": "tanh"}, TypeError, "activations must be a sequence of 3"),
        ("LSTM", {"activations": ("tanh",)}, ValueError, "activations must have 3 items in an LSTM, got 1"),
        ("GRU", {"activations": 4 * ("tanh",)}, ValueError, "activations must have 2 items in a GRU, got 4"),
        ("RNN", {"activations": ("tanh", "relu")}, ValueError, "activations must have 1 item in an RNN, got 2"),
        ("RNN", {"activations": ("gelu",)}, ValueError, "one of 'tanh', 'sigmoid'"),
        ("RNN", {"activations": (3,)}, TypeError, "must be a str"),
        ("RNN", {"activations": ((),)}, TypeError, "must be a str"),
        ("RNN", {"activations": (("tanh", 0.5),)}, ValueError, "tanh has no parameters"),
        ("RNN", {"activations": (("elu", 1, 2),)}, ValueError, "elu has one parameter, alpha"),
        ("RNN", {"activations": (("elu", "1"),)}, TypeError, "a parameter of elu in activations must be a number"),
        ("RNN", {"activations": (("elu", math.nan),)}, ValueError, "must be finite"),
        ("RNN", {"activations": (("elu", 10**400),)}, ValueError, "must be finite"),
        ("RNN", {"activations": ("elu",), "nonlinearity": "relu"}, ValueError, "must not both be given"),
        ("LSTM", {"clip": 0}, ValueError, "clip must be greater than 0"),
        ("GRU", {"clip": -1.0}, ValueError, "clip must be greater than 0"),
        ("RNN", {"clip": math.nan}, ValueError, "clip must be finite"),
        ("RNN", {"clip": True}, TypeError, "clip must be a number"),
        ("LSTM", {"peephole": 1}, TypeError, "peephole must be True or False"),
        ("LSTM", {"coupled_input_forget": None}, TypeError, "coupled_input_forget must be True or False"),
    ],
)
def test_refused(cls, options, error, message):
    with pytest.raises(error, match=message):
        getattr(fastrnn, cls)(2, 3, **options)
    with pytest.raises(error, match=message):
        getattr(fastrnn.reference, cls)(2, 3, **options)


def test_refused_by_functions():
    layer, x = example(), np.ones((5, 3, 2), np.float32)
    with pytest.raises(ValueError, match="unexpected weight_peephole_l0"):
        functional.lstm(x, layer.parameters, bidirectional=True)
    with pytest.raises(ValueError, match="missing weight_peephole_l0"):
        functional.lstm(x, fastrnn.LSTM(2, 3).parameters, peephole=True)


def test_the_core_knows_every_function():
    """And refuses, in its own words, what the layers would have."""
    for name in FUNCTIONS:
        spec = _core.make_spec("rnn_tanh", 1, 1, options=([(name, 0.5, 0.5)], None, False, False))
        assert spec.options[0][0][0] == name
    assert set(PUBLISHED) == set(fastrnn.reference.CELLS)
    for options in (
        ([], None, False, False),
        ([("gelu", 0, 0)], None, False, False),
        ([("tanh", 0, 0)], -1.0, False, False),
        ([("tanh", 0, 0)], None, True, False),
        ([("tanh", 0, 0)], None, False, True),
    ):
        with pytest.raises(ValueError, match="expected"):
            _core.make_spec("rnn_tanh", 1, 1, options=options)

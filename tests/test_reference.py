"""The reference against what shares no line with it: scalar Python, finite differences and hand-worked values."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

from fastrnn import reference
from fastrnn._dropout import kept, splitmix64
from fastrnn._spec import SPEC_FIELDS
from fastrnn.reference import GRU, LSTM, RNN

CELLS = {
    "rnn_tanh": (RNN, {}),
    "rnn_relu": (RNN, {"nonlinearity": "relu"}),
    "rnn_sigmoid": (RNN, {"nonlinearity": "sigmoid"}),
    "lstm": (LSTM, {}),
    "lstm_projected": (LSTM, {"proj_size": 2}),
    "gru": (GRU, {}),
    "gru_reset_before": (GRU, {"reset_after": False}),
}
every_cell = pytest.mark.parametrize("name", CELLS)


def make(name, *sizes, **options):
    cls, own = CELLS[name]
    return cls(*sizes, **own, dtype="float64", seed=5, **options)


def random_state(layer, random, *batch):
    """(h,) or (h, c), all states of the network, at random."""
    count = layer.num_layers * (1 + layer.bidirectional)
    widths = [getattr(layer, "proj_size", 0) or layer.hidden_size]
    if reference.CELLS[layer.spec.cell].has_cell:
        widths.append(layer.hidden_size)
    return tuple(random.normal(size=(count, *batch, width)) for width in widths)


def as_state(arrays):
    """As calls take and return it: h alone, or the pair."""
    return arrays if len(arrays) > 1 else arrays[0]


def as_arrays(state):
    return state if isinstance(state, tuple) else (state,)


# ---------------------------------------------------------------------------------------------------- scalar Python


def dot(row, vector):
    return math.fsum(a * b for a, b in zip(row, vector, strict=True))


def sigma(a):
    return 1 / (1 + math.exp(-a))


def scalar_step(name, w, x, h, c):
    """One step of one row in lists of floats, unit by unit."""
    W, R, bW, bR = (w[stem].tolist() for stem in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    size = len(c)

    def pre(gate, unit):
        k = gate * size + unit
        return dot(W[k], x) + bW[k] + dot(R[k], h) + bR[k]

    if name.startswith("rnn"):
        f = {"rnn_tanh": math.tanh, "rnn_relu": lambda a: max(a, 0.0), "rnn_sigmoid": sigma}[name]
        return [f(pre(0, u)) for u in range(size)], c
    if name.startswith("lstm"):
        new_c = [sigma(pre(1, u)) * c[u] + sigma(pre(0, u)) * math.tanh(pre(2, u)) for u in range(size)]
        m = [sigma(pre(3, u)) * math.tanh(new_c[u]) for u in range(size)]
        return [dot(row, m) for row in w["weight_hr"].tolist()] if "weight_hr" in w else m, new_c
    r = [sigma(pre(0, u)) for u in range(size)]
    z = [sigma(pre(1, u)) for u in range(size)]
    n = []
    for u in range(size):
        k = 2 * size + u
        if name == "gru":
            n.append(math.tanh(dot(W[k], x) + bW[k] + r[u] * (dot(R[k], h) + bR[k])))
        else:
            n.append(math.tanh(dot(W[k], x) + bW[k] + dot(R[k], [r[j] * h[j] for j in range(size)]) + bR[k]))
    return [(1 - z[u]) * n[u] + z[u] * h[u] for u in range(size)], c


def scalar_network(name, layer, row, h, c):
    """One row through a bidirectional stack: outputs, last h, last c."""
    last_h, last_c = [], []
    for k in range(layer.num_layers):
        outputs = []
        for d, end in enumerate(["", "_reverse"]):
            suffix = f"_l{k}{end}"
            w = {n.removesuffix(suffix): a for n, a in layer.parameters.items() if n.endswith(suffix)}
            state = h[2 * k + d], c[2 * k + d]
            steps = []
            for x in reversed(row) if d else row:
                state = scalar_step(name, w, x, *state)
                steps.append(state[0])
            outputs.append(steps[::-1] if d else steps)
            last_h.append(state[0])
            last_c.append(state[1])
        row = [forward + backward for forward, backward in zip(*outputs, strict=True)]
    return row, last_h, last_c


@every_cell
def test_against_scalar_python(name):
    random = np.random.default_rng(0)
    layer = make(name, 3, 4, num_layers=2, bidirectional=True)
    lengths = [5, 0, 3]
    x = random.normal(size=(5, 3, 3))
    state = random_state(layer, random, 3)
    y, final = layer(x, as_state(state), lengths=lengths)
    c = state[1] if len(state) > 1 else np.zeros((4, 3, 4))
    for b, length in enumerate(lengths):
        row, *last = scalar_network(name, layer, x[:length, b].tolist(), state[0][:, b].tolist(), c[:, b].tolist())
        np.testing.assert_allclose(y[:length, b], np.reshape(row, (length, y.shape[2])), rtol=0, atol=1e-14)
        for array, expected in zip(as_arrays(final), last, strict=False):
            np.testing.assert_allclose(array[:, b], expected, rtol=0, atol=1e-14)


def zeros(layer):
    for array in layer.parameters.values():
        array[...] = 0
    return layer


def test_literal_values():
    """With all weights 0, every sigmoid is 1/2 and every tanh 0."""
    x, two = np.ones((1, 1, 1)), np.full((1, 1, 1), 2.0)

    rnn = zeros(make("rnn_tanh", 1, 1))
    rnn.parameters["bias_ih_l0"][:] = 0.25
    rnn.parameters["weight_hh_l0"][:] = 0.125
    assert rnn(x, two)[0].item() == pytest.approx(0.46211715726000976, abs=1e-16)  # tanh(1/2)

    y, (h, c) = zeros(make("lstm", 1, 1))(x, (two, two))
    assert c.item() == 1  # 1/2 * 2 + 1/2 * 0
    assert y.item() == h.item() == pytest.approx(0.38079707797788243, abs=1e-16)  # tanh(1) / 2

    for name in ("gru", "gru_reset_before"):
        gru = zeros(make(name, 1, 1))
        assert gru(x, two)[0].item() == 1  # 1/2 * 0 + 1/2 * 2
        gru.parameters["weight_hh_l0"][2] = 1  # n = tanh(1/2 * 2) in both variants
        assert gru(x, two)[0].item() == pytest.approx(1.3807970779778824, abs=1e-15)
        gru.parameters["bias_hh_l0"][2] = 1  # n = tanh(1/2 * (2 + 1)) or tanh(1/2 * 2 + 1)
        n = 0.9051482536448664 if name == "gru" else 0.9640275800758169
        assert gru(x, two)[0].item() == pytest.approx(n / 2 + 1, abs=1e-15)


@every_cell
def test_saturation(name):
    """Pre-activations of ±1e4 give the gates' limits, without a NaN and without a warning."""
    for sign in (-1, 1):
        layer = zeros(make(name, 1, 3))
        layer.parameters["bias_ih_l0"][:] = sign * 1e4
        y, _, tape = layer.forward(np.ones((4, 2, 1)))
        assert np.isin(tape.gates(0, 0), [-1, 0, 1] if name != "rnn_relu" else [0, 1e4]).all()
        grads = layer.backward(tape, np.ones_like(y))
        assert all(np.isfinite(g).all() for g in (grads.x, grads.h0, *grads.parameters.values()))


def test_sigmoid():
    a = np.array([-1e4, -800, -40, -1, 0, 1, 40, 800, 1e4])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        value = reference.sigmoid(a)
    expected = [0, 0, math.exp(-40), 1 / (1 + math.e), 0.5, math.e / (1 + math.e), 1, 1, 1]
    np.testing.assert_allclose(value, expected, rtol=1e-15, atol=1e-300)
    assert reference.sigmoid(a.astype(np.float32)).dtype == np.float32


# ----------------------------------------------------------------------------------------------- finite differences

EPSILON = 1e-5  # central differences: truncation ~ EPSILON^2, cancellation ~ 1e-16 / EPSILON
TOLERANCE = 2e-9  # absolute and relative; a factor of about ten above both

STACK = {"num_layers": 2, "bidirectional": True}
RAGGED = [3, 0, 2]
GRADIENT_CASES = [
    *[(name, {}, {}) for name in CELLS],
    *[(name, {**STACK, "dropout": 0.4}, {"lengths": RAGGED}) for name in CELLS],
    *[(name, {"bias": False, "batch_first": True}, {"of": "y"}) for name in CELLS],
    *[(name, {"bidirectional": True}, {"of": "h", "lengths": RAGGED}) for name in CELLS],
    ("lstm", {}, {"of": "c", "lengths": RAGGED}),
    ("lstm_projected", {}, {"of": "c"}),
    ("lstm_projected", {"bias": False, **STACK}, {"of": "c"}),
    ("gru", {"num_layers": 3, "dropout": 0.5}, {}),
    ("rnn_sigmoid", {}, {"unbatched": True}),
    ("lstm", STACK, {"unbatched": True, "lengths": 2}),
]


@pytest.mark.parametrize(("name", "options", "call"), GRADIENT_CASES)
def test_gradients_against_finite_differences(name, options, call):
    random = np.random.default_rng(1)
    layer = make(name, 2, 3, **options)
    shape = (3, 2) if call.get("unbatched") else (3, 3, 2)
    x = random.normal(size=shape)
    state = random_state(layer, random, *shape[1:-1])
    arguments = {"lengths": call.get("lengths"), "dropout_seed": 7}

    y, final, tape = layer.forward(x, as_state(state), **arguments)
    outputs = dict(zip("yhc", (y, *as_arrays(final)), strict=False))
    # the loss: a weighted sum of all that comes out, or of one thing alone
    gradients = {k: random.normal(size=a.shape) for k, a in outputs.items() if call.get("of", k) == k}

    def loss():
        y, final, _ = layer.forward(x, as_state(state), **arguments)
        outputs = dict(zip("yhc", (y, *as_arrays(final)), strict=False))
        return sum((outputs[k] * g).sum() for k, g in gradients.items())

    def differences(array):
        result = np.zeros_like(array)
        for index in np.ndindex(array.shape):
            value = array[index]
            array[index] = value + EPSILON
            up = loss()
            array[index] = value - EPSILON
            result[index] = (up - loss()) / (2 * EPSILON)
            array[index] = value
        return result

    dstate = tuple(gradients.get(k) for k in "hc"[: len(state)])
    grads = layer.backward(tape, gradients.get("y"), as_state(dstate))
    pairs = {"x": (grads.x, x), "h0": (grads.h0, state[0])}
    if len(state) > 1:
        pairs["c0"] = (grads.c0, state[1])
    else:
        assert grads.c0 is None
    assert list(grads.parameters) == list(layer.parameters)
    pairs |= {n: (g, layer.parameters[n]) for n, g in grads.parameters.items()}
    for what, (gradient, array) in pairs.items():
        assert gradient.shape == array.shape
        np.testing.assert_allclose(gradient, differences(array), rtol=TOLERANCE, atol=TOLERANCE, err_msg=what)


def test_both_biases_of_the_gru_have_their_own_gradient():
    for name, differ in (("gru", True), ("gru_reset_before", False)):
        layer = make(name, 2, 3)
        y, _, tape = layer.forward(np.ones((4, 1, 2)))
        b_ih, b_hh = (layer.backward(tape, np.ones_like(y)).parameters[f"bias_{k}_l0"] for k in ("ih", "hh"))
        assert (b_ih[:6] == b_hh[:6]).all()
        assert (b_ih[6:] != b_hh[6:]).all() == differ


def test_a_tape_can_be_used_again():
    layer = make("lstm", 2, 3, num_layers=2, dropout=0.5)
    y, _, tape = layer.forward(np.ones((4, 2, 2)))
    first, second = layer.backward(tape, y), layer.backward(tape, y)
    assert (first.x == second.x).all()
    assert all((first.parameters[n] == second.parameters[n]).all() for n in layer.parameters)
    assert not layer.backward(tape).x.any()


# ---------------------------------------------------------------------------------------------------------- lengths


def train(layer, x, state, dy, dstate, lengths):
    """Everything that comes out of a forward and backward pass, by name."""
    y, final, tape = layer.forward(x, as_state(state), lengths=lengths, dropout_seed=3)
    grads = layer.backward(tape, dy, as_state(dstate))
    results = {"y": y, "x": grads.x, "h0": grads.h0, **grads.parameters}
    results |= dict(zip(("h_n", "c_n"), as_arrays(final), strict=False))
    return results | ({} if grads.c0 is None else {"c0": grads.c0})


@every_cell
def test_padding_is_neither_read_nor_written(name):
    random = np.random.default_rng(2)
    layer = make(name, 3, 4, **STACK, dropout=0.3)
    lengths = np.array([2, 0, 6, 5])
    padding = np.arange(6)[:, None] >= lengths
    x = random.normal(size=(6, 4, 3))
    state, dstate = random_state(layer, random, 4), random_state(layer, random, 4)
    dy = random.normal(size=(6, 4, layer(x)[0].shape[2]))
    x[padding] = dy[padding] = 0
    clean = train(layer, x, state, dy, dstate, lengths)
    x[padding], dy[padding] = np.nan, np.inf
    dirty = train(layer, x, state, dy, dstate, lengths)
    for what in clean:
        np.testing.assert_array_equal(clean[what], dirty[what], err_msg=what)
        assert np.isfinite(dirty[what]).all()
    assert not dirty["y"][padding].any()
    assert not dirty["x"][padding].any()
    tape = layer.forward(x, lengths=lengths)[2]
    assert not tape.gates(1, 1)[padding].any()
    # a row without a step passes its state on
    np.testing.assert_array_equal(dirty["h_n"][:, 1], state[0][:, 1])
    np.testing.assert_array_equal(dirty["h0"][:, 1], dstate[0][:, 1])
    if "c0" in dirty:
        np.testing.assert_array_equal(dirty["c_n"][:, 1], state[1][:, 1])
        np.testing.assert_array_equal(dirty["c0"][:, 1], dstate[1][:, 1])
        assert not tape.cells(1, 1)[padding].any()


@every_cell
def test_a_row_in_a_batch_is_as_alone(name):
    random = np.random.default_rng(3)
    layer = make(name, 3, 4, **STACK)
    lengths = [4, 6, 0, 1]
    x = random.normal(size=(6, 4, 3))
    state, dstate = random_state(layer, random, 4), random_state(layer, random, 4)
    dy = random.normal(size=(6, 4, layer(x)[0].shape[2]))
    batch = train(layer, x, state, dy, dstate, lengths)
    totals = dict.fromkeys(layer.parameters, 0.0)
    for b, length in enumerate(lengths):
        own, down = (tuple(array[:, b] for array in arrays) for arrays in (state, dstate))
        alone = train(layer, x[:length, b], own, dy[:length, b], down, None)
        for what in batch.keys() - totals.keys():
            size = length if what in "xy" else None
            np.testing.assert_allclose(batch[what][:size, b], alone[what], rtol=1e-13, atol=1e-13, err_msg=what)
        for parameter in totals:
            totals[parameter] = totals[parameter] + alone[parameter]
    for parameter, total in totals.items():
        np.testing.assert_allclose(batch[parameter], total, rtol=1e-12, atol=1e-12, err_msg=parameter)


@every_cell
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (3, 0), (0, 0)])
def test_empty(name, steps, batch):
    layer = make(name, 2, 3, **STACK)
    random = np.random.default_rng(4)
    state, dstate = random_state(layer, random, batch), random_state(layer, random, batch)
    y = layer(np.zeros((steps, batch, 2)))[0]
    assert y.shape == (steps, batch, 2 * state[0].shape[2])
    results = train(layer, np.zeros((steps, batch, 2)), state, y, dstate, None)
    if steps == 0:
        np.testing.assert_array_equal(results["h_n"], state[0])
        np.testing.assert_array_equal(results["h0"], dstate[0])
    assert results["x"].shape == (steps, batch, 2)
    assert not any(results[n].any() for n in layer.parameters)


# ------------------------------------------------------------------------------------------------ layouts and dtypes


@every_cell
def test_layouts_agree(name):
    random = np.random.default_rng(5)
    time_major, batch_first = make(name, 3, 4, **STACK), make(name, 3, 4, **STACK, batch_first=True)
    x = random.normal(size=(5, 2, 3))
    state, dstate = random_state(time_major, random, 2), random_state(time_major, random, 2)
    dy = random.normal(size=time_major(x)[0].shape)
    expected = train(time_major, x, state, dy, dstate, [5, 3])
    results = train(batch_first, x.swapaxes(0, 1), state, dy.swapaxes(0, 1), dstate, [5, 3])
    for what, array in results.items():
        assert array.flags.c_contiguous
        np.testing.assert_array_equal(array.swapaxes(0, 1) if what in "xy" else array, expected[what])

    tape = time_major.forward(x, lengths=[5, 3])[2]
    other = batch_first.forward(np.asfortranarray(x.swapaxes(0, 1)), lengths=[5, 3])[2]
    single = time_major.forward(x[:, 0], lengths=5)[2]
    own = reference.CELLS[tape.spec.cell]
    for layer, direction in np.ndindex(2, 2):
        gates = tape.gates(layer, direction)
        assert gates.shape == (5, 2, own.gates, 4)
        assert not gates.flags.writeable
        np.testing.assert_array_equal(other.gates(layer, direction).swapaxes(0, 1), gates)
        np.testing.assert_allclose(single.gates(layer, direction), gates[:, 0], rtol=1e-13)
        if own.has_cell:
            cells = tape.cells(layer, direction)
            assert cells.shape == (5, 2, 4)
            np.testing.assert_array_equal(other.cells(layer, direction).swapaxes(0, 1), cells)
        else:
            with pytest.raises(ValueError, match="cells"):
                tape.cells(layer, direction)
    assert tape.x is x
    assert tape.nbytes > tape.gates(0, 0).nbytes * 4
    np.testing.assert_array_equal(tape.gates(1), tape.gates(1, 0))
    with pytest.raises(ValueError, match="layer"):
        tape.gates(2, 0)
    with pytest.raises(ValueError, match="direction"):
        tape.gates(0, 2)


def test_gates_are_the_equations():
    random = np.random.default_rng(6)
    lstm = make("lstm", 3, 4)
    x = random.normal(size=(5, 2, 3))
    y, _, tape = lstm.forward(x)
    i, f, g, o = np.moveaxis(tape.gates(0, 0), 2, 0)
    c = tape.cells(0, 0)
    np.testing.assert_allclose(c[1:], f[1:] * c[:-1] + i[1:] * g[1:], rtol=1e-14)
    np.testing.assert_allclose(y, o * np.tanh(c), rtol=1e-14)
    rnn = make("rnn_tanh", 3, 4)
    y, _, tape = rnn.forward(x)
    np.testing.assert_array_equal(tape.gates(0, 0)[:, :, 0], y)


@every_cell
def test_float32_stays_float32(name):
    random = np.random.default_rng(7)
    cls, own = CELLS[name]
    single, double = (cls(3, 4, **STACK, **own, dropout=0.3, dtype=dtype, seed=5) for dtype in ("float32", "float64"))
    for parameter, array in single.parameters.items():
        double.parameters[parameter] = array.astype(np.float64)
    x = random.normal(size=(5, 2, 3)).astype(np.float32)
    state, dstate = random_state(single, random, 2), random_state(single, random, 2)
    dy = random.normal(size=single(x)[0].shape)
    inputs = [tuple(a.astype(np.float32) for a in arrays) for arrays in ((x,), state, (dy,), dstate)]
    results = train(single, x, inputs[1], inputs[2][0], inputs[3], [5, 3])
    wide = [tuple(a.astype(np.float64) for a in arrays) for arrays in inputs]
    expected = train(double, wide[0][0], wide[1], wide[2][0], wide[3], [5, 3])
    for what, array in results.items():
        assert array.dtype == np.float32
        error = np.linalg.norm(array - expected[what]) / np.linalg.norm(expected[what])
        assert error < 2e-6, what


def test_any_cell_may_have_a_c(monkeypatch):
    """Nothing but the cell itself says what its state is: here is another of the LSTM's kind."""
    layer = make("lstm", 3, 4, num_layers=2, bidirectional=True)
    fields = {name: getattr(layer.spec, name) for name in SPEC_FIELDS}
    functions = reference.SIGMOID, reference.TANH, reference.TANH
    monkeypatch.setitem(reference.CELLS, "another", type("Another", (reference.LSTMCell,), {})(*functions))
    monkeypatch.setattr(reference, "check", lambda *_: None)  # it knows the native cells
    random = np.random.default_rng(3)
    x, state, dstate = random.normal(size=(5, 2, 3)), *(random_state(layer, random, 2) for _ in range(2))
    results = []
    for spec in (layer.spec, SimpleNamespace(**fields | {"cell": "another"})):
        y, final, tape = reference.forward(spec, list(layer.parameters.values()), x, state, None, 0)
        dx, dh0, dc0, flat = reference.backward(tape, np.ones_like(y), dstate)
        results.append([y, *final, tape.cells(1), dx, dh0, dc0, *flat])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------------------------------------------------- dropout


def integer_splitmix64(z):
    """The same function in Python's integers."""
    modulus = 2**64
    z = (z + 0x9E3779B97F4A7C15) % modulus
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % modulus
    z = (z ^ z >> 27) * 0x94D049BB133111EB % modulus
    return z ^ z >> 31


def test_splitmix64():
    # the generator's first three outputs from state 0, as its published implementations give them
    states = np.array([k * 0x9E3779B97F4A7C15 % 2**64 for k in range(3)], np.uint64)
    assert splitmix64(states).tolist() == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


@pytest.mark.parametrize("seed", [0, 42, 2**64 - 1])
def test_masks_are_a_function_of_the_position(seed):
    probability, layer, (T, B, W) = 0.3, 2, (3, 4, 5)
    key = integer_splitmix64((integer_splitmix64(seed) + layer) % 2**64)
    mask = kept(seed, layer, probability, (T, B, W))
    for t, b, j in np.ndindex(T, B, W):
        random = integer_splitmix64((key + (t * B + b) * W + j) % 2**64) >> 40
        assert mask[t, b, j] == (random >= math.floor(probability * 2**24))


def test_masks_have_their_probability():
    for probability in (0.1, 0.5, 0.9):
        mean = kept(1, 1, probability, (50, 40, 30)).mean()
        assert mean == pytest.approx(1 - probability, abs=4 * math.sqrt(probability * (1 - probability) / 60000))
    assert kept(1, 1, 0.0, (5, 4, 3)).all()
    assert not kept(1, 1, 1.0, (5, 4, 3)).any()


def test_masks_of_neighbours_are_independent():
    """Those of two seeds or layers agree as often as chance has it."""
    probability, shape = 0.3, (40, 30, 20)
    masks = {(seed, layer): kept(seed, layer, probability, shape) for seed in range(4) for layer in range(1, 4)}
    chance = probability**2 + (1 - probability) ** 2
    for (one, a), (other, b) in itertools.combinations(masks.items(), 2):
        deviations = ((a == b).mean() - chance) / math.sqrt(chance * (1 - chance) / a.size)
        assert abs(deviations) < 4.5, f"seed and layer {one}, {other}: {(a == b).mean():.3f}, by chance {chance:.3f}"


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_dropout_is_between_layers(probability):
    random = np.random.default_rng(8)
    both = make("gru", 3, 4, num_layers=2, dropout=probability)
    first, second = make("gru", 3, 4), make("gru", 4, 4)
    for name, array in both.parameters.items():
        (first if name.endswith("_l0") else second).parameters[name.replace("_l1", "_l0")] = array
    x = random.normal(size=(5, 2, 3))
    between = first(x)[0]
    mask = kept(11, 1, probability, between.shape)
    assert mask.any() == (probability < 1)
    masked = np.where(mask, between / (1 - probability), 0) if probability < 1 else np.zeros_like(between)
    np.testing.assert_allclose(both.forward(x, dropout_seed=11)[0], second(masked)[0], rtol=1e-13)
    np.testing.assert_allclose(both(x)[0], second(between)[0], rtol=1e-13)  # none in inference


# ----------------------------------------------------------------------------------------------------------- errors


def test_backward_names_a_bad_gradient():
    layer = make("lstm", 2, 3, proj_size=2)
    y, (h, c), tape = layer.forward(np.zeros((4, 2, 2)))
    for dy, dstate, error, name in [
        (y[:-1], None, ValueError, "dy"),
        (y[..., :1], None, ValueError, "dy"),
        (y.astype(np.float32), None, TypeError, "dy"),
        (y.tolist(), None, TypeError, "dy"),
        (None, (h[:, :1], None), ValueError, "dh_n"),
        (None, (h.astype(np.float32), c), TypeError, "dh_n"),
        (None, (None, h), ValueError, "dc_n"),
        (None, (None, 1.0), TypeError, "dc_n"),
        (None, h, TypeError, "dstate"),
        (None, (h, c, c), TypeError, "dstate"),
    ]:
        with pytest.raises(error, match=name):
            layer.backward(tape, dy, dstate)
    gru = make("gru", 2, 3)
    _, h, tape = gru.forward(np.zeros((4, 2, 2)))
    with pytest.raises(ValueError, match="dh_n"):
        gru.backward(tape, None, h[0])

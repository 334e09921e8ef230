"""The functions of `fastrnn.jax` against the reference: outputs, states and gradients, and what they refuse."""

import importlib
import itertools
import sys
from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.jax  # noqa: E402
from cases import (  # noqa: E402
    CELLS,
    DTYPES,
    NEAR_A_KINK,
    PROJECTED,
    Case,
    Native,
    as_state,
    assert_same_bits,
    covering,
    in_float64,
    infer,
    make_data,
    train,
    watched_kinks,
)
from fastrnn import _core  # noqa: E402
from fastrnn._options import Options  # noqa: E402

OPTIONS = {"rnn_relu": {"nonlinearity": "relu"}, "rnn_sigmoid": {"nonlinearity": "sigmoid"}}
OPTIONS["gru_reset_before"] = {"reset_after": False}


@pytest.fixture(autouse=True)
def doubles():
    """JAX keeps what is float64."""
    jax.config.update("jax_enable_x64", True)


def function(spec):
    """The function of a network's cell, with its static options."""
    options = {name: getattr(spec, name) for name in ("num_layers", "bidirectional", "batch_first", "dropout")}
    kind = getattr(fastrnn.jax, spec.cell.split("_")[0])
    return partial(kind, **options, **OPTIONS.get(spec.cell, {}))


def as_jax(value):
    """Arrays of a tree, on JAX's side."""
    return jax.tree.map(jnp.asarray, value)


def named(y, state):
    """Results by name, on NumPy's side."""
    states = state if isinstance(state, tuple) else (state,)
    return {name: np.asarray(a) for name, a in zip(("y", "h_n", "c_n"), (y, *states), strict=False)}


def named_gradients(dx, dstate, dweights):
    states = () if dstate is None else dstate if isinstance(dstate, tuple) else (dstate,)
    gradients = {"dx": dx} | dict(zip(("dh0", "dc0"), states, strict=False))
    gradients |= {f"d{name}": gradient for name, gradient in dweights.items()}
    return {name: np.asarray(gradient) for name, gradient in gradients.items()}


def test_variants_of_the_cells(assert_close):
    """Peepholes, coupled gates, clipping and other activations, under jit and grad; test_options.py has all of them."""
    functions = ("hard_sigmoid", ("scaled_tanh", 1.2, 0.7), "softsign")
    variants = [
        ("lstm", Options(functions, 0.8, True, True)),
        ("gru", Options(functions[:2], 0.8)),
        ("gru_reset_before", Options(functions[:2])),
        ("rnn_tanh", Options(functions[2:], 0.8)),
    ]
    for cell, options in variants:
        layer = Native(cell, 3, 5, 2, bidirectional=True, dtype="float64", options=options)
        exact, data = in_float64(layer), make_data(layer, 7, 4, lengths=True)
        forwards, gradients = train(exact, data)
        given = {"clip": options.clip, "activations": options.activations}
        if cell == "lstm":
            given |= {"peephole": True, "coupled_input_forget": True}
        run = jax.jit(partial(function(layer.spec), lengths=data.lengths, **given))
        arguments = as_jax((data.x, layer.parameters, as_state(data.state)))
        (y, state), pullback = jax.vjp(run, *arguments)
        found = named(y, state)
        assert_close("forward", layer.spec, 7, found, {name: forwards[name] for name in found})
        dx, dweights, dstate = pullback(as_jax((data.dy, as_state(data.dstate))))
        assert_close("backward", layer.spec, 7, named_gradients(dx, dstate, dweights), gradients)


# ------------------------------------------------------------------------------------------------------------- parity

FACTORS = {
    "cell": CELLS,
    "hidden": (1, 5, 16, 33),
    "inputs": (3, 20),
    "batch": (None, 1, 3, 17),
    "steps": (1, 2, 9),
    "layers": (1, 2, 3),
    "bidirectional": (False, True),
    "bias": (True, False),
    "batch_first": (False, True),
    "dropout": (0.0, 0.35),
    "initial": (True, False),
    "ragged": (False, True),
}


def valid(cell, hidden, layers, dropout, **_):
    return not (cell == PROJECTED and hidden == 1) and not (dropout and layers == 1)


CASES = [Case(**combination) for combination in covering(FACTORS, valid)]


def seed_of(key):
    """The kernel's, of a key."""
    low, high = np.asarray(jax.random.bits(key, (2,), jnp.uint32))
    return int(high) << 32 | int(low)


@pytest.mark.parametrize(("number", "case"), [pytest.param(*c, id=str(c[1])) for c in enumerate(CASES)])
def test_parity(number, case, assert_close):
    dtype = DTYPES[number % 2]
    layer = case.network(Native, dtype)
    exact = in_float64(layer)
    key = jax.random.key(number)
    for seed in itertools.count():
        data = case.data(layer, seed)
        data.dropout_seed = seed_of(key)
        same = data.astype(np.float64)
        with watched_kinks() as kinks:
            forwards, gradients = train(exact, same)
            inferred = infer(exact, same)
        if kinks.nearest > NEAR_A_KINK:
            break
    run = partial(function(layer.spec), lengths=data.lengths)
    arguments = as_jax((data.x, layer.parameters, as_state(data.state)))

    def both(x, weights, state, cotangents):
        results, pull = jax.vjp(lambda x, w, s: run(x, w, s, dropout_key=key), x, weights, state)
        return results, pull(cotangents)

    calls = fastrnn.native_calls()
    (y, state), (dx, dweights, dstate) = jax.jit(both)(*arguments, as_jax((data.dy, as_state(data.dstate))))
    plain = jax.jit(run)(*arguments)
    results = named(y, state)
    found = named_gradients(dx, dstate, dweights)
    outputs = named(*plain)
    assert fastrnn.native_calls() == calls + 3
    assert_close("forward", layer.spec, case.steps, results, {name: forwards[name] for name in results})
    assert_close("forward", layer.spec, case.steps, outputs, inferred)
    expected = gradients if case.initial else {n: g for n, g in gradients.items() if n not in ("dh0", "dc0")}
    assert_close("backward", layer.spec, case.steps, found, expected)
    assert_same_bits(outputs, infer(layer, data), "between JAX and NumPy")


@pytest.mark.parametrize("cell", CELLS)
def test_weights_in_a_sequence(cell):
    """Their gradients are a sequence, too."""
    layer = Native(cell, 3, 4, 2, bidirectional=True)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2, 3)), jnp.float32)
    run = function(layer.spec)
    flat = tuple(layer.parameters.values())  # NumPy's arrays will do
    by_name = jax.grad(lambda w: run(x, w)[0].sum())(as_jax(layer.parameters))
    in_order = jax.grad(lambda w: run(x, w)[0].sum())(as_jax(flat))
    assert np.array_equal(run(x, flat)[0], run(np.asarray(x), layer.parameters)[0])
    assert isinstance(in_order, tuple)
    assert all(np.array_equal(g, by_name[name]) for name, g in zip(layer.parameters, in_order, strict=True))


@pytest.mark.parametrize("given", [(True, False), (False, True)])
def test_half_a_state(given):
    """And losses of one part of the results alone."""
    layer = fastrnn.LSTM(3, 4, seed=0, dtype="float64")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2, 3))
    state = tuple(rng.normal(size=(1, 2, 4)) if g else None for g in given)

    def loss(x, state, weights):
        _, (_, c_n) = fastrnn.jax.lstm(x, weights, state)
        return (c_n**2).sum()

    found = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*as_jax((x, state, layer.parameters)))
    _, (_, c_n), tape = layer.forward(x, state)
    right = layer.backward(tape, dstate=(None, 2 * c_n))
    np.testing.assert_allclose(found[0], right.x, rtol=1e-12)
    for gradient, expected, is_given in zip(found[1], (right.h0, right.c0), given, strict=True):
        assert (gradient is not None) == is_given
        if is_given:
            np.testing.assert_allclose(gradient, expected, rtol=1e-12)


def test_only_what_is_wanted():
    """The kernel computes derivatives with respect to x where they are asked for, and is handed no zeros."""
    layer = fastrnn.LSTM(3, 4, seed=0)
    x, weights = as_jax((np.ones((5, 2, 3), np.float32), layer.parameters))

    def loss(weights, x):
        return fastrnn.jax.lstm(x, weights)[1][0].sum()

    names = str(jax.make_jaxpr(jax.grad(loss))(weights, x))
    assert "dh0 dc0" in names
    assert "dx" not in names
    assert " dh_n" in names
    assert " dy" not in names
    assert "dc_n" not in names
    assert "dx" in str(jax.make_jaxpr(jax.grad(loss, argnums=1))(weights, x))


# ------------------------------------------------------------------------------------------------------------ dropout


def test_dropout():
    layer = fastrnn.GRU(4, 16, num_layers=2, seed=0)
    x, weights = as_jax((np.ones((9, 2, 4), np.float32), layer.parameters))
    run = jax.jit(partial(fastrnn.jax.gru, num_layers=2, dropout=0.5))
    full = jax.jit(partial(fastrnn.jax.gru, num_layers=2))(x, weights)[0]
    key, other = jax.random.split(jax.random.key(0))
    assert np.array_equal(run(x, weights)[0], full)
    assert np.array_equal(run(x, weights, dropout_key=key)[0], run(x, weights, dropout_key=key)[0])
    assert not np.array_equal(run(x, weights, dropout_key=key)[0], run(x, weights, dropout_key=other)[0])
    assert not np.array_equal(run(x, weights, dropout_key=key)[0], full)
    old_kind = jax.random.key_data(key)
    assert np.array_equal(run(x, weights, dropout_key=old_kind)[0], run(x, weights, dropout_key=key)[0])
    alone = partial(fastrnn.jax.gru, dropout=0.5)  # one layer has nothing to drop
    first = fastrnn.GRU(4, 16, seed=0).parameters
    assert np.array_equal(alone(x, first, dropout_key=key)[0], alone(x, first)[0])


# ------------------------------------------------------------------------------------------------------------ lengths


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_lengths(traced, dtype):
    """What pads is never read, and has no gradient."""
    layer = fastrnn.GRU(3, 4, bidirectional=True, seed=0)
    lengths = np.array([3, 7, 0, 1], dtype)
    x = np.random.default_rng(0).normal(size=(7, 4, 3)).astype(np.float32)
    for row, length in enumerate(lengths):
        x[length:, row] = np.nan

    def loss(x, lengths):
        y, h_n = fastrnn.jax.gru(x, as_jax(layer.parameters), lengths=lengths, bidirectional=True)
        return (y**2).sum(), (y, h_n)

    run = jax.grad(loss, has_aux=True)
    run = jax.jit(run) if traced else partial(jax.jit(run, static_argnums=1), lengths=tuple(map(int, lengths)))
    dx, (y, h_n) = run(x, lengths) if traced else run(x)
    right_y, right_h = layer(x, lengths=lengths)
    assert np.array_equal(y, right_y)
    assert np.array_equal(h_n, right_h)
    assert np.isfinite(dx).all()
    assert not any(np.asarray(dx)[length:, row].any() for row, length in enumerate(lengths))


def test_lengths_of_one_sequence():
    layer = fastrnn.RNN(3, 4, seed=0)
    x = np.ones((6, 3), np.float32)
    for length in (4, np.int64(4), [4], jnp.asarray(4)):
        y, h_n = fastrnn.jax.rnn(x, layer.parameters, lengths=length)
        assert np.array_equal(y[:4], layer(x[:4])[0])
        assert not y[4:].any()
        assert np.array_equal(h_n, y[3:4])


def test_wide_lengths_out_of_64_bit_mode():
    """Their values stay what they were."""
    layer = fastrnn.RNN(3, 4, seed=0)
    x, lengths = np.ones((6, 2, 3), np.float32), jnp.asarray([2**32 + 1, 2])
    jax.config.update("jax_enable_x64", False)  # until the next test
    run = jax.jit(lambda lengths: fastrnn.jax.rnn(x, as_jax(layer.parameters), lengths=lengths))
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"lengths: expected values in 0 ... 6, got 4294967297"):
        jax.block_until_ready(run(lengths))


def test_traced_lengths_that_are_wrong():
    """Nobody knows them before the kernel does; it ends the program with an error, and the next one runs."""
    layer = fastrnn.RNN(3, 4, seed=0)
    x = np.ones((6, 2, 3), np.float32)
    run = jax.jit(lambda x, lengths: fastrnn.jax.rnn(x, as_jax(layer.parameters), lengths=lengths))
    for bad in ([7, 0], [-1, 2], [2**31 + 3, 1]):
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"fastrnn: lengths: expected values in 0 ... 6, got -?\d"):
            jax.block_until_ready(run(x, np.array(bad, np.int64)))
    assert np.array_equal(run(x, np.array([2, 6]))[0], layer(x, lengths=[2, 6])[0])


# -------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (5, 0), (0, 0), (0, None)])
def test_nothing(cell, steps, batch):
    """No steps leave the state as it was; gradients of nothing are zeros."""
    layer = Native(cell, 3, 4, 2, bidirectional=True)
    run = function(layer.spec)
    rows = () if batch is None else (batch,)
    x = jnp.ones((steps, *rows, 3), jnp.float32)
    h0 = jnp.ones((4, *rows, 4), jnp.float32)
    state = (h0, 2 * h0) if cell == "lstm" else h0
    y, final = jax.jit(run)(x, layer.parameters, state)
    assert y.shape == (steps, *rows, 8)
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(final), jax.tree.leaves(state), strict=True))
    loss = jax.jit(jax.grad(lambda w, s: sum(a.sum() for a in jax.tree.leaves(run(x, w, s))), argnums=(0, 1)))
    dweights, dstate = loss(as_jax(layer.parameters), state)
    assert not any(np.asarray(g).any() for g in dweights.values())
    assert all(np.array_equal(g, np.ones_like(g)) for g in jax.tree.leaves(dstate))


# ------------------------------------------------------------------------------------------------------------- errors

WEIGHTS = fastrnn.LSTM(3, 4, seed=0).parameters
X, STATE = np.zeros((5, 2, 3), np.float32), np.zeros((1, 2, 4), np.float32)


def changed(**arrays):
    return WEIGHTS | arrays


BAD_CALLS = {
    "x is no array": (TypeError, "x", {"x": [[1.0]]}),
    "axes of x": (ValueError, "x", {"x": np.zeros((1, 5, 2, 3), np.float32)}),
    "width of x": (ValueError, "x", {"x": np.zeros((5, 2, 4), np.float32)}),
    "integers": (TypeError, "x", {"x": np.zeros((5, 2, 3), np.int32)}),
    "half precision": (TypeError, "x", {"x": jnp.zeros((5, 2, 3), jnp.bfloat16)}),
    "other precision": (TypeError, "x", {"x": np.zeros((5, 2, 3))}),
    "order of bytes": (TypeError, "x", {"x": X.astype(X.dtype.newbyteorder())}),
    "no weights": (TypeError, "weights", {"weights": None}),
    "a weight is no array": (TypeError, "weight_hh_l0", {"weights": changed(weight_hh_l0=3)}),
    "a weight is missing": (ValueError, "bias_hh_l0", {"weights": dict(list(WEIGHTS.items())[:3])}),
    "a weight too many": (ValueError, "weights", {"weights": [*WEIGHTS.values(), X, X]}),
    "an unknown weight": (ValueError, "bias_l0", {"weights": changed(bias_l0=X)}),
    "shape of a weight": (ValueError, "weight_hh_l0", {"weights": changed(weight_hh_l0=np.zeros((16, 5), np.float32))}),
    "rows of a weight": (ValueError, "weight_ih_l0", {"weights": changed(weight_ih_l0=np.zeros((15, 3), np.float32))}),
    "axes of a weight": (ValueError, "weight_ih_l0", {"weights": changed(weight_ih_l0=np.zeros(16, np.float32))}),
    "dtype of a weight": (TypeError, "bias_ih_l0", {"weights": changed(bias_ih_l0=np.zeros(16))}),
    "h0 alone": (TypeError, "state", {"state": STATE}),
    "three states": (ValueError, "state", {"state": (STATE, STATE, STATE)}),
    "shape of h0": (ValueError, "h0", {"state": (STATE[:, :1], STATE)}),
    "shape of c0": (ValueError, "c0", {"state": (None, STATE[0])}),
    "dtype of c0": (TypeError, "c0", {"state": (None, STATE.astype(np.float64))}),
    "long lengths": (ValueError, "lengths", {"lengths": [6, 1]}),
    "negative lengths": (ValueError, "lengths", {"lengths": [-1, 1]}),
    "number of lengths": (ValueError, "lengths", {"lengths": [1, 2, 3]}),
    "one length": (ValueError, "lengths", {"lengths": 3}),
    "ragged lengths": (TypeError, "lengths", {"lengths": [[1], [2, 3]]}),
    "fractions": (TypeError, "lengths", {"lengths": [1.0, 2.0]}),
    "truths": (TypeError, "lengths", {"lengths": [True, False]}),
    "text": (TypeError, "lengths", {"lengths": "ab"}),
    "a masked array": (TypeError, "x must not be masked", {"x": np.ma.masked_array(X)}),
    "masked lengths": (TypeError, "lengths must not be masked", {"lengths": np.ma.masked_array([1, 2])}),
    "layers": (ValueError, "num_layers", {"num_layers": 0}),
    "fractional layers": (TypeError, "num_layers", {"num_layers": 1.0}),
    "too few weights": (ValueError, "weight_ih_l1", {"num_layers": 2}),
    "bidirectional": (TypeError, "bidirectional", {"bidirectional": 1}),
    "batch_first": (TypeError, "batch_first", {"batch_first": None}),
    "dropout": (ValueError, "dropout", {"dropout": 1.5}),
    "no probability": (TypeError, "dropout", {"dropout": "x"}),
    "a seed": (TypeError, "dropout_key", {"dropout_key": 3}),
    "many keys": (TypeError, "dropout_key", {"dropout_key": jax.random.split(jax.random.key(0))}),
    "no key": (TypeError, "dropout_key", {"dropout_key": X}),
    "words of a key": (TypeError, "dropout_key", {"dropout_key": np.zeros(3, np.uint32)}),
    "a masked key": (TypeError, "dropout_key", {"dropout_key": np.ma.zeros(2, np.uint32)}),
    "keys for lengths": (TypeError, "lengths", {"lengths": jax.random.split(jax.random.key(0))}),
    "durations": (TypeError, "lengths", {"lengths": np.ones(2, "m8[s]")}),
}


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("what", BAD_CALLS)
def test_errors_name_the_argument(what, jitted):
    """They come when a program is traced."""
    error, name, given = BAD_CALLS[what]
    arguments = {"x": X, "weights": WEIGHTS} | given
    with pytest.raises(error, match=rf"\b{name}\b"):
        (jax.jit(lambda: fastrnn.jax.lstm(**arguments)) if jitted else partial(fastrnn.jax.lstm, **arguments))()


@pytest.mark.parametrize(
    "what", ["half precision", "shape of h0", "dtype of c0", "truths", "keys for lengths", "no key"]
)
def test_errors_of_traced_arguments(what):
    error, name, given = BAD_CALLS[what]
    with pytest.raises(error, match=rf"\b{name}\b"):
        jax.jit(fastrnn.jax.lstm)(**({"x": X, "weights": WEIGHTS} | jax.tree.map(jnp.asarray, given)))


def test_errors_of_other_cells():
    gru, rnn = fastrnn.GRU(3, 4, seed=0).parameters, fastrnn.RNN(3, 4, seed=0).parameters
    with pytest.raises(TypeError, match="state: expected the array h0"):
        fastrnn.jax.gru(X, gru, (STATE, STATE))
    with pytest.raises(TypeError, match="reset_after must be True or False"):
        fastrnn.jax.gru(X, gru, reset_after=1)
    with pytest.raises(ValueError, match="nonlinearity must be one of"):
        fastrnn.jax.rnn(X, rnn, nonlinearity="sin")


def test_arrays_in_a_wrapper():
    """What has `__jax_array__`, such as Flax' parameters, is the array that it wraps."""

    class Wrapper:
        def __init__(self, array):
            self.array = array

        def __jax_array__(self):
            return self.array

    weights = as_jax(fastrnn.GRU(4, 5, seed=0, dtype="float64").parameters)
    x, h0 = jnp.ones((6, 2, 4)), jnp.ones((1, 2, 5))
    wrapped = {name: Wrapper(array) for name, array in weights.items()}
    found = jax.jit(lambda: fastrnn.jax.gru(Wrapper(x), wrapped, Wrapper(h0)))()
    assert_same_bits(named(*found), named(*fastrnn.jax.gru(x, weights, h0)))
    with pytest.raises(TypeError, match=r"h0: expected an array of float32 or float64, got 'no array' \(str\)"):
        fastrnn.jax.gru(x, weights, Wrapper("no array"))


def test_arrays_of_another_platform_are_refused(monkeypatch):
    """As if arrays were somewhere else."""
    monkeypatch.setattr(sys.modules["fastrnn.jax._functions"], "_platforms", lambda array: {"abacus"})
    with pytest.raises(ValueError, match="weight_ih_l0: expected an array on platform cpu, got one on abacus"):
        fastrnn.jax.lstm(X, WEIGHTS)


def test_kernels_check_what_they_are_given():
    """`jax.ffi.ffi_call` can be called by anybody, and programs can be older than the kernels they run in."""
    layer = fastrnn.LSTM(3, 4, seed=0)
    spec = layer.spec
    attributes = fastrnn.jax._ops.Network.of(spec, "float32").attributes
    y, h = (5, 2, 4), (1, 2, 4)
    tape = (sum(-(-n * 5 * 2 * 4 // 64) * 64 for n in _core.tape_widths(spec)),)
    inputs = {"x": X, **layer.parameters}
    outputs = {"y": (y, "f4"), "h_n": (h, "f4"), "c_n": (h, "f4")}
    gradients = {"dh0": (h, "f4"), "dc0": (h, "f4")} | {f"d{n}": (a.shape, "f4") for n, a in layer.parameters.items()}
    saved = {"y": np.zeros(y, np.float32), "tape": np.zeros(tape, np.uint8)}

    def call(target, arrays, results, **changes):
        kernel = jax.ffi.ffi_call(target, [jax.ShapeDtypeStruct(*o) for o in results.values()])
        names = {"inputs": " ".join(arrays), "outputs": " ".join(results)}
        given = {n: v for n, v in (attributes | names | changes).items() if v is not None}
        return jax.block_until_ready(kernel(*arrays.values(), **given))

    def without(arrays, name):
        return {n: a for n, a in arrays.items() if n != name}

    forward, backward = partial(call, "fastrnn_forward"), partial(call, "fastrnn_backward")
    forward(inputs, outputs)
    backward(inputs | saved, gradients)

    def overflow():
        """Sizes of which four times as many are none, in 64 bits."""
        many = 2**62
        shapes = {"x": (1, 0, 3), "weight_ih_l0": (0, 3), "weight_hh_l0": (0, many)}
        results = dict.fromkeys(("y", "h_n", "c_n"), ((1, 0, many), "f4")) | {"tape": ((64,), "u1")}
        nothing = {name: partial(jnp.zeros, shape, jnp.float32) for name, shape in shapes.items()}
        jax.jit(lambda: forward({n: a() for n, a in nothing.items()}, results, bias=False, hidden_size=many))()

    bad = [
        partial(forward, inputs, outputs, cell="nothing"),
        partial(forward, inputs, outputs, cell=3),
        partial(forward, inputs, outputs, cell=None),
        partial(forward, inputs, outputs, hidden_size=5),
        partial(forward, inputs, outputs, hidden_size=-4),
        partial(forward, inputs, outputs, num_layers=2),
        partial(forward, inputs, outputs, num_layers=2**31),
        partial(forward, inputs, outputs, num_layers=2**31 - 1),
        partial(forward, inputs, outputs, activations="sigmoid 0 0 tanh 0 0 tanh 0"),
        partial(forward, inputs, outputs, clip=1.0),
        partial(forward, inputs, outputs, clip=-1.0),
        partial(forward, inputs, outputs, peephole=True),
        partial(forward, inputs, outputs, dtype="float64"),
        partial(forward, inputs, outputs, dropout=2.0),
        partial(forward, inputs, outputs, option_of_tomorrow=True),
        partial(forward, inputs, outputs, inputs="x"),
        partial(forward, inputs, outputs, inputs=" ".join(["x"] * 5)),
        partial(forward, inputs, outputs, outputs="y h_n c_n tape"),
        partial(forward, without(inputs, "x"), outputs),
        partial(forward, without(inputs, "bias_ih_l0"), outputs),
        partial(forward, inputs | {"x": X[0, 0]}, outputs),
        partial(forward, inputs | {"x": X.astype(np.float64)}, outputs),
        partial(forward, inputs | {"h0": STATE[:, :1]}, outputs),
        partial(forward, inputs | {"lengths": np.ones(3, np.int32)}, outputs),
        partial(forward, inputs | {"lengths": np.ones(2, np.float32)}, outputs),
        partial(forward, inputs | {"seed": np.ones(3, np.uint32)}, outputs),
        partial(forward, inputs, without(outputs, "y")),
        partial(forward, inputs, without(outputs, "c_n")),
        partial(forward, inputs, outputs | {"y": ((5, 2, 5), "f4")}),
        partial(forward, inputs, outputs | {"tape": ((64,), "u1")}),
        partial(backward, inputs, gradients),
        partial(backward, inputs | saved | {"tape": np.zeros(64, np.uint8)}, gradients),
        partial(backward, inputs | saved | {"dy": np.zeros((5, 2, 5), np.float32)}, gradients),
        partial(backward, inputs | saved, without(gradients, "dweight_hh_l0")),
        partial(backward, inputs | saved, gradients | {"dx": ((5, 2, 4), "f4")}),
    ]
    for mistake in [*bad, overflow]:
        with pytest.raises(jax.errors.JaxRuntimeError, match=r"INVALID_ARGUMENT.*fastrnn: "):
            mistake()
    forward(inputs, outputs)


# ------------------------------------------------------------------------------------------------------------- import


def test_import_tells_what_is_missing(monkeypatch):
    for name in [n for n in sys.modules if n.startswith("fastrnn.jax")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(fastrnn, "jax")
    with monkeypatch.context() as patch:
        patch.setattr(_core, "xla_handlers", dict)
        with pytest.raises(ImportError, match=r"no kernels for JAX.*FASTRNN_JAX=ON"):
            importlib.import_module("fastrnn.jax")
    with monkeypatch.context() as patch:
        major, minor = _core.xla_version()
        for version in ((major, minor + 99), (major + 1, 0)):
            patch.setattr(_core, "xla_version", lambda version=version: version)
            with pytest.raises(
                ImportError, match=rf"kernels for version {version[0]}.{version[1]} of XLA.*has \d+\.\d+\."
            ):
                importlib.import_module("fastrnn.jax")
    with monkeypatch.context() as patch:
        patch.setattr(jax, "__version__", "0.4.30")
        patch.setattr(jax, "__version_info__", (0, 4, 30))
        with pytest.raises(ImportError, match=r"needs JAX 0\.6\.2 or newer, got 0\.4\.30"):
            importlib.import_module("fastrnn.jax")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "jax", None)
        for handlers, how in (
            ({"": None}, r"needs JAX: pip install 'fastrnn\[jax\]'"),
            ({}, r"needs JAX and kernels for it.*FASTRNN_JAX=ON pip install '\.\[jax\]'"),
        ):
            patch.setattr(_core, "xla_handlers", lambda handlers=handlers: handlers)
            with pytest.raises(ModuleNotFoundError, match=how):
                importlib.import_module("fastrnn.jax")

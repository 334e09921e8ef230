"""The same results and gradients as Keras' layers, whatever the options and inputs."""

import contextlib
import threading

import numpy as np
import pytest
from keras import ops
from twins import (
    BACKEND,
    KINDS,
    arrays,
    assert_same,
    carried,
    every_kind,
    gradients,
    masks,
    normal,
    of_dtype,
    twins,
)

import fastrnn
import fastrnn.keras
from cases import covering
from fastrnn import weights

VARIANTS = {
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "GRU-before": ("GRU", {"reset_after": False}),
    "tanh": ("SimpleRNN", {}),
    "relu": ("SimpleRNN", {"activation": "relu"}),
    "sigmoid": ("SimpleRNN", {"activation": "sigmoid"}),
}
# Those that the kernels have; the slope of leaky_relu at 0 is theirs on JAX alone.
ACTIVATIONS = ["tanh", "sigmoid", "relu", "linear", "elu", "softplus", "softsign", "hard_sigmoid"]
if BACKEND == "jax":
    ACTIVATIONS.append("leaky_relu")


def cases():
    """Combinations in which each two options meet: of what cells are published with, and of the other activations."""
    options = {
        "initial": (False, True),
        "return_sequences": (False, True),
        "training": (False, True),
        "dtype": ("float32", "float64"),
        "go_backwards": (False, True),
    }
    published = options | {
        "variant": tuple(VARIANTS),
        "steps": (1, 6),
        "mask": (None, "right", "right-empty", "left", "holes", "full"),
        "use_bias": (True, False),
        "return_state": (True, False),
        "zero_output_for_mask": (False, True),
        "dropout": (0.0, 0.4),
        "stateful": (False, True),
        "merge_mode": (False, "concat", "sum", "mul", "ave", None),
    }
    others = options | {
        "variant": ("LSTM", "GRU", "tanh") if BACKEND == "jax" else ("LSTM", "GRU", "GRU-before", "tanh"),
        "mask": (None, "holes"),
        "activations": tuple(zip(ACTIVATIONS, [*ACTIVATIONS[1:], ACTIVATIONS[0]], strict=True))[1:],
        "merge_mode": (False, "concat"),
    }

    def valid(variant, dtype, go_backwards, merge_mode, stateful=False, return_state=False, **_):
        # The last one is an error in Keras' own Bidirectional, as are float64 and JAX in its own SimpleRNN.
        if BACKEND == "jax" and dtype == "float64" and VARIANTS[variant][0] == "SimpleRNN":
            return False
        return merge_mode is False or not (go_backwards or (stateful and return_state))

    for factors in (published, others):
        for case in covering(factors, valid):
            yield pytest.param(case, id="-".join(str(value) for value in case.values()))


@pytest.mark.parametrize("case", list(cases()))
def test_parity(case, calls):
    options = dict(case)
    kind, extra = VARIANTS[options.pop("variant")]
    steps, training, dtype = options.pop("steps", 4), options.pop("training"), options["dtype"]
    mask = masks(steps).get(options.pop("mask"))
    if functions := options.pop("activations", ()):
        extra = extra | {"activation": functions[0]}
        if kind != "SimpleRNN":
            extra |= {"recurrent_activation": functions[1]}
    x = normal(3, steps, 4, dtype=dtype)
    count = (1 + (kind == "LSTM")) * (1 if options["merge_mode"] is False else 2)
    states = [normal(3, 5, dtype=dtype, seed=k) for k in range(count)] if options.pop("initial") else []
    with of_dtype(dtype):
        stock, ours = twins(kind, x.shape, seed=7, **options, **extra)
        call = {"training": training} | ({} if mask is None else {"mask": ops.convert_to_tensor(mask)})
        expected = gradients(stock, x, states, **call)
        assert calls() == 0
        found = gradients(ours, x, states, **call)
        assert calls() >= (2 if options["merge_mode"] is False else 4)
        exact = dtype == "float64" and BACKEND == "tensorflow"  # elsewhere Keras multiplies its matrices in float32
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b, 1e-12 if exact else 1e-5)
        assert_same(arrays([v.value for v in carried(ours)]), arrays([v.value for v in carried(stock)]))


@pytest.mark.parametrize("activation", sorted({*ACTIVATIONS, "leaky_relu"}))
def test_slopes_at_zero(activation, calls):
    """Those of functions that have a kink there, too: with an input of zeros and no bias yet, everything is 0."""
    kind = "SimpleRNN" if BACKEND == "jax" else "LSTM"  # which takes longer to compile
    stock, ours = twins(kind, (2, 3, 4), activation=activation, return_sequences=True)
    for layer in (stock, ours):
        layer.cell.bias.assign(ops.zeros(layer.cell.bias.shape))
    expected = gradients(stock, np.zeros((2, 3, 4), np.float32))
    with contextlib.nullcontext() if activation in ACTIVATIONS else pytest.warns(UserWarning, match="leaky_relu"):
        found = gradients(ours, np.zeros((2, 3, 4), np.float32))
    assert (calls() > 0) == (activation in ACTIVATIONS)
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_float64_is_exact(kind):
    """Also where Keras' own loop multiplies matrices in float32, as on PyTorch and JAX."""
    with of_dtype("float64"):
        x, lengths = normal(3, 6, 4, dtype="float64"), np.array([6, 3, 1])
        options = {"return_sequences": True, "return_state": True, "zero_output_for_mask": True}
        _, ours = twins(kind, x.shape, dtype="float64", **options)
        reference = getattr(fastrnn.reference, kind.removeprefix("Simple"))(4, 5, batch_first=True, dtype="float64")
        reference.parameters.update(weights.from_keras(kind.removeprefix("Simple").lower(), ours.get_weights()))
        y, state = reference(x, lengths=lengths)
        found = arrays(ours(x, mask=ops.convert_to_tensor(np.arange(6) < lengths[:, None])))
        assert_same(found, [y, *(s[0] for s in (state if kind == "LSTM" else (state,)))], 1e-12)


@every_kind
@pytest.mark.parametrize("shape", [(1, 40, 3), (33, 3, 70), (2, 1, 1)])
def test_sizes(kind, shape):
    stock, ours = twins(kind, shape, units=37, return_sequences=True)
    for a, b in zip(gradients(ours, normal(*shape)), gradients(stock, normal(*shape)), strict=True):
        assert_same(a, b)


@every_kind
@pytest.mark.parametrize("masked", [False, True])
def test_no_rows(kind, masked, calls):
    x = np.zeros((0, 4, 3), np.float32)
    _, ours = twins(kind, x.shape, return_sequences=True, return_state=True)
    y, *states = arrays(ours(x, mask=ops.convert_to_tensor(np.ones((0, 4), bool)) if masked else None))
    assert y.shape == (0, 4, 5)
    assert all(state.shape == (0, 5) for state in states)
    assert calls() == (BACKEND != "jax")  # which makes no calls for results without elements


@every_kind
@pytest.mark.parametrize("zero_output_for_mask", [False, True])
def test_all_steps_masked(kind, zero_output_for_mask, calls):
    stock, ours = twins(kind, (3, 6, 4), zero_output_for_mask=zero_output_for_mask, return_state=True)
    call = {"mask": ops.zeros((3, 6), "bool"), "initial_state": [normal(3, 5)] * (1 + (kind == "LSTM"))}
    expected = arrays(stock(normal(3, 6, 4), **call))
    assert_same(arrays(ours(normal(3, 6, 4), **call)), expected)
    assert calls() == 1


@every_kind
@pytest.mark.parametrize("gates", ["sigmoid", "hard_sigmoid"])
def test_values_far_off(kind, gates, calls):
    """Infinite ones, those that saturate gates, denormal ones, and what is not a number: each in a row of its own."""
    x = normal(5, 6, 4)
    x[0, 2, 1], x[1, 3] = np.nan, np.inf
    x[2:4] *= np.array([1e30, 1e-40], np.float32)[:, None, None]
    x[4] *= 30
    options = {} if kind == "SimpleRNN" else {"recurrent_activation": gates}
    stock, ours = twins(kind, x.shape, return_sequences=True, return_state=True, **options)
    expected = arrays(stock(x))
    assert np.isnan(expected[0][0]).any()
    for a, b in zip(arrays(ours(x)), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    assert calls() == 1


@pytest.mark.filterwarnings("ignore")
def test_complex_numbers(calls):
    """Are for Keras to refuse, or to take the real part of, as it does on PyTorch."""
    outcomes = []
    for layer in twins("LSTM", (3, 5, 4)):
        try:
            outcomes.append(arrays(layer(normal(3, 5, 4) + 1j * normal(3, 5, 4, seed=2)))[0].tolist())
        except Exception as error:
            outcomes.append(type(error))
    assert outcomes[0] == outcomes[1]
    assert calls() == 0


@every_kind
def test_padding_is_not_read(kind):
    """NaN there is harmless, in gradients too, where Keras' own loop gives NaN."""
    x = normal(3, 6, 4)
    mask = masks(6)["right"]
    x[~mask] = np.nan
    _, ours = twins(kind, x.shape, return_sequences=True)
    results, (dx, *dweights) = gradients(ours, x, mask=ops.convert_to_tensor(mask))
    assert all(np.isfinite(a).all() for a in (*results, dx, *dweights))
    assert not dx[~mask].any()


@pytest.mark.parametrize("kind", KINDS)
def test_stateful(kind, calls):
    shape = (3, 4, 2)
    stock, ours = twins(kind, shape, stateful=True, return_sequences=True)
    for seed in range(3):
        assert_same([arrays(ours(normal(*shape, seed=seed)))[0]], [arrays(stock(normal(*shape, seed=seed)))[0]])
    assert calls() == 3
    assert_same(arrays([v.value for v in ours.states]), arrays([v.value for v in stock.states]))
    for layer in (stock, ours):
        layer.reset_state()
    assert_same(arrays(ours(normal(*shape))), arrays(stock(normal(*shape))))
    with pytest.raises(ValueError, match="batch size"):
        ours(normal(5, 4, 2))


@every_kind
def test_integers_as_input(kind, calls):
    x = np.random.default_rng(0).integers(-2, 3, (2, 5, 3))
    stock, ours = twins(kind, x.shape)
    expected = arrays(stock(x))
    assert_same(arrays(ours(x)), expected)
    assert calls() == 1


@every_kind
def test_wrong_shapes(kind):
    _, ours = twins(kind, (2, 5, 3))
    states = [np.zeros((2, 4), np.float32)] * (1 + (kind == "LSTM"))
    with pytest.raises((ValueError, RuntimeError)):
        ours(np.zeros((2, 5, 4), np.float32))
    with pytest.raises(Exception, match=r"\(2, 4\)|\(1, 2, 4\)"):
        ours(np.zeros((2, 5, 3), np.float32), initial_state=states)
    for shape in ((3, 5), (2, 1), (1, 4), (2, 4), (2, 7)):
        with pytest.raises(ValueError, match=r"mask must be of shape \(2, 5\)"):
            ours(np.zeros((2, 5, 3), np.float32), mask=ops.ones(shape, "bool"))
    with pytest.raises(ValueError, match="ndim"):
        ours(np.zeros((2, 5), np.float32))


@every_kind
@pytest.mark.parametrize("zero_output_for_mask", [False, True])
def test_one_mask_for_all_rows(kind, zero_output_for_mask, calls):
    options = {"return_sequences": True, "return_state": True, "zero_output_for_mask": zero_output_for_mask}
    stock, ours = twins(kind, (3, 6, 4), **options)
    mask = ops.convert_to_tensor(np.array([[False, True, True, False, True, False]]))
    expected = arrays(stock(normal(3, 6, 4), mask=mask))
    assert_same(arrays(ours(normal(3, 6, 4), mask=mask)), expected)
    assert calls() == 1


@every_kind
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:fastrnn.keras:UserWarning")
def test_any_number_of_states(kind, count, calls):
    """Too many are ignored, or refused, where Keras' own loop does so."""
    outcomes = []
    for layer in twins(kind, (3, 6, 4)):
        try:
            outcomes.append(arrays(layer(normal(3, 6, 4), initial_state=[normal(3, 5, seed=k) for k in range(count)])))
        except Exception as error:
            outcomes.append(type(error))
    stock, ours = outcomes
    if isinstance(stock, type):
        assert ours is stock
    else:
        assert_same(ours, stock)
    assert calls() == (kind == "GRU" or count == 1 + (kind == "LSTM"))


@every_kind
@pytest.mark.parametrize("shape", [(1, 5), (5,)])
def test_one_state_for_all_rows(kind, shape):
    """Which Keras' own loop does not take in every cell and backend."""
    stock, ours = twins(kind, (3, 6, 4))
    states = [normal(*shape)] * (1 + (kind == "LSTM"))
    expected, (dx, *others) = gradients(stock, normal(3, 6, 4), [np.tile(state, (3, 1)) for state in states])
    found, slopes = gradients(ours, normal(3, 6, 4), states)
    assert_same(found, expected)
    summed = [d.sum(0).reshape(shape) for d in others[: len(states)]]
    assert_same(slopes, [dx, *summed, *others[len(states) :]])


@every_kind
def test_many_threads(kind):
    """Calls at once do not disturb one another."""
    x = [normal(4, 30, 6, seed=seed) for seed in range(6)]
    _, ours = twins(kind, x[0].shape, units=16)
    expected = [arrays(ours(a))[0] for a in x]
    wrong = []

    def work(k):
        for _ in range(10):
            if not np.array_equal(arrays(ours(x[k]))[0], expected[k]):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(x))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

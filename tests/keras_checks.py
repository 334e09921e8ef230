"""The layers of `fastrnn.keras` beside Keras' own, with the same weights. `test_keras.py` runs this file in a process
for each of Keras' backends, KERAS_BACKEND."""

import contextlib
import copy
import functools
import itertools
import os
import subprocess
import sys
import threading
import warnings

if os.environ.get("KERAS_BACKEND") != "tensorflow":
    sys.modules["tensorflow"] = None  # Keras, on another backend, would import it to seed it, for seconds

import keras
import numpy as np
import pytest
from keras import layers, ops

import fastrnn
import fastrnn.keras
from cases import covering
from fastrnn import weights
from fastrnn.keras import _served
from fastrnn.keras._layers import STOCK

BACKEND = keras.backend.backend()
KINDS = ("LSTM", "GRU", "SimpleRNN")
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

if BACKEND == "torch":
    import torch
elif BACKEND == "tensorflow":
    import tensorflow as tf
else:
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)  # what a call runs is counted when it ends

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' variables
# As which Keras' own loops run in `fit`: XLA takes ten times as long to compile them from TensorFlow.
EAGERLY = BACKEND == "tensorflow"
# Where each test takes long to compile, those of other things than parity do with fewer kinds.
every_kind = pytest.mark.parametrize(
    "kind", {"torch": KINDS, "tensorflow": ("LSTM", "SimpleRNN"), "jax": ("LSTM",)}[BACKEND]
)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(_served, "_warned", set())
    keras.utils.set_random_seed(0)


@pytest.fixture
def calls():
    """How many calls of the kernels there were since this was asked last."""
    before = fastrnn.native_calls()

    def since():
        nonlocal before
        before, last = fastrnn.native_calls(), before
        return before - last

    return since


def make(home, kind, units, merge_mode=False, **options):
    """A layer of Keras' or of ours, with a merge_mode both ways."""
    layer = getattr(home, kind)(units, **options)
    if home is layers and BACKEND == "torch" and layer.stateful and kind != "SimpleRNN":
        layer.use_cudnn = False  # Keras' faster loop fails there
    return layer if merge_mode is False else layers.Bidirectional(layer, merge_mode=merge_mode, dtype=options["dtype"])


def twins(kind, shape, units=5, **options):
    """Keras' layer and ours with its weights and, of a stateful one, states, for inputs of a shape (B, T, I)."""
    options = {"dtype": "float32"} | options
    pair = make(layers, kind, units, **options), make(fastrnn.keras, kind, units, **options)
    random = np.random.default_rng(3)
    for layer in pair:
        layer.build(shape)
    bound = (0.4 if "recurrent_activation" in options else 1.5) / units**0.5  # of other gates h grows beyond bounds
    pair[0].set_weights([random.uniform(-bound, bound, w.shape) for w in pair[0].get_weights()])
    for variable in carried(pair[0]):
        variable.assign(random.uniform(-1, 1, variable.shape))
    variables = [[*layer.variables, *carried(layer)] for layer in pair]  # also what the dropout masks are drawn with
    for theirs, own in zip(*variables, strict=True):
        own.assign(theirs.value)
    return pair


def carried(layer):
    """The variables that have a stateful layer's states."""
    parts = [layer.forward_layer, layer.backward_layer] if isinstance(layer, layers.Bidirectional) else [layer]
    return [variable for part in parts for variable in part.states or ()]


def of_dtype(dtype):
    """In which tensors can have that type: float64 is a mode of JAX."""
    return jax.enable_x64(True) if (BACKEND, dtype) == ("jax", "float64") else contextlib.nullcontext()


def normal(*shape, dtype="float32", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def arrays(result):
    return [ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(result)]


def weighted(results):
    """A loss of all results that no two elements have the same part in."""
    random = np.random.default_rng(4)
    return sum(ops.sum(r * ops.cast(random.standard_normal(r.shape), r.dtype)) for r in keras.tree.flatten(results))


def gradients(layer, x, states=(), **call):
    """A layer's results, and the gradients of a loss of them: with respect to x, the states and the weights."""
    keras.utils.set_random_seed(0)
    x, *states = (ops.convert_to_tensor(a) for a in (x, *states))

    def results_of(function, x, *states):
        return function(x, **({"initial_state": list(states)} if states else {}), **call)

    if BACKEND == "torch":
        inputs = [t.detach().clone().requires_grad_() for t in (x, *states)]
        results = results_of(layer, *inputs)
        sources = [*inputs, *(variable.value for variable in layer.trainable_weights)]
        found = torch.autograd.grad(weighted(results), sources)
    elif BACKEND == "tensorflow":
        sources = [x, *states, *(variable.value for variable in layer.trainable_weights)]
        with tf.GradientTape() as tape:
            tape.watch([x, *states])
            results = results_of(layer, x, *states)
            loss = weighted(results)
        found = [tf.convert_to_tensor(g) for g in tape.gradient(loss, sources)]
    else:
        fixed = [variable.value for variable in layer.non_trainable_variables]

        def loss_of(weights, *inputs):
            def function(x, **call):
                return layer.stateless_call(weights, fixed, x, **call)[0]

            results = results_of(function, *inputs)
            return weighted(results), results

        weights = [variable.value for variable in layer.trainable_weights]
        every = tuple(range(2 + len(states)))
        program = jax.jit(jax.value_and_grad(loss_of, argnums=every, has_aux=True))
        (_, results), found = program(weights, x, *states)
        found = [*found[1:], *found[0]]
    return arrays(results), arrays(found)


def assert_same(ours, stock, tolerance=1e-5):
    """Arrays in two lists, but for rounding: the bound is relative to the largest element."""
    assert len(ours) == len(stock)
    for index, (a, b) in enumerate(zip(ours, stock, strict=True)):
        assert a.shape == b.shape, index
        assert a.dtype == b.dtype, index
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max(initial=0)), err_msg=str(index))


def masks(steps):
    """Of three rows, by name."""
    step, lengths = np.arange(steps), np.array([[steps], [(steps + 1) // 2], [1]])
    return {
        "right": step < lengths,
        "right-empty": step < lengths - 1,
        "left": step >= steps - lengths,
        "holes": np.random.default_rng(5).random((3, steps)) < 0.6,
        "full": np.ones((3, steps), bool),
    }


# -------------------------------------------------------------------------------------------------------------- parity


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
    for shape in ((1, 5), (3, 5), (2, 4), (2, 7)):
        with pytest.raises(ValueError, match=r"mask must be of shape \(2, 5\)"):
            ours(np.zeros((2, 5, 3), np.float32), mask=ops.ones(shape, "bool"))
    with pytest.raises(ValueError, match="initial_state must have"):
        ours(np.zeros((2, 5, 3), np.float32), initial_state=[np.zeros((2, 5), np.float32)] * 3)
    with pytest.raises(ValueError, match="ndim"):
        ours(np.zeros((2, 5), np.float32))


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


# ----------------------------------------------------------------------------------------------------------- fallbacks


class OwnCell(layers.LSTMCell):
    """Somebody's own."""


class OwnLayer(fastrnn.keras.LSTM):
    def __init__(self, units, **options):
        super().__init__(units, **options)
        self.cell = OwnCell(units, dtype=options.get("dtype"))


FALLBACKS = [
    ("LSTM", {"activation": "selu"}, {}, "activation selu with recurrent_activation sigmoid"),
    ("GRU", {"recurrent_activation": "relu6"}, {}, "with recurrent_activation relu6"),
    ("SimpleRNN", {"activation": functools.partial(keras.activations.relu, max_value=1)}, {}, "activation partial"),
    ("SimpleRNN", {"activation": layers.LeakyReLU()}, {}, "activation LeakyReLU"),
    ("LSTM", {"unroll": True}, {}, "unroll=True"),
    ("GRU", {"dtype": "mixed_bfloat16"}, {}, "computing in bfloat16"),
    ("LSTM", {"dtype": "mixed_float16"}, {}, "computing in float16"),
    ("LSTM", {"recurrent_dropout": 0.3, "seed": 1}, {"training": True}, "recurrent_dropout"),
    ("GRU", {"recurrent_dropout": 0.3, "seed": 1}, {"training": True}, "recurrent_dropout"),
    ("SimpleRNN", {"recurrent_dropout": 0.3, "seed": 1}, {"training": True}, "recurrent_dropout"),
]


@pytest.mark.parametrize(("kind", "options", "call", "reason"), FALLBACKS[:: 3 if BACKEND == "jax" else 1])
def test_fallback(kind, options, call, reason, calls):
    """Keras' results, no call of the kernels, and one warning."""
    x = normal(3, 5, 4)
    stock, ours = twins(kind, x.shape, **options)
    expected = arrays(stock(x, **call))
    name = f"fastrnn.keras, {kind}: Keras' own loop ran, not fastrnn's kernels, for "
    with pytest.warns(UserWarning, match=name + f".*{reason}"):
        found = arrays(ours(x, **call))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours(x, **call)
    assert calls() == 0


def test_a_cell_of_somebodys_own(calls):
    layer = OwnLayer(4)
    with pytest.warns(UserWarning, match="a cell of class OwnCell"):
        layer(normal(2, 3, 4))
    assert calls() == 0


def test_no_features(calls):
    stock, ours = twins("GRU", (3, 5, 0))
    expected = arrays(stock(normal(3, 5, 0)))
    with pytest.warns(UserWarning, match="an input without features"):
        assert_same(arrays(ours(normal(3, 5, 0))), expected)
    assert calls() == 0


@every_kind
def test_recurrent_dropout_is_of_training_alone(kind, calls):
    stock, ours = twins(kind, (3, 5, 4), recurrent_dropout=0.3)
    assert_same(arrays(ours(normal(3, 5, 4))), arrays(stock(normal(3, 5, 4))))
    assert calls() == 1


# -------------------------------------------------------------------------------------------------------------- models


def texts():
    """Numbers of words, 0 being padding, and a class for each text."""
    random = np.random.default_rng(0)
    words = random.integers(1, 20, (12, 5))
    words[np.arange(5) >= random.integers(1, 6, (12, 1))] = 0
    return words, (words.sum(1) % 2).astype("float32")


def classifier(home, kind):
    keras.utils.set_random_seed(1)
    make = getattr(home, kind)
    return keras.Sequential(
        [
            layers.Embedding(20, 6, mask_zero=True),
            layers.Bidirectional(make(5, return_sequences=True, seed=2)),
            make(7, dropout=0.2, seed=3),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def fitted(home, kind, **options):
    model = classifier(home, kind)
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], **options)
    words, labels = texts()
    history = model.fit(words, labels, batch_size=6, epochs=2, verbose=0, shuffle=False)
    return model, history.history["loss"]


@functools.cache
def stock_fitted(kind):
    """Keras' own."""
    before = fastrnn.native_calls()
    model, losses = fitted(layers, kind, run_eagerly=EAGERLY)
    assert fastrnn.native_calls() == before
    return model, losses


@pytest.mark.parametrize("kind", KINDS if BACKEND != "jax" else ("LSTM",))
def test_training(kind, calls, tmp_path):
    """`fit`, `evaluate`, `predict`, `save`, `load_model` and copies, as `compile` has it by default."""
    words, labels = texts()
    theirs, expected = stock_fitted(kind)
    calls()
    ours, losses = fitted(fastrnn.keras, kind)
    assert calls() >= 2 * 2 * 3 * 2  # epochs, batches, layers, forward and backward
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(ours.evaluate(words, labels, verbose=0), theirs.evaluate(words, labels, verbose=0), 1e-3)
    expected = theirs.predict(words, verbose=0)
    calls()
    found = ours.predict(words, verbose=0)
    assert calls() == 3
    np.testing.assert_allclose(found, expected, atol=1e-4)

    ours.save(tmp_path / "model.keras")
    copies = {
        "loaded": keras.models.load_model(tmp_path / "model.keras"),
        "cloned": keras.models.clone_model(ours),
        "copied": copy.deepcopy(ours),
    }
    copies["cloned"].set_weights(ours.get_weights())
    for name, model in copies.items():
        assert type(model.layers[2]) is getattr(fastrnn.keras, kind), name
        np.testing.assert_array_equal(model.predict_on_batch(words), ours.predict_on_batch(words), err_msg=name)


def test_config():
    for kind in KINDS:
        layer = getattr(fastrnn.keras, kind)(7, dropout=0.1, go_backwards=True, kernel_regularizer="l2", name="it")
        again = type(layer).from_config(layer.get_config())
        assert again.get_config() == layer.get_config()
        config = keras.saving.serialize_keras_object(layer)
        assert config["module"] == "fastrnn.keras"
        assert config["registered_name"] == f"fastrnn>{kind}"
        assert isinstance(layer, getattr(layers, kind))


def test_functional_model_with_lengths_of_its_own(calls):
    """Encoder and decoder: states go from one layer to the other, and T is not known beforehand."""
    source, target = keras.Input((None, 3)), keras.Input((None, 3))
    _, *states = fastrnn.keras.LSTM(5, return_state=True)(layers.Masking()(source))
    y = fastrnn.keras.LSTM(5, return_sequences=True)(target, initial_state=states)
    model = keras.Model([source, target], layers.Dense(2)(y))
    model.compile("sgd", "mse")
    for steps in (2, 5):
        model.fit([normal(4, steps, 3), normal(4, steps + 1, 3)], normal(4, steps + 1, 2), verbose=0)
    assert model.predict([normal(4, 3, 3), normal(4, 7, 3)], verbose=0).shape == (4, 7, 2)
    assert calls() == 10


@every_kind
def test_training_with_states_across_batches(kind, calls):
    """Truncated backpropagation through time. (Keras' faster loop for PyTorch fails there, its plain one does not.)"""
    results = []
    for home, options in ((layers, {} if kind == "SimpleRNN" else {"use_cudnn": False}), (fastrnn.keras, {})):
        keras.utils.set_random_seed(1)
        recurrent = getattr(home, kind)(5, stateful=True, return_sequences=True, **options)
        model = keras.Sequential([keras.Input(batch_shape=(2, 4, 3)), recurrent, layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.1, clipnorm=1.0), "mse", run_eagerly=EAGERLY and home is layers)
        losses = [model.train_on_batch(normal(2, 4, 3, seed=k), normal(2, 4, 1, seed=k)) for k in range(4)]
        results.append([losses, model.predict(normal(2, 4, 3), batch_size=2, verbose=0)])
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-5)
    assert calls() == 9


@pytest.mark.parametrize("kind", KINDS)
def test_relu_in_a_model(kind, calls, tmp_path):
    """As common tutorials have it, in an LSTM, and as `compile` has it by default; and read back from a file."""
    x, results = normal(8, 4, 1), []
    for home in (layers, fastrnn.keras):
        keras.utils.set_random_seed(1)
        recurrent = layers.Bidirectional(getattr(home, kind)(9, activation="relu"))
        model = keras.Sequential([keras.Input((4, 1)), recurrent, layers.Dense(1)])
        model.compile("adam", "mse", run_eagerly=EAGERLY and home is layers)
        losses = model.fit(x, x[:, -1], batch_size=4, shuffle=False, verbose=0).history["loss"]
        results.append([losses, model.predict(x, verbose=0)])
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-4)
    np.testing.assert_allclose(results[1][1], results[0][1], atol=1e-4)
    assert calls() == 2 * 2 * 2 + 2  # batches, directions, forward and backward; predict
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), results[1][1])
    assert calls() == 2


class Inside(keras.Model):
    """A model whose layers Keras cannot see until it is called."""

    def __init__(self, home):
        super().__init__()
        self.recurrent = home.LSTM(4, return_sequences=True)
        self.head = layers.Dense(1)

    def call(self, x, mask=None):
        return self.head(self.recurrent(x, mask=mask)[:, -1])


def test_subclassed_model(calls):
    model = Inside(fastrnn.keras)
    model.compile("sgd", "mse")
    model.fit(normal(8, 5, 3), normal(8, 1), batch_size=4, verbose=0)
    assert calls() >= 4
    outer = keras.Input((5, 3))
    keras.Model(outer, model(outer))


# -------------------------------------------------------------------------------------------------------------- switch


@pytest.fixture
def switched_off():
    yield
    fastrnn.keras.disable()
    assert all(kind.inner_loop is loop for kind, loop in STOCK.items())
    assert not {"inner_loop", "supports_jit"} & vars(layers.SimpleRNN).keys()


@every_kind
@pytest.mark.usefixtures("switched_off")
def test_enable(kind, calls):
    x, mask = normal(3, 6, 4), ops.convert_to_tensor(masks(6)["right"])
    layer, _ = twins(kind, x.shape, return_sequences=True)
    expected = arrays(layer(x, mask=mask))
    assert calls() == 0
    with fastrnn.keras.enable():
        assert_same(arrays(layer(x, mask=mask)), expected)
        assert calls() == 1
        with fastrnn.keras.disable():
            layer(x)
            assert calls() == 0
            with fastrnn.keras.enable():
                layer(x)
                assert calls() == 1
        layer(x)
        assert calls() == 1
    layer(x)
    assert calls() == 0
    fastrnn.keras.enable()
    fastrnn.keras.enable()
    layer(x)
    assert calls() == 1
    fastrnn.keras.disable()
    layer(x)
    assert calls() == 0


@every_kind
@pytest.mark.usefixtures("switched_off")
def test_a_program_that_cannot_be_edited(kind, calls, tmp_path):
    _, expected = stock_fitted(kind)
    calls()
    with fastrnn.keras.enable():
        model, losses = fitted(layers, kind)
        assert calls() >= 2 * 2 * 3 * 2
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    model.save(tmp_path / "model.keras")
    assert type(keras.models.load_model(tmp_path / "model.keras").layers[2]) is getattr(layers, kind)


@pytest.mark.usefixtures("switched_off")
def test_enabled_layers_fall_back(calls):
    layer, _ = twins("LSTM", (3, 5, 4), activation="selu")
    expected = arrays(layer(normal(3, 5, 4)))
    with fastrnn.keras.enable(), pytest.warns(UserWarning, match="activation selu"):
        np.testing.assert_array_equal(arrays(layer(normal(3, 5, 4)))[0], expected[0])
    assert calls() == 0


# ------------------------------------------------------------------------------------------------ one backend's matters


if BACKEND == "torch":
    every_network = pytest.mark.parametrize(
        ("kind", "options"),
        [*((kind, {}) for kind in KINDS), ("LSTM", {"activation": "relu"}), ("GRU", {"activation": "softsign"})],
    )

    def test_files_can_be_read_as_keras_own(tmp_path):
        """By a program without fastrnn; here, on a backend that needs no other package. All backends write the same."""
        words, _ = texts()
        model = classifier(fastrnn.keras, "GRU")
        np.save(tmp_path / "words.npy", words)
        np.save(tmp_path / "expected.npy", model.predict_on_batch(words))
        model.save(tmp_path / "model.keras")
        program = """
import keras, numpy as np
model = keras.models.load_model("model.keras", custom_objects={"fastrnn>GRU": keras.layers.GRU})
np.testing.assert_allclose(model(np.load("words.npy")), np.load("expected.npy"), atol=1e-6)
assert type(model.layers[2]) is keras.layers.GRU
"""
        environment = os.environ | {"KERAS_BACKEND": "numpy"}
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, timeout=120, check=True)

    @every_network
    def test_compiled(kind, options, calls):
        """In one graph, with a mask too."""
        stock, ours = twins(kind, (3, 6, 4), return_sequences=True, return_state=True, **options)
        compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
        for name in (None, "right", "holes"):
            mask = None if name is None else torch.from_numpy(masks(6)[name])
            x = torch.from_numpy(normal(3, 6, 4)).requires_grad_()
            expected = stock(x, mask=mask)
            calls()
            found = compiled(x, mask=mask)
            assert_same(arrays([t.detach() for t in found]), arrays([t.detach() for t in expected]))
            assert_same(
                arrays(torch.autograd.grad(weighted(found), [x])), arrays(torch.autograd.grad(weighted(expected), [x]))
            )
            assert calls() == 2
        torch._dynamo.reset()

    @every_network
    def test_mapped(kind, options):
        _, ours = twins(kind, (3, 6, 4), **options)
        x = torch.from_numpy(normal(5, 3, 6, 4))
        mask = torch.from_numpy(masks(6)["holes"])
        found = torch.func.vmap(lambda each: ours(each, mask=mask))(x)
        assert_same(arrays(list(found)), [arrays(ours(each, mask=mask))[0] for each in x])

    @every_network
    def test_second_derivatives(kind, options):
        stock, ours = twins(kind, (2, 4, 3), **options)
        results = []
        for layer in (stock, ours):
            x = torch.from_numpy(normal(2, 4, 3)).requires_grad_()
            (first,) = torch.autograd.grad(weighted(layer(x)), x, create_graph=True)
            results.append(arrays(torch.autograd.grad(first.square().sum(), [x])))
        assert_same(results[1], results[0])


if BACKEND == "tensorflow":

    @every_kind
    def test_function_of_any_shape(kind, calls):
        """One trace, with T and B not known in it."""
        stock, ours = twins(kind, (3, 6, 4), return_sequences=True, go_backwards=True)
        traces = []

        def both(layer):
            @tf.function(
                input_signature=[tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None), tf.bool)],
                reduce_retracing=True,
            )
            def step(x, mask):
                traces.append(layer)
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = layer(x, mask=mask)
                    loss = tf.reduce_sum(y**2)
                assert y.shape.as_list() == [None, None, 5]
                return [y, *tape.gradient(loss, [x, *(v.value for v in layer.trainable_weights)])]

            return step

        functions = both(stock), both(ours)
        for steps, name in itertools.product((6, 2), ("right", "holes")):
            expected, found = (arrays(function(normal(3, steps, 4), masks(steps)[name])) for function in functions)
            assert_same(found, expected)
        assert len(traces) == 2
        assert calls() >= 8
        for shape in ((2, 2), (3, 4)):
            with pytest.raises(tf.errors.OpError):
                functions[1](normal(3, 2, 4), np.ones(shape, bool))

    @every_kind
    @pytest.mark.usefixtures("switched_off")
    def test_xla(kind, calls):
        """It cannot call the kernels: `compile` leaves it out, and where it is asked for, Keras' own loop runs."""
        stock, ours = twins(kind, (3, 6, 4))
        assert stock.supports_jit
        assert not ours.supports_jit
        with fastrnn.keras.enable():
            assert not stock.supports_jit
        assert getattr(fastrnn.keras, kind)(3, activation="selu").supports_jit
        compiled = tf.function(lambda x: ours(x), jit_compile=True)
        with pytest.warns(UserWarning, match="a function that XLA compiles"):
            found = compiled(normal(3, 6, 4))
        assert calls() == 0
        assert_same(arrays(found), arrays(stock(normal(3, 6, 4))))
        model = keras.Sequential([ours])
        with pytest.warns(UserWarning, match="doesn't support `jit_compile=True`"):
            model.compile("sgd", "mse", jit_compile=True)
        model.fit(normal(3, 6, 4), normal(3, 5), verbose=0)
        assert calls() == 2

    @every_kind
    @pytest.mark.parametrize("graph", [False, True])
    def test_gradients_outside_of_training(kind, graph):
        """What backward needs was not kept there, and is computed again."""
        stock, ours = twins(kind, (3, 6, 4), return_sequences=True)
        if not graph:
            for a, b in zip(gradients(ours, normal(3, 6, 4)), gradients(stock, normal(3, 6, 4)), strict=True):
                assert_same(a, b)
            return

        @tf.function
        def step(layer, x, training):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = weighted(layer(x, training=training))
            return tape.gradient(loss, x)

        x = tf.constant(normal(3, 6, 4))
        found = [arrays(step(layer, x, training)) for layer in (ours, stock) for training in (True, False)]
        for other in found[1:]:
            assert_same(other, found[0])

    def test_second_derivatives_are_refused(calls):
        _, ours = twins("LSTM", (2, 4, 3))
        x = tf.constant(normal(2, 4, 3))
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(ours(x))
            square = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        with pytest.raises(NotImplementedError, match="no second derivatives"):
            outer.gradient(square, x)


if BACKEND == "jax":

    @every_kind
    def test_transformed(kind, calls):
        """`jit`, `vmap` and `grad` in one."""
        stock, ours = twins(kind, (3, 6, 4), return_sequences=True)
        mask = masks(6)["holes"]
        x = normal(2, 3, 6, 4)

        def program(layer):
            weights = [variable.value for variable in layer.trainable_weights]
            fixed = [variable.value for variable in layer.non_trainable_variables]

            def loss(weights, x):
                return (layer.stateless_call(weights, fixed, x, mask=mask)[0] ** 2).sum()

            return jax.jit(jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, 0))), weights

        expected, found = (arrays(function(weights, x)) for function, weights in map(program, (stock, ours)))
        assert_same(found, expected)
        assert calls() == 4

    def test_large_arrays_under_jit():
        """Which XLA may hand over while they are still being written: nothing waits for ever."""
        _, ours = twins("LSTM", (64, 100, 64), units=64)
        x = normal(64, 100, 64)
        weights = [variable.value for variable in ours.trainable_weights]
        fixed = [variable.value for variable in ours.non_trainable_variables]
        step = jax.jit(jax.grad(lambda w, x: (ours.stateless_call(w, fixed, x)[0] ** 2).sum()))
        for _ in range(5):
            found = step(weights, x)
        assert all(np.isfinite(a).all() for a in arrays(found))

    def test_second_derivatives_are_refused():
        _, ours = twins("LSTM", (2, 4, 3))
        with pytest.raises(ValueError, match=r"`fastrnn_\w+` cannot be differentiated"):
            jax.hessian(lambda x: ours(x).sum())(normal(2, 4, 3))

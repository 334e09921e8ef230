"""Other libraries' layouts: their own equations, written out here as their documentation has them, against ours."""

import math
import re

import numpy as np
import pytest

from fastrnn import reference, weights

CASES = {
    "rnn": (reference.RNN, {}),
    "lstm": (reference.LSTM, {}),
    "gru": (reference.GRU, {"reset_after": True}),
    "gru_reset_before": (reference.GRU, {"reset_after": False}),
}
every_case = pytest.mark.parametrize("case", CASES)
STEPS, BATCH, INPUTS, UNITS = 5, 2, 3, 4


def make(case, seed=0, **options):
    cls, own = CASES[case]
    return cls(INPUTS, UNITS, **own, dtype="float64", seed=seed, **options)


def sequences():
    return np.random.default_rng(9).normal(size=(STEPS, BATCH, INPUTS))


def logistic(a):
    return 1 / (1 + np.exp(-a))


def close(a, b):
    """To float64's rounding in a few steps: tighter than the table in conftest.py, which is the kernels'."""
    np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)


def same(a, b):
    """Equal dicts or lists of arrays, with arrays of their own in one piece."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        a, b = a.values(), [b[name] for name in a]
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def both(run, x, *directions):
    """A bidirectional layer out of a function for one direction."""
    return np.concatenate([run(x, *directions[0]), run(x[::-1], *directions[1])[::-1]], axis=2)


# -------------------------------------------------------------------------------------------------------------- Keras


def keras(case, x, kernel, recurrent_kernel, bias=None):
    """Keras 3's cells: https://keras.io/api/layers/recurrent_layers (x, T B I)."""
    h = c = np.zeros((x.shape[1], UNITS))
    outputs = []
    for inputs in x:
        if case == "rnn":
            h = np.tanh(inputs @ kernel + h @ recurrent_kernel + (0 if bias is None else bias))
        elif case == "lstm":
            z = inputs @ kernel + h @ recurrent_kernel + (0 if bias is None else bias)
            z_i, z_f, z_c, z_o = np.split(z, 4, axis=1)
            c = logistic(z_f) * c + logistic(z_i) * np.tanh(z_c)
            h = logistic(z_o) * np.tanh(c)
        else:
            input_bias, recurrent_bias = (0, 0) if bias is None else bias if bias.ndim == 2 else (bias, 0)
            x_z, x_r, x_h = np.split(inputs @ kernel + input_bias, 3, axis=1)
            r_z, r_r, r_h = np.split(h @ recurrent_kernel + recurrent_bias, 3, axis=1)
            z, r = logistic(x_z + r_z), logistic(x_r + r_r)
            if case == "gru_reset_before":
                r_h, r = (r * h) @ recurrent_kernel[:, 2 * UNITS :], 1
            hh = np.tanh(x_h + r * r_h)
            h = z * h + (1 - z) * hh
        outputs.append(h)
    return np.stack(outputs)


def kind(case):
    return case.split("_")[0]


def to_keras(case, parameters, layer=0):
    return weights.to_keras(kind(case), parameters, layer, reset_after=case != "gru_reset_before")


def from_keras(case, arrays, layer=0):
    return weights.from_keras(kind(case), arrays, layer, reset_after=case != "gru_reset_before")


@every_case
@pytest.mark.parametrize("bias", [True, False])
def test_to_keras(case, bias):
    layer, x = make(case, bias=bias), sequences()
    arrays = to_keras(case, layer.parameters)
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[kind(case)]
    shapes = [(INPUTS, gates * UNITS), (UNITS, gates * UNITS)]
    if bias:
        shapes.append((2, 3 * UNITS) if case == "gru" else (gates * UNITS,))
    assert [a.shape for a in arrays] == shapes
    close(keras(case, x, *arrays), layer(x)[0])


@every_case
@pytest.mark.parametrize("bias", [True, False])
def test_from_keras(case, bias):
    random, x = np.random.default_rng(1), sequences()
    arrays = [random.normal(size=a.shape) for a in to_keras(case, make(case, bias=bias).parameters)]
    layer = make(case, bias=bias)
    parameters = from_keras(case, arrays)
    assert parameters.keys() == layer.parameters.keys()
    layer.parameters.update(parameters)
    close(layer(x)[0], keras(case, x, *arrays))
    same(to_keras(case, parameters), arrays)


@every_case
def test_keras_bidirectional_stack(case):
    layer, x = make(case, num_layers=2, bidirectional=True), sequences()
    y = x
    collected = {}
    for k in range(2):
        arrays = to_keras(case, layer.parameters, k)
        assert len(arrays) == 6
        y = both(lambda x, *own: keras(case, x, *own), y, arrays[:3], arrays[3:])
        collected |= from_keras(case, arrays, k)
    close(y, layer(x)[0])
    assert collected.keys() == layer.parameters.keys()
    layer.parameters.update(collected)
    close(y, layer(x)[0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_variant_of_a_keras_gru_is_checked(bidirectional):
    """Its weights alone would fit the other one too."""
    parameters = make("gru", bidirectional=bidirectional).parameters
    for reset_after, shape in [(True, "(2, 12)"), (False, "(12,)")]:
        arrays = weights.to_keras("gru", parameters, reset_after=reset_after)
        message = f"bias of shape {shape} is that of a GRU with reset_after={reset_after}: give"
        with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
            weights.from_keras("gru", arrays, reset_after=not reset_after)
        without = [array for array in arrays if array.shape[-1] == 12 and array.shape[0] in (3, 4)]
        same(*(list(weights.from_keras("gru", without, reset_after=r).values()) for r in (True, False)))


def test_keras_round_trip_is_exact_where_keras_has_both_biases():
    parameters = make("gru", bidirectional=True).parameters
    same(weights.from_keras("gru", weights.to_keras("gru", parameters)), parameters)


# --------------------------------------------------------------------------------------------------------------- ONNX


def onnx(case, x, W, R, B):
    """One direction of the operators RNN, LSTM and GRU: https://onnx.ai/onnx/operators (x, T B I)."""
    Wb, Rb = np.split(B, 2)
    H = C = np.zeros((x.shape[1], UNITS))
    outputs = []
    for X in x:
        if case == "rnn":
            H = np.tanh(X @ W.T + H @ R.T + Wb + Rb)
        elif case == "lstm":
            i, o, f, c = np.split(X @ W.T + H @ R.T + Wb + Rb, 4, axis=1)
            C = logistic(f) * C + logistic(i) * np.tanh(c)
            H = logistic(o) * np.tanh(C)
        else:
            (Wz, Wr, Wh), (Rz, Rr, Rh) = np.split(W, 3), np.split(R, 3)
            (Wbz, Wbr, Wbh), (Rbz, Rbr, Rbh) = np.split(Wb, 3), np.split(Rb, 3)
            z = logistic(X @ Wz.T + H @ Rz.T + Wbz + Rbz)
            r = logistic(X @ Wr.T + H @ Rr.T + Wbr + Rbr)
            if case == "gru":  # linear_before_reset
                h = np.tanh(X @ Wh.T + r * (H @ Rh.T + Rbh) + Wbh)
            else:
                h = np.tanh(X @ Wh.T + (r * H) @ Rh.T + Rbh + Wbh)
            H = (1 - z) * h + z * H
        outputs.append(H)
    return np.stack(outputs)


@every_case
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_onnx(case, bidirectional, bias):
    layer, x = make(case, num_layers=2, bidirectional=bidirectional, bias=bias), sequences()
    y, collected = x, {}
    for k in range(2):
        arrays = weights.to_onnx(kind(case), layer.parameters, k)
        assert ("B" in arrays) == bias
        collected |= weights.from_onnx(kind(case), arrays, k)
        W, R = arrays["W"], arrays["R"]
        B = arrays["B"] if bias else np.zeros((len(W), 2 * W.shape[1]))
        assert W.shape == (1 + bidirectional, R.shape[1], y.shape[2])
        if bidirectional:
            y = both(lambda *own: onnx(case, *own), y, *zip(W, R, B, strict=True))
        else:
            y = onnx(case, y, W[0], R[0], B[0])
    close(y, layer(x)[0])
    same(collected, layer.parameters)


# --------------------------------------------------------------------------------------------- the textbooks' GRU


@pytest.mark.parametrize("case", ["gru", "gru_reset_before"])
def test_textbook_gru(case):
    """One unit, in scalars, with the mix the other way round."""
    random = np.random.default_rng(2)
    layer = CASES[case][0](1, 1, **CASES[case][1], dtype="float64")
    book = {name: random.normal(size=a.shape) for name, a in layer.parameters.items()}
    layer.parameters.update(weights.textbook_gru(book))
    (w_r, w_z, w_n), (u_r, u_z, u_n), (b_r, b_z, b_n), (d_r, d_z, d_n) = (a.ravel().tolist() for a in book.values())
    h, expected = 0.0, []
    for x in (0.5, -1.0, 2.0):
        r = 1 / (1 + math.exp(-(w_r * x + b_r + u_r * h + d_r)))
        z = 1 / (1 + math.exp(-(w_z * x + b_z + u_z * h + d_z)))
        candidate = r * (u_n * h + d_n) if case == "gru" else u_n * (r * h) + d_n
        h = (1 - z) * h + z * math.tanh(w_n * x + b_n + candidate)
        expected.append(h)
    close(layer(np.array([[0.5], [-1.0], [2.0]]))[0].ravel(), expected)
    same(weights.textbook_gru(weights.textbook_gru(book)), book)


# ------------------------------------------------------------------------------------------------------------ PyTorch


class Tensor:
    """As much of a tensor on some device as a conversion may use."""

    def __init__(self, array):
        self._array = array

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self._array


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}, {"proj_size": 2}])
@pytest.mark.parametrize("prefix", ["", "encoder.lstm."])
def test_torch(options, prefix):
    parameters = make("lstm", **options).parameters
    state_dict = weights.to_torch(parameters, prefix)
    assert list(state_dict) == [prefix + name for name in parameters]
    tensors = {name: Tensor(a) for name, a in reversed(state_dict.items())}
    if prefix:
        tensors["decoder.weight"] = Tensor(np.ones(3))
    back = weights.from_torch(tensors, prefix)
    assert list(back) == list(parameters)
    same(back, parameters)
    same(weights.from_torch(state_dict, prefix), parameters)
    assert not any(np.shares_memory(back[name], state_dict[prefix + name]) for name in back)


# ------------------------------------------------------------------------------------------------- common properties


@every_case
def test_conversions_copy_and_keep_the_dtype(case):
    double = make(case, bidirectional=True).parameters
    parameters = {n: np.asfortranarray(a.astype(np.float32)) for n, a in double.items()}
    before = {n: a.copy() for n, a in parameters.items()}
    to = [to_keras(case, parameters), list(weights.to_onnx(kind(case), parameters).values())]
    to.append(list(weights.to_torch(parameters).values()))
    back = [from_keras(case, to[0]), weights.from_onnx(kind(case), dict(zip("WRB", to[1], strict=True)))]
    back.append(weights.from_torch(parameters))
    if kind(case) == "gru":
        back.append(weights.textbook_gru(parameters))
    for array in [*to[0], *to[1], *to[2], *(a for arrays in back for a in arrays.values())]:
        assert array.dtype == np.float32
        assert array.flags.c_contiguous
        array[...] = 0
    same(parameters, before)


def test_errors_name_what_is_wrong():
    lstm = make("lstm", num_layers=2, bidirectional=True).parameters
    projected = make("lstm", proj_size=2).parameters
    peepholes = make("lstm", peephole=True).parameters
    keras_lstm, onnx_lstm = weights.to_keras("lstm", lstm), weights.to_onnx("lstm", lstm)

    def without(name, arrays=lstm, **more):
        return {n: a for n, a in arrays.items() if n != name} | more

    one = lstm["bias_ih_l0"]
    for call, message in [
        (lambda: weights.from_torch(without("bias_ih_l0")), "missing bias_ih_l0$"),
        (lambda: weights.from_torch(without("weight_hh_l1_reverse")), "missing weight_hh_l1_reverse$"),
        (lambda: weights.from_torch(lstm | {"fc.weight": one}), r"unexpected fc\.weight$"),
        (lambda: weights.from_torch(weights.to_torch(lstm, "enc."), "enc"), r"did you mean prefix='enc\.'\?"),
        (lambda: weights.from_torch(lstm, "lstm."), "missing weight_ih_l0, weight_hh_l0$"),
        (lambda: weights.to_torch(without("bias_ih_l0")), "missing bias_ih_l0$"),
        (lambda: weights.to_keras("lstm", without("bias_hh_l1"), 1), "missing bias_hh_l1$"),
        (lambda: weights.to_keras("lstm", lstm, 2), "missing weight_ih_l2"),
        (lambda: weights.to_keras("lstm", projected), "weight_hr.*Keras"),
        (lambda: weights.to_keras("lstm", peepholes), "weight_peephole.*Keras"),
        (lambda: weights.to_torch(peepholes), "unexpected weight_peephole_l0$"),
        (lambda: weights.to_onnx("lstm", without("bias_hh_l1"), 1), "missing bias_hh_l1$"),
        (lambda: weights.to_onnx("lstm", projected), "weight_hr.*ONNX"),
        (lambda: weights.to_onnx("lstm", lstm, -1), "layer"),
        (lambda: weights.from_onnx("lstm", without("R", onnx_lstm)), "missing R$"),
        (lambda: weights.from_onnx("lstm", onnx_lstm | {"P": one}), "P must be of shape"),
        (lambda: weights.from_onnx("gru", onnx_lstm), "R must be of shape"),
        (lambda: weights.from_onnx("lstm", onnx_lstm | {"W": onnx_lstm["W"][:1]}), "W must be of shape"),
        (lambda: weights.from_onnx("lstm", onnx_lstm | {"B": onnx_lstm["B"][:, 1:]}), "B must be of shape"),
        (lambda: weights.from_keras("lstm", keras_lstm[:5]), "weights must be"),
        (lambda: weights.from_keras("gru", keras_lstm), "recurrent_kernel must be of shape"),
        (lambda: weights.from_keras("lstm", [keras_lstm[0].T, *keras_lstm[1:]]), "kernel must be of shape"),
        (lambda: weights.from_keras("lstm", [*keras_lstm[:2], one[1:]]), "bias must be of shape"),
        (lambda: weights.textbook_gru({"weight_ih_l0": np.zeros((4, 1))}), "missing weight_hh_l0$"),
        (lambda: weights.from_keras("cnn", keras_lstm), "cell"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
    for call, message in [
        (lambda: weights.from_torch({"weight_ih_l0": [1.0], "weight_hh_l0": one}), "weight_ih_l0"),
        (lambda: weights.from_keras("lstm", [None, None]), "kernel"),
        (lambda: weights.from_onnx("lstm", {"W": one, "R": None}), "R"),
        (lambda: weights.to_keras(None, lstm), "cell"),
        (lambda: weights.to_keras("gru", lstm, reset_after=1), "reset_after"),
        (lambda: weights.from_keras("lstm", keras_lstm, True), "layer"),
        (lambda: weights.from_keras("gru", keras_lstm, reset_after=None), "reset_after"),
    ]:
        with pytest.raises(TypeError, match=message):
            call()


LSTM = make("lstm", num_layers=2, bidirectional=True).parameters
GRU = make("gru").parameters
OF_THREE_UNITS = reference.LSTM(INPUTS, 3, dtype="float64", seed=0).parameters  # with as many rows as a GRU of four
KERAS_LSTM, KERAS_GRU = weights.to_keras("lstm", LSTM), weights.to_keras("gru", GRU)


def wrong(name, change):
    """The LSTM's parameters with one changed."""
    return LSTM | {name: change(LSTM[name])}


@pytest.mark.parametrize("convert", [weights.to_keras, weights.to_onnx])
@pytest.mark.parametrize(
    ("cell", "parameters", "name", "expected", "came"),
    [
        ("rnn", LSTM, "weight_ih_l0", "(4, 3)", "(16, 3)"),
        ("gru", LSTM, "weight_ih_l0", "(12, 3)", "(16, 3)"),
        ("gru", OF_THREE_UNITS, "weight_ih_l0", "(9, 3)", "(12, 3)"),
        ("lstm", GRU, "weight_ih_l0", "(16, 3)", "(12, 3)"),
        ("lstm", wrong("weight_ih_l0", lambda a: a[0]), "weight_ih_l0", "(any, any)", "(3,)"),
        ("lstm", wrong("weight_hh_l0", lambda a: a[1:]), "weight_hh_l0", "(16, 4)", "(15, 4)"),
        ("lstm", wrong("bias_hh_l0", lambda a: a[1:]), "bias_hh_l0", "(16,)", "(15,)"),
        ("lstm", wrong("bias_ih_l0", lambda a: a[None]), "bias_ih_l0", "(16,)", "(1, 16)"),
        ("lstm", wrong("weight_ih_l0_reverse", lambda a: a[:, 1:]), "weight_ih_l0_reverse", "(16, 3)", "(16, 2)"),
        ("lstm", wrong("weight_hh_l0_reverse", lambda a: a[:8, :2]), "weight_hh_l0_reverse", "(16, 4)", "(8, 2)"),
    ],
)
def test_shapes_are_those_of_the_cell(convert, cell, parameters, name, expected, came):
    with pytest.raises(ValueError, match=f"^{re.escape(f'{name} must be of shape {expected}, got {came}')}$"):
        convert(cell, parameters)


@pytest.mark.parametrize(
    ("cell", "arrays", "message"),
    [
        ("lstm", [KERAS_LSTM[0][:, 1:], *KERAS_LSTM[1:3]], "kernel must be of shape (any, 16), got (3, 15)"),
        ("rnn", KERAS_LSTM[:2], "recurrent_kernel must be of shape (4, 4), got (4, 16)"),
        ("lstm", [*KERAS_LSTM[:3], *weights.to_keras("lstm", LSTM, 1)[:3]], "kernel of the backward layer must"),
        ("gru", [*KERAS_GRU, *KERAS_GRU[:2], KERAS_GRU[2][0]], "bias of the backward layer must be of shape (2, 12)"),
    ],
)
def test_shapes_are_those_of_the_keras_cell(cell, arrays, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        weights.from_keras(cell, arrays)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, "parameters of layer 0: missing weight_ih_l0, weight_hh_l0"),
        ({name: a for name, a in GRU.items() if name != "bias_ih_l0"}, "parameters of layer 0: missing bias_ih_l0"),
        (GRU | {"fc.weight": GRU["bias_ih_l0"]}, "parameters: unexpected fc.weight"),
        (LSTM, "weight_ih_l0 must be of shape (12, 3), got (16, 3)"),
        (OF_THREE_UNITS, "weight_ih_l0 must be of shape (9, 3), got (12, 3)"),
        (GRU | {"bias_hh_l0": GRU["bias_hh_l0"][:3]}, "bias_hh_l0 must be of shape (12,), got (3,)"),
        (GRU | {"weight_hr_l0": GRU["weight_hh_l0"]}, "parameters: layer 0 has a projection"),
    ],
)
def test_the_textbooks_gru_is_a_gru(parameters, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        weights.textbook_gru(parameters)


def test_one_layer_of_a_textbook():
    alone = {name.replace("l0", "l3"): array for name, array in GRU.items()}
    same(weights.textbook_gru(alone), {n.replace("l0", "l3"): a for n, a in weights.textbook_gru(GRU).items()})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: weights.from_torch(None), "state_dict must be a mapping"),
        (lambda: weights.from_torch({0: LSTM["bias_ih_l0"]}), "a name in state_dict must be a str"),
        (lambda: weights.from_torch(LSTM, None), "prefix must be a str"),
        (lambda: weights.to_torch(None), "parameters must be a mapping"),
        (lambda: weights.to_torch(wrong("bias_ih_l0", list)), "bias_ih_l0 must be a NumPy array"),
        (lambda: weights.to_torch(LSTM, 3), "prefix must be a str"),
        (lambda: weights.from_keras("lstm", None), "weights must be a sequence"),
        (lambda: weights.from_keras("lstm", KERAS_LSTM[0]), "weights must be a sequence"),
        (
            lambda: weights.from_keras("rnn", [np.ones((3, 4), int), np.ones((4, 4), int)]),
            "recurrent_kernel .* float32",
        ),
        (lambda: weights.to_keras("lstm", None), "parameters must be a mapping"),
        (lambda: weights.to_keras("lstm", wrong("bias_ih_l0", lambda _: None)), "bias_ih_l0 must be a NumPy array"),
        (lambda: weights.from_onnx("lstm", None), "weights must be a mapping"),
        (lambda: weights.to_onnx("lstm", KERAS_LSTM), "parameters must be a mapping"),
        (lambda: weights.to_onnx("lstm", wrong("bias_ih_l0", np.float32)), "bias_ih_l0 must be of dtype float64"),
        (lambda: weights.textbook_gru(None), "parameters must be a mapping"),
    ],
)
def test_types_are_checked(call, message):
    with pytest.raises(TypeError, match=f"^{message}"):
        call()


def test_a_layout_has_its_own_cells(monkeypatch):
    """A cell that one library has and the other has not."""
    monkeypatch.setitem(weights._ONNX, "cnn", [0])
    weights.to_onnx("cnn", make("rnn").parameters)
    for call in (weights.to_keras, weights.from_keras):
        with pytest.raises(ValueError, match=r"^cell must be one of 'rnn', 'lstm', 'gru', got 'cnn'"):
            call("cnn", {})


def test_an_order_and_its_inverse():
    """A cycle of three gates is no inverse of its own."""
    order = [2, 0, 1]
    array = np.arange(6.0).reshape(6, 1)
    np.testing.assert_array_equal(weights._reorder(weights._reorder(array, order), weights._inverse(order)), array)


# ------------------------------------------------------------------------------------------------------ PyTorch itself

MODULES = {
    "rnn_tanh": (reference.RNN, "RNN", {"nonlinearity": "tanh"}),
    "rnn_relu": (reference.RNN, "RNN", {"nonlinearity": "relu"}),
    "lstm": (reference.LSTM, "LSTM", {}),
    "lstm_projected": (reference.LSTM, "LSTM", {"proj_size": 2}),
    "gru": (reference.GRU, "GRU", {}),
}


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs PyTorch: pip install torch==2.13.0, as `make test` does")


@pytest.mark.parametrize("cell", MODULES)
@pytest.mark.parametrize("bias", [True, False])
def test_modules_of_pytorch(torch, cell, bias):
    """With the converted weights, either library gives the other's results."""
    cls, name, own = MODULES[cell]
    options = {"num_layers": 2, "bidirectional": True, "bias": bias} | own
    layer = cls(INPUTS, UNITS, **options, dtype="float64", seed=0)
    model = torch.nn.ModuleDict({"encoder": getattr(torch.nn, name)(INPUTS, UNITS, **options, dtype=torch.float64)})

    def compare():
        with torch.no_grad():
            y, state = model["encoder"](torch.from_numpy(sequences()))
        our_y, our_state = layer(sequences())
        close(our_y, y.numpy())
        for a, b in zip(*(s if name == "LSTM" else [s] for s in (our_state, state)), strict=True):
            close(a, b.numpy())

    layer.parameters.update(weights.from_torch(model.state_dict(), "encoder."))
    compare()
    ours = cls(INPUTS, UNITS, **options, dtype="float64", seed=1).parameters
    layer.parameters.update(ours)
    model.load_state_dict({n: torch.from_numpy(a) for n, a in weights.to_torch(ours, "encoder.").items()})
    compare()
    same(weights.from_torch(model.state_dict(), "encoder."), ours)

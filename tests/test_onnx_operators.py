"""fastrnn.onnx's operators against the specification's equations, ONNX Runtime and onnx.reference."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx.reference import ReferenceEvaluator  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.onnx  # noqa: E402
from cases import covering  # noqa: E402
from onnx_cases import ACTIVATIONS, FUNCTIONS, GATES, expected, make_call, single  # noqa: E402

NAMES = ["Affine", "Elu", "HardSigmoid", "LeakyRelu", "Relu", "ScaledTanh", "Sigmoid", "Softplus", "Softsign", "Tanh",
         "ThresholdedRelu"]  # fmt: skip
OPERATORS = {"RNN": fastrnn.onnx.rnn, "LSTM": fastrnn.onnx.lstm, "GRU": fastrnn.onnx.gru}
every_operator = pytest.mark.parametrize("operator", OPERATORS)


def run(call):
    """The outputs by name; it takes one call of the kernels."""
    calls = fastrnn.native_calls()
    results = OPERATORS[call.operator](**call.inputs, **call.attributes)
    assert fastrnn.native_calls() == calls + 1
    assert isinstance(results, tuple)
    return dict(zip(call.outputs, results, strict=True))


def in_onnxruntime(call):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(single(call, ()).SerializeToString(), options, ["CPUExecutionProvider"])
    return dict(zip(call.outputs, session.run(None, call.inputs), strict=True))


def sizes(call):
    return SimpleNamespace(input_size=call.inputs["W"].shape[2], hidden_size=call.inputs["R"].shape[2])


def cases(operator, complete=False, **others):
    """Options in such combinations that every pair of two options' values occurs. `complete`: without defaults."""
    factors = {
        "direction": ["forward", "reverse", "bidirectional"],
        "layout": [0, 1],
        "lengths": [False, True],
        "initial": [False, True],
        "bias": [False, True],
        "N": [1, 3, 8],
        "H": [1, 5, 33],
        "T": [1, 4],
        "width": [1, 7],
        "clip": [None, 0.7],
        "functions": [False, True],
    } | others
    if operator == "GRU":
        factors["linear_before_reset"] = [0, 1]
    if operator == "LSTM":
        factors |= {"peephole": [False, True], "input_forget": [0, 1]}
    calls = []
    for seed, options in enumerate(covering(factors, lambda **_: True, seed=GATES[operator])):
        if options.pop("functions"):
            options |= functions(operator, 1 + (options["direction"] == "bidirectional"), seed, complete)
        calls.append(make_call(operator, seed=seed, **options))
    return calls


def functions(operator, directions, seed, complete):
    """Attributes with other activations, in upper and lower case; unless complete, lists of parameters may end."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.choice(NAMES, len(FUNCTIONS[operator]) * directions)]
    takes = [len(ACTIVATIONS[name.lower()][1]) for name in names]
    needed = [k for k, name in enumerate(names) if None in ACTIVATIONS[name.lower()][1]]
    attributes = {"activations": [name.lower() if rng.random() < 0.3 else name for name in names]}
    for which, attribute in enumerate(("activation_alpha", "activation_beta")):
        most = sum(count > which for count in takes)
        least = sum(count > which for count in takes[: max(needed, default=-1) + 1])
        values = rng.uniform(0.1, 0.9, most if complete else rng.integers(least, most + 1))
        if values.size:
            attributes[attribute] = [float(value) for value in values.astype(np.float32)]
    return attributes


@every_operator
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_options(operator, dtype, assert_near):
    for call in cases(operator, dtype=[dtype]):
        results = run(call)
        assert all(array.dtype == dtype for array in results.values())
        assert_near("forward", dtype, sizes(call), call.inputs["X"].shape[0], results, expected(call))


@every_operator
def test_the_equations_are_those_of_onnxruntime(operator):
    """So are the results: what the two differ in is rounding. ONNX Runtime has neither layout 1 nor, in an RNN, the
    specification's reading of alpha and beta and its lower case; and its default for ThresholdedRelu is 0."""
    compared = 0
    for call in cases(operator, complete=True, layout=[0]):
        if operator == "RNN" and "activations" in call.attributes:
            continue
        exact = expected(call)
        for name, array in in_onnxruntime(call).items():
            np.testing.assert_allclose(array, exact[name], rtol=1e-4, atol=1e-5)
        compared += 1
    assert compared >= 6


@pytest.mark.parametrize("name", NAMES)
def test_every_activation(name):
    """With its own parameters, and with the defaults if it has them."""
    defaults = ACTIVATIONS[name.lower()][1]
    for operator in OPERATORS:
        count = len(FUNCTIONS[operator])
        given = {"activation_alpha": [0.3, 0.4, 0.5][:count], "activation_beta": [0.6, 0.7, 0.8][:count]}
        own = dict(zip(given, [given["activation_alpha"], given["activation_beta"]][: len(defaults)], strict=False))
        for parameters in [own] if None in defaults else [own, {}]:
            call = make_call(operator, scale=0.3, activations=[name] * count, **parameters)
            exact = expected(call)
            for output, array in run(call).items():
                np.testing.assert_allclose(array, exact[output], rtol=1e-4, atol=1e-5)
            if parameters or not defaults or (operator != "RNN" and name != "ThresholdedRelu"):
                for output, array in in_onnxruntime(call).items():
                    np.testing.assert_allclose(array, exact[output], rtol=1e-4, atol=1e-5)


@every_operator
def test_reference_evaluator(operator):
    """onnx.reference knows neither lengths nor activations."""
    for direction in ("forward", "reverse", "bidirectional"):
        for layout in (0, 1):
            call = make_call(operator, direction=direction, layout=layout)
            found = ReferenceEvaluator(single(call, ())).run(None, call.inputs)
            for name, array in zip(call.outputs, found, strict=True):
                np.testing.assert_allclose(run(call)[name], array, rtol=1e-4, atol=1e-5)


@every_operator
@pytest.mark.parametrize("element", ["float16", "bfloat16"])
def test_half_precision(operator, element):
    """Computed in float32 and rounded at the end: to the bit what float32 gives for the rounded arguments."""
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), element) if element == "bfloat16" else element)
    for call in cases(operator, T=[4], H=[5], functions=[False]):
        halves = {name: a if name == "sequence_lens" else a.astype(dtype) for name, a in call.inputs.items()}
        wide = {name: a if name == "sequence_lens" else a.astype(np.float32) for name, a in halves.items()}
        call.inputs = wide
        exact = run(call)
        call.inputs = halves
        for name, array in run(call).items():
            assert array.dtype == dtype
            np.testing.assert_array_equal(array.view(np.uint16), exact[name].astype(dtype).view(np.uint16))


@pytest.mark.parametrize("element", ["float16", "bfloat16"])
def test_rounding(element):
    """Of every 16-bit number, and of float32 numbers beside them, by an RNN that hands its input on."""
    dtype = np.dtype(getattr(pytest.importorskip("ml_dtypes"), element) if element == "bfloat16" else element)
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    every = every[every.astype(np.float32) >= 0]
    one, zero = np.ones((1, 1, 1), dtype), np.zeros((1, 1, 1), dtype)
    tiny = np.abs(every.astype(np.float32)) < 2.0**-126  # the kernels count denormal numbers as zero
    y, _ = fastrnn.onnx.rnn(every[None, :, None], one, zero, activations=["relu"])
    np.testing.assert_array_equal(y.ravel(), np.where(tiny, dtype.type(0), every))
    between = every[~tiny & (every.astype(np.float32) < 60000)]
    W = np.array([[[1]]], dtype) + np.array(2.0 ** -(8 if element == "bfloat16" else 11), np.float32).astype(dtype)
    for factor in (W, np.full((1, 1, 1), 1 / 3, dtype)):
        y, _ = fastrnn.onnx.rnn(between[None, :, None], factor, zero, activations=["relu"])
        wanted = (between.astype(np.float32) * factor.astype(np.float32).ravel()).astype(np.float32)
        wanted = np.where(wanted < 2.0**-126, 0, wanted).astype(dtype)
        np.testing.assert_array_equal(y.ravel(), wanted)


@every_operator
def test_padding_is_not_read(operator):
    for direction in ("forward", "reverse", "bidirectional"):
        call = make_call(operator, direction=direction, lengths=True, N=4)
        results = run(call)
        for n, length in enumerate(call.inputs["sequence_lens"]):
            call.inputs["X"][length:, n] = np.nan
        for name, array in run(call).items():
            np.testing.assert_array_equal(array, results[name])


@every_operator
def test_arguments_are_left_alone(operator):
    """Any strides will do, and nothing is written to."""
    call = make_call(operator, direction="reverse", lengths=True)
    results = run(call)
    call.inputs = {name: np.repeat(a, 2, axis=-1)[..., ::2] for name, a in call.inputs.items()}
    for array in call.inputs.values():
        array.flags.writeable = False
    for name, array in run(call).items():
        np.testing.assert_array_equal(array, results[name])


@every_operator
def test_sizes_of_zero(operator):
    for layout in (0, 1):
        for direction in ("forward", "reverse", "bidirectional"):
            for sizes in ({"T": 0}, {"N": 0}, {"T": 0, "N": 0}):
                for lengths in (False, True):
                    call = make_call(operator, **sizes, direction=direction, layout=layout, lengths=lengths)
                    for name, array in expected(call).items():  # the state is zeros, as of any sequence of length 0
                        np.testing.assert_array_equal(run(call)[name], array)


# -------------------------------------------------------------------------------------------------------------- errors


def broken(operator, **changes):
    """A call with other arguments."""
    call = make_call(operator, bias=True, initial=True)
    arguments = call.inputs | call.attributes | changes
    return lambda: OPERATORS[operator](**arguments)


WRONG = {
    "X is a list": ({"X": [1.0]}, TypeError, "X must be a NumPy array"),
    "X of integers": ({"X": np.zeros((5, 3, 4), int)}, TypeError, "X must be of float32.*got dtype int64"),
    "X with two axes": ({"X": np.zeros((5, 4), "f4")}, ValueError, r"X: expected 3 axes, got shape \(5, 4\)"),
    "X with nine axes": (
        {"X": np.zeros((1,) * 9, "f4")},
        ValueError,
        r"X: expected 3 axes, got shape \(1, 1, 1, 1, 1, 1, 1, 1, \.\.\.\)",
    ),
    "X of another width": ({"X": np.zeros((5, 3, 9), "f4")}, ValueError, r"X: expected shape \(5, 3, 4\)"),
    "W of another dtype": ({"W": np.zeros((1, 6, 4))}, TypeError, "W must be of X's dtype, float32"),
    "W with two axes": ({"W": np.zeros((6, 4), "f4")}, ValueError, "W must have three axes"),
    "W is absent": ({"W": None}, ValueError, "W must have three axes"),
    "R is absent": ({"R": None}, ValueError, "R must have three axes"),
    "R of no units": ({"R": np.zeros((1, 6, 0), "f4")}, ValueError, "R must have three axes"),
    "two directions": ({"direction": "bidirectional"}, ValueError, r"W: expected shape \(2, "),
    "B": ({"B": np.zeros((1, 6), "f4")}, ValueError, r"B: expected shape \(1, "),
    "a masked array": ({"B": np.ma.zeros((1, 48), "f4")}, TypeError, "B must be a NumPy array"),
    "initial_h": ({"initial_h": np.zeros((3, 6), "f4")}, ValueError, r"initial_h: expected shape \(1, 3, 6\)"),
    "lengths beyond": ({"sequence_lens": [1, 2, 6]}, ValueError, "sequence_lens.*got 6 at index 2"),
    "negative lengths": ({"sequence_lens": [1, 2, -1]}, ValueError, "sequence_lens must be from 0"),
    "enormous lengths": ({"sequence_lens": [1, 2, 2**32]}, ValueError, "sequence_lens must be from 0"),
    "lengths of floats": ({"sequence_lens": [1.0, 2.0, 3.0]}, TypeError, "sequence_lens must be integers"),
    "masked lengths": ({"sequence_lens": np.ma.ones(3, int)}, TypeError, "sequence_lens must not be masked"),
    "ragged lengths": ({"sequence_lens": [[1], [2, 3]]}, TypeError, "sequence_lens must be integers"),
    "too few lengths": ({"sequence_lens": [1]}, ValueError, r"sequence_lens: expected shape \(3,\), got \(1,\)"),
    "direction": ({"direction": "both"}, ValueError, "direction must be one of 'forward'"),
    "direction is a number": ({"direction": 1}, TypeError, "direction must be a str"),
    "hidden_size": ({"hidden_size": 7}, ValueError, r"R: expected a hidden size of 7, got shape \(1, "),
    "hidden_size is a str": ({"hidden_size": "6"}, TypeError, "hidden_size must be an int"),
    "layout": ({"layout": 2}, ValueError, "layout must be an int from 0 to 1"),
    "an unknown activation": ({"activations": ["Tanh", "Sinh"] * 3}, ValueError, "activations"),
    "too many activations": ({"activations": ["Tanh"] * 9}, ValueError, "activations must be"),
    "activations are a str": ({"activations": "Tanh"}, TypeError, "activations must be a list"),
    "clip is negative": ({"clip": -1.0}, ValueError, "clip must be a positive number"),
    "clip is NaN": ({"clip": float("nan")}, ValueError, "clip must be finite"),
    "clip is enormous": ({"clip": 10**400}, ValueError, "clip must be finite"),
    "clip is a str": ({"clip": "1"}, TypeError, "clip must be a number"),
    "alpha is a str": ({"activation_alpha": ["a"]}, TypeError, "each of activation_alpha must be a number"),
    "alpha is enormous": ({"activation_alpha": [10**400]}, ValueError, "each of activation_alpha must be finite"),
}


@every_operator
@pytest.mark.parametrize("case", WRONG)
def test_errors_name_the_argument(operator, case):
    changes, error, message = WRONG[case]
    calls = fastrnn.native_calls()
    with pytest.raises(error, match=message):
        broken(operator, **changes)()
    assert fastrnn.native_calls() == calls


@every_operator
def test_affine_has_no_defaults(operator):
    names = ["Affine"] * len(FUNCTIONS[operator])
    with pytest.raises(ValueError, match="Affine needs an activation_alpha and an activation_beta"):
        broken(operator, activations=names, activation_alpha=[1.0] * len(names))()


def test_every_activation_of_the_specification_is_known():
    known = fastrnn.onnx._attributes.ACTIVATIONS
    assert known.keys() == {name.lower() for name in NAMES}
    (text,) = {onnx.defs.get_schema(operator, 22).doc.partition("Equations")[0] for operator in ("RNN",)}
    named = set(re.findall(r"^\s*\*?\s*([A-Z]\w+)\(x\)", text, re.MULTILINE))
    assert len(named) == 11
    assert known.keys() == {name.lower() for name in named} == ACTIVATIONS.keys()

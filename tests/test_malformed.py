"""Wrong arguments and weights: each is refused by an error that names it, and leaves no trace."""

import re
from functools import partial

import numpy as np
import pytest

import fastrnn
from cases import (
    PROJECTED,
    B,
    H,
    I,
    Native,
    Reference,
    T,
    as_state,
    assert_same_bits,
    backward,
    everything,
    forward,
    make_data,
)
from fastrnn import _core, functional

KINDS = ["lstm", "gru"]  # with a state of two arrays, and of one


def not_arrays(array):
    return {"None": None, "list": array.tolist(), "str": "array", "number": 1.0, "scalar": array.ravel()[0], "dict": {}}


def wrong_dtypes(array):
    dtypes = ["i4", "i8", "?", "f2", "f8", "g", "c8", "O", ">f4", "U5", "m8[s]"]
    return {f"dtype {dtype}": array.astype(dtype) for dtype in dtypes}


def wrong_shapes(array):
    shapes = {
        "no axes": array.ravel()[0].reshape(()),
        "another axis": array[None],
        "wider": np.concatenate([array, array], axis=-1),
        "narrower": array[..., :-1],
        "empty": array[..., :0],
    }
    return shapes | {f"one axis less {axis}": array.take(0, axis) for axis in range(array.ndim) if array.ndim > 1}


def wrong(array):
    """(what is wrong, a wrong value) for an array."""
    return not_arrays(array) | wrong_dtypes(array) | wrong_shapes(array)


def bad_x(data):
    shapes = {"one axis": data.x[0, 0], "one axis more": data.x[None], "wider": np.repeat(data.x, 2, 2)}
    shapes |= {"narrower": data.x[..., 1:], "empty": data.x[..., :0], "no axes": np.array(data.x[0, 0, 0])}
    return not_arrays(data.x) | wrong_dtypes(data.x) | shapes


def bad_lengths():
    return {
        "one less": [9] * (B - 1), "one more": [9] * (B + 1), "scalar": 9, "none": [], "nested": [[9] * B],
        "column": np.full((B, 1), 9), "negative": [-1] + [9] * (B - 1), "too large": [9] * (B - 1) + [T + 1],
        "huge": np.full(B, 2**64 - 1, "u8"), "just huge": np.full(B, 2**63, "u8"), "beyond": [2**70] * B,
        "low": np.full(B, -(2**63)), "float": [9.0] * B, "NaN": [np.nan] * B, "half": np.full(B, 9, "f2"),
        "bool": [True] * B, "bools": np.ones(B, bool), "one bool": True, "complex": [9j] * B, "str": "9" * B,
        "strs": ["9"] * B, "Nones": [None] * B, "ragged": [[9], [9, 9]] * B, "object": object(), "dict": {},
        "objects": np.full(B, 9, object), "times": np.full(B, 9, "m8[s]"), "set": {9},
    }  # fmt: skip


def bad_states(arrays):
    """Values for a state, or for its gradient, each with the part of it that is wrong."""
    h, *c = arrays
    if not c:
        return [(what, value, 0) for what, value in wrong(h).items() if what != "None"] + [
            ("a tuple", (h,), None), ("two", (h, h), None), ("a list of it", [h], None), ("Nones", (None, None), None),
        ]  # fmt: skip
    whole = {
        "array": h,
        "one": (h,),
        "three": (h, c[0], h),
        "dict": {},
        "str": "hc",
        "empty": (),
        "stacked": np.stack([h, *c]),
    }
    bad = [(what, value, None) for what, value in whole.items()]
    bad += [(what, (value, c[0]), 0) for what, value in wrong(h).items() if what != "None"]
    return bad + [(what, (h, value), 1) for what, value in wrong(c[0]).items() if what != "None"]


def make_twins(cell):
    options = {"num_layers": 2, "dropout": 0.5, "seed": 5}
    return Native(cell, I, H, **options), Native(cell, I, H, **options)


def assert_refused(call, name, what):
    """By an error whose message has the name."""
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) in (TypeError, ValueError), what
    assert re.search(rf"\b({name})\b", message), f"{what}: {message}"
    assert "incompatible function arguments" not in message, f"{what}: {message}"


@pytest.mark.parametrize("cell", KINDS)
def test_malformed_arguments(cell):
    """Each is refused by an error that names it, and leaves no trace: neither in a weight nor in the dropout masks."""
    layer, twin = make_twins(cell)
    data = make_data(layer, T, B)
    state, dstate = as_state(data.state), as_state(data.dstate)
    fast = layer.prepare()
    tape = forward(layer, data)[1]
    forward(twin, data)
    expected = backward(layer, tape, data)
    weights = list(layer.parameters.values())
    infer_function = getattr(functional, cell)
    forward_function = getattr(functional, f"{cell}_forward")

    def callers(x, state, lengths):
        yield lambda: layer(x, state, lengths=lengths)
        yield lambda: layer.forward(x, state, lengths=lengths)
        yield lambda: layer.forward(x, state, lengths=lengths, dropout_seed=1)
        yield lambda: fast(x, state, lengths=lengths)
        yield lambda: infer_function(x, weights, state, lengths=lengths, num_layers=2)
        yield lambda: forward_function(x, weights, state, lengths=lengths, num_layers=2)

    calls = fastrnn.native_calls()
    for what, x in bad_x(data).items():
        for call in callers(x, state, None):
            assert_refused(call, "x", f"x: {what}")
    for what, lengths in bad_lengths().items():
        for call in callers(data.x, state, lengths):
            assert_refused(call, "lengths", f"lengths: {what}")
    for what, bad, part in bad_states(data.state):
        for call in callers(data.x, bad, None):
            assert_refused(call, "state" if part is None else ("h0", "c0")[part], f"state: {what}")

    for what, dy in wrong(data.dy).items():
        if what != "None":
            assert_refused(lambda dy=dy: layer.backward(tape, dy, dstate), "dy", f"dy: {what}")
    for what, bad, part in bad_states(data.dstate):
        name = "dstate" if part is None else ("dh_n", "dc_n")[part]
        assert_refused(lambda bad=bad: layer.backward(tape, data.dy, bad), name, f"dstate: {what}")

    reference = Reference(cell, I, H)
    foreign = [reference.forward(data.x)[2], twin.forward(data.x, dropout_seed=1)[2]]
    for bad in (None, "tape", data.x, object(), layer, _core.Tape, *foreign):
        assert_refused(lambda bad=bad: layer.backward(bad, data.dy, dstate), "tape", f"tape: {type(bad)}")
    for bad in (None, "tape", data.x, object(), layer, _core.Tape, foreign[0]):
        assert_refused(lambda bad=bad: functional.backward(bad, data.dy, dstate), "tape", f"tape: {type(bad)}")

    assert fastrnn.native_calls() == calls + 1  # the one that made a foreign tape
    assert_same_bits(backward(layer, tape, data), expected, "after calls that were refused")
    for name, array in layer.parameters.items():
        assert np.array_equal(array, twin.parameters[name])
    assert_same_bits(everything(layer, data), everything(twin, data), "after calls that were refused")
    for _ in range(2):
        assert np.array_equal(layer.forward(data.x, state)[0], twin.forward(data.x, state)[0])


@pytest.mark.parametrize("cell", [*KINDS, PROJECTED])
def test_malformed_weights(cell):
    layer, twin = make_twins(cell)
    data = make_data(layer, T, B)
    good, parameters = dict(layer.parameters), layer.parameters
    function = getattr(functional, cell.removesuffix("_projected"))

    def refused(name, what):
        for call in (lambda: layer(data.x), lambda: layer.forward(data.x), layer.prepare):
            assert_refused(call, name, what)
        # The functions take the sizes from the weights: what does not fit may be another one, or x.
        assert_refused(lambda: function(data.x, parameters, num_layers=2), r"x|weights|(weight|bias)_\w+", what)

    for name in good:
        for what, value in wrong(good[name]).items():
            parameters[name] = value
            refused(name, f"{name}: {what}")
        del parameters[name]
        refused(name, f"without {name}")
        parameters[name] = good[name]
        parameters[f"{name}_more"] = good[name]
        refused(f"{name}_more", f"with more than {name}")
        del parameters[f"{name}_more"]
    flat = list(good.values())
    for weights in (flat[:-1], [*flat, flat[-1]], [], None, 1.0, flat[0], iter(flat), "weights", b"weights", {}):
        call = partial(function, data.x, weights, num_layers=2)
        assert_refused(call, r"weights|(weight|bias)_\w+", f"{type(weights)}")
    assert_same_bits(everything(layer, data), everything(twin, data), "after calls that were refused")

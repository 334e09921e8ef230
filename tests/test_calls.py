"""Calls that follow each other: streams, changed weights, tapes, results that are new each time."""

import itertools

import numpy as np
import pytest

from cases import (
    CELLS,
    DEEP,
    DTYPES,
    ISAS,
    B,
    Data,
    H,
    I,
    Native,
    T,
    as_arrays,
    as_state,
    assert_same_bits,
    backward,
    everything,
    forward,
    in_float64,
    infer,
    make_data,
    named,
    train,
)
from fastrnn import _core

every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_cell
@every_dtype
def test_one_call_is_many_calls_of_one_step(cell, dtype, isa, assert_close):
    steps = 20
    layer = Native(cell, I, H, 2, dtype=dtype)
    data = make_data(layer, steps, 3)
    results, tape = forward(layer, data)
    fast = layer.prepare()
    carried = {network: as_state(data.state) for network in (layer, fast)}
    state, tapes = as_state(data.state), []
    for t in range(steps):
        y, state, one = layer.forward(data.x[t : t + 1], state)
        tapes.append(one)
        assert np.array_equal(y[0], results["y"][t])
        for network in (layer, fast):
            y, carried[network] = network(data.x[t : t + 1], carried[network])
            assert np.array_equal(y[0], results["y"][t])
    for last in (state, *carried.values()):
        for name, array in zip(("h_n", "c_n"), as_arrays(last), strict=False):
            assert np.array_equal(array, results[name])

    down, parts = as_state(data.dstate), []
    for t in reversed(range(steps)):
        grads = layer.backward(tapes[t], data.dy[t : t + 1], down)
        down = grads.h0 if grads.c0 is None else (grads.h0, grads.c0)
        parts.append(named(grads))
    chained = {name: np.sum([part[name] for part in parts], axis=0, dtype=dtype) for name in parts[0]}
    chained["dx"] = np.concatenate([part["dx"] for part in reversed(parts)])
    chained |= dict(zip(("dh0", "dc0"), as_arrays(down), strict=False))
    exact = train(in_float64(layer), data.astype(np.float64))[1]
    assert_close("backward", layer.spec, steps, chained, exact)
    assert_close("backward", layer.spec, steps, backward(layer, tape, data), exact)


@every_cell
def test_weights_take_effect_at_the_next_call(cell, isa):
    layer, other = Native(cell, I, H, **DEEP, seed=1), Native(cell, I, H, **DEEP, seed=2)
    data = make_data(layer, T, B)
    before, after = everything(layer, data), everything(other, data)
    fast = layer.prepare()
    at_first = infer(fast, data)
    for name, array in layer.parameters.items():
        array[:] = other.parameters[name]
    assert_same_bits(everything(layer, data), after, "after writing weights in place")
    assert_same_bits(infer(fast, data), at_first, "of a snapshot")
    assert_same_bits(at_first, {name: before[f"inferred {name}"] for name in at_first})
    again = Native(cell, I, H, **DEEP, seed=1)
    layer.parameters.update(again.parameters)
    assert_same_bits(everything(layer, data), before, "after putting other arrays in the weights' places")


@every_cell
def test_backward_may_run_on_another_instruction_set(cell, assert_close):
    layer = Native(cell, I, H, **DEEP)
    data = make_data(layer, T, B, lengths=True)
    expected = train(in_float64(layer), data.astype(np.float64))[1]
    for one, other in itertools.product(ISAS, repeat=2):
        _core.set_isa(one)
        tape = forward(layer, data)[1]
        _core.set_isa(other)
        assert_close("backward", layer.spec, T, backward(layer, tape, data), expected)


def test_one_array_as_both_states(isa):
    layer = Native("lstm", I, H, **DEEP)
    data = make_data(layer, T, B)
    expected = everything(layer, Data(data.x, (data.state[0],) * 2, data.dy, (data.dstate[0],) * 2))
    separate = Data(data.x, (data.state[0], data.state[0].copy()), data.dy, (data.dstate[0], data.dstate[0].copy()))
    assert_same_bits(everything(layer, separate), expected)


@every_cell
def test_tapes_stand_alone(cell, isa):
    """They give the same gradients each time, side by side, and whatever becomes of what forward gave and was given."""
    layer = Native(cell, I, H, **DEEP, dropout=0.3)
    datas = [make_data(layer, steps, rows, seed=rows, lengths=True) for steps, rows in ((T, B), (5, 3))]
    expected = [train(layer, data)[1] for data in datas]
    kept = [forward(layer, data) for data in datas]
    for _ in range(2):
        for data, (_, tape), gradients in zip(datas, kept, expected, strict=True):
            assert_same_bits(backward(layer, tape, data), gradients, "from a tape used again")
    for data, (results, tape), gradients in zip(datas, kept, expected, strict=True):
        for name in results.keys() & {"h_n", "c_n"}:  # y is read-only: the tape refers to it
            results[name][:] = np.nan
        for array in data.state:
            array[:] = np.nan
        data.lengths[:] = 0
        assert_same_bits(backward(layer, tape, data), gradients, "after results and states were overwritten")


@every_cell
def test_results_are_new_and_arguments_only_read(cell, isa):
    layer = Native(cell, I, H, **DEEP)
    data = make_data(layer, T, B, lengths=True)
    given = [data.x, data.dy, *data.state, *data.dstate, *layer.parameters.values()]
    copies = [array.copy() for array in given]
    first, second = everything(layer, data), everything(layer, data)
    for array, copy in zip(given, copies, strict=True):
        assert np.array_equal(array, copy)
    own = {name: array for name, array in first.items() if "layer" not in name}
    for name, array in own.items():
        assert array.flags.c_contiguous, name
        assert array.flags.writeable or name == "y", name  # the tape refers to y
        assert not any(np.shares_memory(array, other) for other in (*given, *second.values())), name
    for a, b in itertools.combinations(own.values(), 2):
        assert not np.shares_memory(a, b)

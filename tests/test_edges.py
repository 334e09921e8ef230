"""What somebody's network once got wrong: lengths, padding, saturation, strides, empty batches, bad arguments."""

import ctypes
import gc
import itertools
import mmap
import os
import platform
import re
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from cases import (
    CELLS,
    DTYPES,
    ISAS,
    PARTITIONS,
    PROJECTED,
    WITH_C,
    Data,
    Native,
    Reference,
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
from fastrnn import _core, functional

every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

DEEP = {"num_layers": 2, "bidirectional": True}
# Units: several vectors of any instruction set, and a part of one. Inputs: another number, likewise.
H, I, T, B = 37, 21, 9, 7  # noqa: E741
WAYS = [(1, "automatic"), (2, "automatic"), *itertools.product((2, 3), PARTITIONS), (5, "units")]


@pytest.fixture(params=ISAS)
def isa(request):
    _core.set_isa(request.param)
    return request.param


def share_work(threads, partition):
    fastrnn.set_num_threads(threads)
    _core.set_partition(partition)


def check_against_reference(assert_close, layer, data):
    exact, same = in_float64(layer), data.astype(np.float64)
    results, expected = train(layer, data), train(exact, same)
    assert_close("forward", layer.spec, len(data.x), results[0], expected[0])
    assert_close("backward", layer.spec, len(data.x), results[1], expected[1])
    return results


# ------------------------------------------------------------------------------------------------------------ lengths


@every_cell
def test_a_row_without_a_step(cell, isa, assert_close):
    layer = Native(cell, I, H, **DEEP)
    data = make_data(layer, 6, 3, lengths=np.array([3, 0, 5]))
    results, gradients = check_against_reference(assert_close, layer, data)
    for outputs in (results, infer(layer, data), infer(layer.prepare(), data)):
        assert not outputs["y"][:, 1].any()
        for name, initial in zip(("h_n", "c_n"), data.state, strict=False):
            assert np.array_equal(outputs[name][:, 1], initial[:, 1])
    assert not gradients["dx"][:, 1].any()
    for name, final in zip(("dh0", "dc0"), data.dstate, strict=False):
        assert np.array_equal(gradients[name][:, 1], final[:, 1])
    for name in results.keys() - {"h_n", "c_n"}:  # y and the tape end where their rows do
        assert not results[name][3:, 0].any()
        assert not results[name][:, 1].any()
        assert not results[name][5:, 2].any()
        assert results[name][4, 2].any()


@every_cell
def test_no_row_with_a_step(cell, isa):
    layer = Native(cell, I, H, **DEEP)
    data = make_data(layer, T, B, lengths=np.zeros(B, int))
    data.x[:] = data.dy[:] = np.nan
    for threads, partition in WAYS:
        share_work(threads, partition)
        results, gradients = train(layer, data)
        for outputs in (results, infer(layer, data)):
            assert not outputs["y"].any()
            for name, initial in zip(("h_n", "c_n"), data.state, strict=False):
                assert np.array_equal(outputs[name], initial)
        for name, final in zip(("dh0", "dc0"), data.dstate, strict=False):
            assert np.array_equal(gradients.pop(name), final)
        assert not any(gradient.any() for gradient in gradients.values())


@every_cell
def test_rows_in_any_order_of_length(cell, isa, assert_close):
    layer = Native(cell, I, H, **DEEP)
    rng = np.random.default_rng(1)
    for lengths in (np.arange(B), np.arange(B)[::-1] + 1, rng.permutation(B), rng.integers(3, size=B)):
        check_against_reference(assert_close, layer, make_data(layer, T, B, lengths=lengths))


@every_cell
def test_reverse_begins_at_a_rows_own_last_step(cell, isa):
    both, back = Native(cell, I, H, bidirectional=True), Native(cell, I, H)
    for name in back.parameters:
        back.parameters[name] = both.parameters[f"{name}_reverse"]
    lengths = [4, 9, 0, 1, 6, 9, 2]
    data = make_data(both, T, B, lengths=lengths)
    results, gradients = train(both, data)
    width = results["y"].shape[2] // 2
    for b, n in enumerate(lengths):
        row = data.rows(slice(b, b + 1))
        own = Data(
            row.x[:n][::-1],
            tuple(s[1:] for s in row.state),
            row.dy[:n, :, width:][::-1],
            tuple(s[1:] for s in row.dstate),
        )
        alone, down = train(back, own)
        assert np.array_equal(results["y"][:n, b, width:], alone["y"][::-1, 0])
        for name in ("h_n", "c_n")[: len(own.state)]:
            assert np.array_equal(results[name][1, b], alone[name][0, 0])
        for name in ("dh0", "dc0")[: len(own.state)]:
            assert np.array_equal(gradients[name][1, b], down[name][0, 0])


@every_cell
@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_is_never_read(cell, batch_first, isa):
    layer = Native(cell, I, H, **DEEP, dropout=0.3, batch_first=batch_first)
    lengths = np.array([3, 0, 9, 5, 1, 5, 8])
    data = make_data(layer, T, B, lengths=lengths)
    padding = np.arange(T)[:, None] >= lengths
    padding = padding.T if batch_first else padding
    for threads, partition in WAYS[1:4]:
        share_work(threads, partition)
        data.x[padding] = data.dy[padding] = 0
        clean = everything(layer, data)
        assert not clean["dx"][padding].any()
        assert not clean["y"][padding].any()
        for x, dy in [(np.nan, 0), (np.inf, 0), (0, 1), (0, np.nan), (0, -np.inf), (np.nan, np.nan)]:
            data.x[padding], data.dy[padding] = x, dy
            results = everything(layer, data)
            assert_same_bits(results, clean, f"with {x} in x and {dy} in dy")
            assert all(np.isfinite(array).all() for array in results.values())


def test_lengths_are_any_integers():
    layer = Native("gru", I, H)
    data = make_data(layer, T, 3, lengths=[4, 0, 9])
    expected = everything(layer, data)
    spread = np.full(6, 99)
    spread[::2] = data.lengths
    kinds = [np.dtype(kind) for kind in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u8")]
    for lengths in [(4, 0, 9), spread[::2], np.array([9, 0, 4])[::-1], *(np.array([4, 0, 9], kind) for kind in kinds)]:
        data.lengths = lengths
        assert_same_bits(everything(layer, data), expected, f"with lengths {lengths!r}")
    single = make_data(layer, T, None)
    single.lengths = 4
    expected = everything(layer, single)
    for lengths in (np.int64(4), np.array(4, "u1"), [4], np.array([4])):
        single.lengths = lengths
        assert_same_bits(everything(layer, single), expected, f"with lengths {lengths!r}")


# -------------------------------------------------------------------------------------------------- gradients, losses


@pytest.mark.parametrize("cell", ["gru", "gru_reset_before"])
@every_dtype
def test_recurrent_bias_of_the_gru(cell, dtype, isa, assert_close):
    layer = Native(cell, I, H, dtype=dtype)
    layer.parameters["bias_ih_l0"][:] = 0
    layer.parameters["bias_hh_l0"][:] = np.random.default_rng(2).normal(size=3 * H)
    gradients = check_against_reference(assert_close, layer, make_data(layer, T, B))[1]
    b_ih, b_hh = gradients["dbias_ih_l0"], gradients["dbias_hh_l0"]
    assert b_ih.all()
    assert b_hh.all()
    assert np.array_equal(b_ih[: 2 * H], b_hh[: 2 * H])
    if cell == "gru":  # r scales the recurrent part of n alone
        assert (b_ih[2 * H :] != b_hh[2 * H :]).all()
    else:
        assert np.array_equal(b_ih, b_hh)


@every_cell
def test_gradients_of_three_layers_and_both_directions(cell, isa, assert_close):
    layer = Native(cell, I, H, 3, bidirectional=True)
    data = make_data(layer, T, B)
    gradients = check_against_reference(assert_close, layer, data)[1]
    assert all(gradient.any() for gradient in gradients.values())
    assert {name: g.shape for name, g in gradients.items() if name[1:] in layer.parameters} == {
        f"d{name}": array.shape for name, array in layer.parameters.items()
    }


@pytest.mark.parametrize(("cell", "of"), [(cell, of) for cell in CELLS for of in ("yhc" if cell in WITH_C else "yh")])
@pytest.mark.parametrize("lengths", [None, [4, 9, 0]])
def test_loss_on_one_result_alone(cell, of, lengths, isa, assert_close):
    layer = Native(cell, I, H, **DEEP)
    data = make_data(layer, T, 3, lengths=lengths)
    exact, same = in_float64(layer), data.astype(np.float64)

    def gradients(network, data, of_others):
        tape = forward(network, data)[1]
        dy, *dstate = (d if k == of else of_others(d) for k, d in zip("yhc", (data.dy, *data.dstate), strict=False))
        return named(network.backward(tape, dy, as_state(tuple(dstate))))

    given = gradients(layer, data, lambda _: None)
    assert_same_bits(given, gradients(layer, data, np.zeros_like), "from zeros in the place of None")
    assert_close("backward", layer.spec, T, given, gradients(exact, same, lambda _: None))
    assert all(gradient.any() for gradient in given.values())


@every_cell
def test_loss_on_nothing(cell, isa):
    layer = Native(cell, I, H, **DEEP)
    gradients = named(layer.backward(forward(layer, make_data(layer, T, B))[1]))
    assert {name: g.shape for name, g in gradients.items() if name[1:] in layer.parameters} == {
        f"d{name}": array.shape for name, array in layer.parameters.items()
    }
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("cell", WITH_C)
def test_half_a_state(cell):
    """h0 without c0 and the other way round, in a tuple or in a list."""
    layer = Native(cell, I, H)
    data = make_data(layer, T, B)
    for given in itertools.product([True, False], repeat=2):
        state = tuple(a if g else np.zeros_like(a) for a, g in zip(data.state, given, strict=True))
        expected = everything(layer, Data(data.x, state, data.dy, data.dstate))
        for kind in (tuple, list):
            some = kind(a if g else None for a, g in zip(data.state, given, strict=True))
            y, final = layer(data.x, some)
            assert np.array_equal(y, expected["inferred y"])
            assert np.array_equal(final[1], expected["inferred c_n"])
            tape = layer.forward(data.x, some)[2]
            gradients = named(layer.backward(tape, data.dy, kind(data.dstate)))
            assert_same_bits(gradients, {name: expected[name] for name in gradients})


# ------------------------------------------------------------------------------------------------------ rows and bits


@every_cell
@every_dtype
@pytest.mark.parametrize("lengths", [None, [3, 0, 9, 5, 1, 5, 8]], ids=["full", "ragged"])
def test_bits_do_not_depend_on_threads(cell, dtype, lengths, isa):
    """Neither on how the work is shared out, nor on the call: weight gradients, too."""
    layer = Native(cell, I, 2 * H, **DEEP, dropout=0.3, dtype=dtype)
    data = make_data(layer, T, B, lengths=lengths)
    share_work(1, "automatic")
    expected = everything(layer, data)
    for threads, partition in WAYS:
        share_work(threads, partition)
        for _ in range(2):
            results = everything(layer, data)
            assert_same_bits(results, expected, f"with {threads} threads and partition {partition}")
        outputs = {f"inferred {name}": array for name, array in infer(layer.prepare(), data).items()}
        assert_same_bits(outputs, {name: expected[name] for name in outputs}, "when prepared")


@every_cell
@pytest.mark.parametrize("lengths", [None, [30, 0, 150, 77, 1, 149, 120]], ids=["full", "ragged"])
def test_bits_do_not_depend_on_chunks(cell, lengths, isa):
    """Of steps, for the products over time, whose size follows from how the work is shared and from T."""
    layer, steps = Native(cell, I, 3 * H), 150
    data = make_data(layer, steps, B, lengths=lengths)
    share_work(1, "automatic")
    expected = everything(layer, data)
    for threads, partition in WAYS[1:]:
        share_work(threads, partition)
        assert_same_bits(everything(layer, data), expected, f"with {threads} threads and partition {partition}")
        if lengths is None:
            for end in (1, 40, 131):
                y, _, tape = layer.forward(data.x[:end], as_state(data.state))
                assert np.array_equal(y, expected["y"][:end])
                assert np.array_equal(tape.gates(0, 0), expected["gates of layer 0 direction 0"][:end])


OF_ROWS = {"y": 1, "h_n": 1, "c_n": 1, "dx": 1, "dh0": 1, "dc0": 1}  # results that have an axis of rows, and which


def of_rows(layer, data, chosen=slice(None)):
    """What belongs to the rows alone, of some of them."""
    results, gradients = train(layer, data)
    return {name: a[:, chosen] for name, a in (results | gradients).items() if name in OF_ROWS or "layer" in name}


@every_cell
@every_dtype
def test_a_row_alone_has_the_bits_it_has_in_a_batch(cell, dtype, isa):
    layer = Native(cell, I, 2 * H, **DEEP, dtype=dtype)
    data = make_data(layer, T, 33, lengths=True)
    whole = of_rows(layer, data)
    for threads, partition in WAYS[::2]:
        share_work(threads, partition)
        for b, n in enumerate(data.lengths):
            row = data.rows(slice(b, b + 1))
            expected = {name: array[:, b : b + 1] for name, array in whole.items()}
            assert_same_bits(of_rows(layer, row), expected, f"in row {b} alone")
            row.x, row.dy, row.lengths = row.x[:n], row.dy[:n], None  # and without its padding
            shorter = {k: a if k.endswith(("_n", "0")) and "layer" not in k else a[:n] for k, a in expected.items()}
            assert_same_bits(of_rows(layer, row), shorter, f"in row {b} without padding")


@every_cell
def test_bits_do_not_depend_on_the_size_of_the_batch(cell, isa):
    """Each number of rows goes through tiles of its own."""
    layer = Native(cell, I, 2 * H)
    data = make_data(layer, T, 40)
    whole = of_rows(layer, data)
    for rows in (*range(1, 18), 23, 29, 30, 31, 32):
        for partition in PARTITIONS:
            share_work(2, partition)
            first = of_rows(layer, data.rows(slice(rows)))
            assert_same_bits(first, {name: a[:, :rows] for name, a in whole.items()}, f"in a batch of {rows}")


POISONED = ["x", "h0", "c0", "dy", "dh_n", "dc_n"]


@every_cell
@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_row_stays_alone(cell, poison, isa):
    layer = Native(cell, I, 2 * H, **DEEP)
    data = make_data(layer, T, B, lengths=[9, 7, 9, 3, 9, 0, 9])
    others = [0, 1, 3, 4, 5, 6]
    clean = of_rows(layer, data, others)
    for where in POISONED:
        poisoned = data.astype(data.x.dtype)
        places = dict(zip(POISONED, (poisoned.x, None, None, poisoned.dy, None, None), strict=True))
        places |= dict(zip(("h0", "c0"), poisoned.state, strict=False))
        places |= dict(zip(("dh_n", "dc_n"), poisoned.dstate, strict=False))
        if places[where] is None:
            continue
        places[where][1 if where in "xdy" else 0, 2] = poison
        for threads, partition in WAYS[1:4]:
            share_work(threads, partition)
            assert_same_bits(of_rows(layer, poisoned, others), clean, f"with {poison} in another row's {where}")


@every_cell
def test_nan_is_not_hidden(cell, isa):
    """From the step where it comes in, in its row, and in every gradient that it reaches."""
    layer = Native(cell, I, H)
    data = make_data(layer, T, B)
    data.x[3, 2, 1] = np.nan
    results, gradients = train(layer, data)
    assert np.isfinite(results["y"][:3, 2]).all()
    assert np.isnan(results["y"][3:, 2]).all()
    assert np.isnan(results["h_n"][0, 2]).all()
    assert np.isnan(gradients["dx"][: 4 if cell != "rnn_relu" else 0, 2]).all()
    assert np.isnan(gradients["dweight_ih_l0"]).any()


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "rnn_relu"])
def test_infinity_saturates(cell, isa, assert_close):
    layer = Native(cell, I, H)
    data = make_data(layer, T, B)
    data.x[3, 2, 1], data.x[4, 4, 2] = np.inf, -np.inf
    exact, same = in_float64(layer), data.astype(np.float64)
    results, expected = forward(layer, data)[0], forward(exact, same)[0]
    assert all(np.isfinite(array).all() for array in results.values())
    assert_close("forward", layer.spec, T, results, expected)


# ---------------------------------------------------------------------------------------------- saturation, denormals


@every_cell
@every_dtype
@pytest.mark.parametrize("size", [1.0, 17.0, 40.0, 89.0, 104.0, 750.0, 1e4, 1e30])
@pytest.mark.parametrize("through", ["x", "bias_ih", "bias_hh"])
def test_saturation(cell, dtype, size, through, isa):
    """Gates are what their functions are to the last few bits, and exactly 0 or ±1 where these round to that."""
    layer = Native(cell, 1, H, dtype=dtype)
    for array in layer.parameters.values():
        array[:] = 0
    signs = np.where(np.arange(H) % 2, 1, -1)
    into = layer.parameters["weight_ih_l0" if through == "x" else f"{through}_l0"]
    into[:] = (np.tile(signs, len(into) // H) * size).reshape(into.shape)
    if cell == "gru" and through == "bias_hh":  # what r is multiplied with must not lift it from among the denormals
        into[2 * H :] /= size
    data = make_data(layer, 3, 2, initial=False)
    data.x[:] = 1
    results, gradients = train(layer, data)
    expected, exact_gradients = train(in_float64(layer), data.astype(np.float64))
    limits = np.finfo(dtype)
    for name, array in results.items():
        if not name.startswith("gates"):  # of sums, the absolute error counts
            np.testing.assert_allclose(array, expected[name], rtol=8 * limits.eps, atol=8 * limits.eps, err_msg=name)
            continue
        rounded = expected[name].astype(dtype)
        flat = np.isin(rounded, [-1, 0, 1])
        assert np.array_equal(array[flat], rounded[flat]), name
        np.testing.assert_allclose(array, rounded, rtol=8 * limits.eps, atol=limits.tiny, err_msg=name)
    for name, gradient in gradients.items():
        assert np.isfinite(gradient).all() or not np.isfinite(exact_gradients[name].astype(dtype)).all(), name


@every_cell
def test_no_size_gives_a_nan(cell, isa):
    layer = Native(cell, I, H, **DEEP)
    for size in (40, 89, 1e4, 1e30 if cell != "rnn_relu" else 1e12):  # the products of relus would overflow
        data = make_data(layer, T, B)
        data.x *= size
        for sign in (-1, 1):
            layer.parameters["bias_ih_l0"][:] = sign * size
            assert all(np.isfinite(array).all() for array in everything(layer, data).values())


def denormal(dtype):
    return np.finfo(dtype).tiny / 1024


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru", "gru_reset_before"])
@every_dtype
def test_denormals_cost_nothing(cell, dtype, isa):
    layer = Native(cell, 64, 64, bias=False, dtype=dtype)
    usual = make_data(layer, 40, 4)
    tiny = usual.astype(dtype)
    tiny.x[:] = tiny.dy[:] = denormal(dtype)
    for array in (*tiny.state, *tiny.dstate):
        array[:] = denormal(dtype)
    assert tiny.x.all()
    fastrnn.set_num_threads(1)

    def seconds(data):
        begin = time.thread_time()  # other programs' share of the processor does not count
        everything(layer, data)
        return time.thread_time() - begin

    seconds(tiny)
    pairs = [(seconds(tiny), seconds(usual)) for _ in range(25)]
    best_tiny, best_usual = map(min, zip(*pairs, strict=True))
    assert best_tiny <= 2 * best_usual


@every_dtype
def test_denormals_count_as_zero(dtype, isa):
    """On every thread of a call: were it not so, the product of such an x and a large weight would not be 0."""
    layer = Native("rnn_tanh", 1, 2 * H, dtype=dtype)
    for array in layer.parameters.values():
        array[:] = 0
    layer.parameters["weight_ih_l0"][:] = 1 / np.finfo(dtype).tiny
    data = make_data(layer, T, B, initial=False)
    data.x[:] = denormal(dtype)
    data.dy[:], data.dstate = denormal(dtype), None
    for threads, partition in WAYS:
        share_work(threads, partition)
        assert not any(array.any() for array in everything(layer, data).values())


def denormals_are_alive():
    """Whether this thread's arithmetic keeps denormals, alone and in vectors."""
    single, double = np.full(64, 1e-30, np.float32), np.full(64, 1e-300)
    return bool(
        (single * np.float32(1e-10)).all()
        and (double * 1e-20).all()
        and (np.full(64, 1e-40, np.float32) * np.float32(1)).all()
        and 5e-324 * 1.0 > 0
    )


@pytest.mark.parametrize("partition", PARTITIONS)
def test_floating_point_mode_is_put_back(partition, isa):
    share_work(2, partition)
    layer = Native("lstm", I, H, **DEEP)
    data = make_data(layer, T, B)

    def work():
        modes = [denormals_are_alive()]
        fast = layer.prepare()
        for step in (partial(infer, fast), partial(infer, layer), partial(train, layer)):
            step(data)
            modes.append(denormals_are_alive())
        with pytest.raises(TypeError):
            layer(None)
        return [*modes, denormals_are_alive()]

    seen = [work()]
    threads = [threading.Thread(target=lambda: seen.append(work())) for _ in range(3)]
    threads.append(threading.Thread(target=lambda: seen.append([denormals_are_alive()])))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 5
    assert all(all(modes) for modes in seen)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_callers_rounding_does_not_matter(partition):
    """Nor that of the call that started a worker thread."""
    upward = {"x86_64": 0x800, "aarch64": 0x400000}[platform.machine()]
    library = ctypes.CDLL(None)
    layer = Native("lstm", I, H, **DEEP)
    data = make_data(layer, T, B)
    share_work(1, partition)
    expected = everything(layer, data)
    share_work(7, partition)
    before = library.fegetround()
    try:
        assert library.fesetround(upward) == 0
        rounded = everything(layer, data)
        assert library.fegetround() == upward
    finally:
        library.fesetround(before)
    assert_same_bits(rounded, expected)
    assert_same_bits(everything(layer, data), expected)


def test_a_denormal_state_passes_a_row_without_steps():
    layer = Native("lstm", I, H)
    data = make_data(layer, T, 2, lengths=[0, T])
    for array in (*data.state, *data.dstate):
        array[:, 0] = denormal("float32")
    results, gradients = train(layer, data)
    for array in (results["h_n"], results["c_n"], gradients["dh0"], gradients["dc0"]):
        assert np.array_equal(array[:, 0], np.full_like(array[:, 0], denormal("float32")))


# ---------------------------------------------------------------------------------------- calls that follow each other


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


# ---------------------------------------------------------------------------------------------------- memory of arrays


def in_every_second_place(a):
    whole = np.full([2 * n for n in a.shape], np.nan, a.dtype)
    view = whole[(slice(1, None, 2),) * a.ndim]
    view[...] = a
    return view


def reversed_in_memory(a):
    return np.flip(np.flip(a).copy())


def rotated_in_memory(a):
    order = np.roll(np.arange(a.ndim), 1)
    return a.transpose(order).copy().transpose(np.argsort(order))


def with_the_first_axes_swapped(a):
    return a if a.ndim < 2 else a.swapaxes(0, 1).copy().swapaxes(0, 1)


def inside_a_wider_array(a):
    whole = np.full((*a.shape[:-1], a.shape[-1] + 7), np.nan, a.dtype)
    whole[..., 3:-4] = a
    return whole[..., 3:-4]


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def unaligned(a):
    array = np.frombuffer(bytearray(a.nbytes + 1), a.dtype, offset=1).reshape(a.shape)
    array[...] = a
    assert not array.flags.aligned
    return array


def between_other_fields(a):
    """Strides that are no multiple of the size of an item."""
    records = np.zeros(a.shape, [("flag", "u1"), ("value", a.dtype), ("rest", "u2")])
    records["value"] = a
    return records["value"]


def aligned_between_other_fields(a):
    """Aligned, and yet, in float64, with strides that are no multiple of the size of an item."""
    records = np.zeros(a.shape, np.dtype([("value", a.dtype), ("rest", "u4")]))
    records["value"] = a
    return records["value"]


LAYOUTS = [
    in_every_second_place,
    reversed_in_memory,
    rotated_in_memory,
    with_the_first_axes_swapped,
    inside_a_wider_array,
    np.asfortranarray,
    read_only,
    unaligned,
    between_other_fields,
    aligned_between_other_fields,
]
every_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)


@every_cell
@every_layout
@every_dtype
def test_any_memory_will_do(cell, layout, dtype):
    """For x, dy, states, their gradients and the weights."""
    for options in ({}, {"batch_first": True, **DEEP}):
        layer = Native(cell, I, H, **options, dtype=dtype)
        for rows, lengths in ((3, None), (3, [9, 0, 4]), (1, None), (None, None)):
            data = make_data(layer, T, rows, lengths=lengths)
            expected = everything(layer, data)
            other = Native(cell, I, H, **options, dtype=dtype)
            other.parameters = {name: layout(array) for name, array in layer.parameters.items()}
            strange = Data(
                layout(data.x),
                tuple(map(layout, data.state)),
                layout(data.dy),
                tuple(map(layout, data.dstate)),
                lengths,
            )
            assert np.array_equal(strange.x, data.x)
            for threads, partition in [(1, "automatic"), (2, "rows"), (2, "units")]:
                share_work(threads, partition)
                assert_same_bits(everything(other, strange), expected)
                outputs = infer(other.prepare(), strange)
                assert_same_bits(outputs, {name: expected[f"inferred {name}"] for name in outputs})


@every_cell
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_broadcast_arrays(cell, axis):
    """Strides of 0 in x, dy, states and their gradients."""
    layer = Native(cell, I, H, bidirectional=True)
    data = make_data(layer, T, B)

    def broadcast(a):
        return np.broadcast_to(a[(slice(None),) * axis + (slice(1),)], a.shape)

    arrays = data.x, data.state, data.dy, data.dstate
    views = [tuple(map(broadcast, a)) if isinstance(a, tuple) else broadcast(a) for a in arrays]
    copies = [tuple(a.copy() for a in v) if isinstance(v, tuple) else v.copy() for v in views]
    for lengths in (None, [4, 9, 0, 1, 6, 9, 2]):
        expected = everything(layer, Data(*copies, lengths))
        for threads, partition in WAYS[1:4]:
            share_work(threads, partition)
            assert_same_bits(everything(layer, Data(*views, lengths)), expected)


@every_cell
def test_axes_of_one_with_any_stride(cell):
    strides = (52, -36, 1 << 40)  # of axes that nothing moves along
    for steps, rows, inputs in itertools.product((1, 4), (1, 3), (1, 5)):
        layer = Native(cell, inputs, H)
        data = make_data(layer, steps, rows)
        expected = everything(layer, data)
        ones = [stride if n == 1 else own for n, own, stride in zip(data.x.shape, data.x.strides, strides, strict=True)]
        data.x = np.lib.stride_tricks.as_strided(data.x, data.x.shape, ones)
        assert_same_bits(everything(layer, data), expected, f"at T, B, I = {steps}, {rows}, {inputs}")


# -------------------------------------------------------------------------------------------------------------- empty


@every_cell
@every_dtype
@pytest.mark.parametrize(("steps", "rows"), [(0, 3), (4, 0), (0, 0), (0, None), (2**40, 0)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_empty(cell, dtype, steps, rows, batch_first, isa):
    layer = Native(cell, I, H, **DEEP, dropout=0.3, batch_first=batch_first, dtype=dtype)
    out = 2 * (layer.spec.proj_size or H)
    axes = (steps,) if rows is None else (rows, steps) if batch_first else (steps, rows)
    given = [None] if steps > 4 else [None, 0 if rows is None else np.zeros(rows, int)]
    for lengths, (threads, partition) in itertools.product(given, WAYS[:4]):
        share_work(threads, partition)
        data = make_data(layer, min(steps, 4), rows, lengths=lengths)
        data.x, data.dy = np.zeros((*axes, I), dtype), np.zeros((*axes, out), dtype)
        results, gradients = train(layer, data)
        assert gradients["dx"].shape == data.x.shape
        for outputs in (results, infer(layer, data), infer(layer.prepare(), data)):
            assert outputs["y"].shape == data.dy.shape
            for name, initial in zip(("h_n", "c_n"), data.state, strict=False):
                assert outputs[name].shape == initial.shape
                assert np.array_equal(outputs[name], initial)
        for name, final in zip(("dh0", "dc0"), data.dstate, strict=False):
            assert np.array_equal(gradients[name], final)
        for name, array in layer.parameters.items():
            assert gradients[f"d{name}"].shape == array.shape
            assert not gradients[f"d{name}"].any()
        assert layer.forward(data.x)[2].gates(1, 1).shape == (*axes, layer.parameters["weight_hh_l0"].shape[0] // H, H)


# ------------------------------------------------------------------------------------------------- malformed arguments

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


# ------------------------------------------------------------------------------------------------------ sizes, memory


def spread(a, span, offset, whole):
    """A copy of an array with `span` elements from one place on the first axis to the next."""
    far = np.lib.stride_tricks.as_strided(whole[offset:], a.shape, (4 * span, 4 * a.shape[2], 4))
    far[...] = a
    return far


@pytest.mark.parametrize("batch_first", [False, True])
def test_strides_beyond_32_bits(batch_first):
    """In more address space than most machines have memory: nobody touches what lies between."""
    layer = Native("gru", I, H, batch_first=batch_first)
    data = make_data(layer, 3, 2)
    expected = everything(layer, data)
    span = 2**31 + 96
    size = 4 * (2 * span + 1024)
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
    try:
        whole = np.frombuffer(mmap.mmap(-1, size, flags=flags), np.float32)
    except OSError as error:
        pytest.skip(f"needs {size / 1e9:.0f} GB of address space: {error}")
    data.x, data.dy = spread(data.x, span, 0, whole), spread(data.dy, span, 512, whole)
    for threads, partition in WAYS[1:4]:
        share_work(threads, partition)
        assert_same_bits(everything(layer, data), expected)


def available_gigabytes():
    """What this process may still use, by /proc/meminfo and its control group."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    group = Path("/sys/fs/cgroup")
    try:
        quota, used = ((group / f"memory.{what}").read_text().strip() for what in ("max", "current"))
    except OSError:
        return available / 1e9
    return (available if quota == "max" else min(available, int(quota) - int(used))) / 1e9


@pytest.fixture
def memory(request):
    """Skips where there is less of it than the test's gigabytes."""
    needed, available = request.param, available_gigabytes()
    if available < needed:
        pytest.skip(f"needs {needed} GB of memory, has {available:.1f}")
    gc.collect()
    yield
    gc.collect()


LAST = slice(-5, None)
FAR = 2**31  # elements


@pytest.mark.slow
@pytest.mark.parametrize("memory", [12], indirect=True)
def test_more_elements_than_32_bits_count_on_the_tape(memory):
    steps, rows, units = 50, 170_000, 64
    layer = Native(PROJECTED, 1, units, proj_size=1)
    few = make_data(layer, steps, 5)
    expected, expected_gradients = train(layer, few)
    data = Data(
        *(np.zeros((steps, rows, 1), np.float32) for _ in "x"), None, np.zeros((steps, rows, 1), np.float32), None
    )
    data.x[:, LAST], data.dy[:, LAST] = few.x, few.dy
    few.state = few.dstate = None
    expected, expected_gradients = train(layer, few)
    results, gradients = train(layer, data)
    assert results["gates of layer 0 direction 0"].size > FAR
    for name, array in expected.items():
        assert np.array_equal(results[name][:, LAST], array), name
    for name, array in expected_gradients.items():
        if name in OF_ROWS:
            assert np.array_equal(gradients[name][:, LAST], array), name
        else:  # all other rows give exactly 0
            assert np.array_equal(gradients[name], array), name


@pytest.mark.slow
@pytest.mark.parametrize("memory", [10], indirect=True)
def test_more_elements_than_32_bits_count_in_y(memory):
    steps, rows, units = 200, 168_000, 64
    layer = Native("rnn_tanh", 1, units)
    few = make_data(layer, steps, 5, initial=False)
    x = np.zeros((steps, rows, 1), np.float32)
    x[:, LAST] = few.x
    y, h_n = layer(x)
    assert y.size > FAR
    expected = infer(layer, few)
    assert np.array_equal(y[:, LAST], expected["y"])
    assert np.array_equal(h_n[:, LAST], expected["h_n"])


@pytest.mark.slow
@pytest.mark.parametrize("memory", [10], indirect=True)
def test_more_elements_than_32_bits_count_in_dx(memory):
    steps, rows, inputs = 200, 168_000, 64
    layer = Native("rnn_tanh", inputs, 1)
    few = make_data(layer, steps, 5, initial=False)
    few.x[:] = few.x[:1, :1]
    few.dstate = None
    expected = train(layer, few)[1]
    y, _, tape = layer.forward(np.broadcast_to(few.x[:1, :1], (steps, rows, inputs)))
    dy = np.zeros_like(y)
    dy[:, LAST] = few.dy
    gradients = layer.backward(tape, dy)
    assert gradients.x.size > FAR
    assert np.array_equal(gradients.x[:, LAST], expected["dx"])
    assert np.array_equal(gradients.parameters["weight_ih_l0"], expected["dweight_ih_l0"])
    assert not gradients.x[:, : 5 - rows].any()


SHORT_OF_MEMORY = """
    import resource
    from pathlib import Path

    import numpy as np

    import fastrnn
    from fastrnn import _core

    fastrnn.set_num_threads(2)
    _core.set_partition("units")
    layer = fastrnn.LSTM(1, 64, num_layers=2, bidirectional=True, proj_size=1, dropout=0.5, seed=1)
    x = np.random.default_rng(0).normal(size=(5, 3, 1)).astype(np.float32)

    def work():
        y, (h, c) = layer(x)
        forward, _, tape = layer.forward(x, dropout_seed=1)
        grads = layer.backward(tape, forward)
        return [a.tobytes() for a in (y, h, c, forward, grads.x, *grads.parameters.values())]

    expected = work()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (128 << 20), resource.RLIM_INFINITY))
    narrow = fastrnn.LSTM(1, 64, proj_size=1)
    for what, call, steps, rows in (
        ("results", layer, 2, 1 << 20),
        ("results", layer, 1 << 45, 1),
        ("scratch", narrow, 1, 1 << 17),
        ("tape", layer.forward, 1 << 20, 2),
        ("all", layer.forward, 1 << 45, 1),
    ):
        try:
            call(np.broadcast_to(x[:1, :1], (steps, rows, 1)))
        except MemoryError:
            print("no", what)
        assert work() == expected
    fastrnn.set_num_threads(1000)  # whose stacks there is no room for
    assert work() == expected
    print(fastrnn.get_num_threads())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc/self/statm and a limit of address space")
def test_short_of_memory():
    """Calls that need more than there is raise MemoryError and leave no trace; others do with the threads there are."""
    code = textwrap.dedent(SHORT_OF_MEMORY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["no results", "no results", "no scratch", "no tape", "no all", "1000"]

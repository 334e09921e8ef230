"""NaN and infinity, saturation, denormals, and the floating-point mode of the caller."""

import ctypes
import platform
import threading
import time
from functools import partial

import numpy as np
import pytest

import fastrnn
from cases import (
    CELLS,
    DEEP,
    DTYPES,
    PARTITIONS,
    WAYS,
    B,
    H,
    I,
    Native,
    T,
    assert_same_bits,
    everything,
    forward,
    in_float64,
    infer,
    make_data,
    share_work,
    train,
)

every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


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
    assert np.isnan(gradients["dweight_ih_l0"]).any()
    expected = train(in_float64(layer), data.astype(np.float64))[1]["dx"]  # which relu, where it is flat, lets not pass
    assert np.isnan(expected[:4, 2]).any() == (cell != "rnn_relu")
    np.testing.assert_array_equal(np.isnan(gradients["dx"]), np.isnan(expected))


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != "rnn_relu"])
def test_infinity_saturates(cell, isa, assert_close):
    layer = Native(cell, I, H)
    data = make_data(layer, T, B)
    data.x[3, 2, 1], data.x[4, 4, 2] = np.inf, -np.inf
    exact, same = in_float64(layer), data.astype(np.float64)
    results, expected = forward(layer, data)[0], forward(exact, same)[0]
    assert all(np.isfinite(array).all() for array in results.values())
    assert_close("forward", layer.spec, T, results, expected)


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

"""Arrays of any memory layout, and of no elements."""

import itertools

import numpy as np
import pytest

from cases import (
    CELLS,
    DEEP,
    DTYPES,
    WAYS,
    B,
    Data,
    H,
    I,
    Native,
    T,
    assert_same_bits,
    everything,
    infer,
    make_data,
    share_work,
    train,
)

every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


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


@every_cell
def test_results_of_a_page_or_more_begin_with_a_cache_line(cell):
    network = Native(cell, 64, 64)
    x = np.ones((40, 1, 64), np.float32)
    kept = []
    for _ in range(20):  # one may be placed so by chance
        y, _, tape = network.forward(x)
        kept += [network(x)[0], y, network.backward(tape, y).x]
    assert all(a.nbytes >= 4096 and a.ctypes.data % 64 == 0 for a in kept)

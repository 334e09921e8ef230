"""Sequences of different lengths: rows without a step, any order, padding, where the reverse direction begins."""

import numpy as np
import pytest

from cases import (
    CELLS,
    DEEP,
    WAYS,
    B,
    Data,
    H,
    I,
    Native,
    T,
    assert_same_bits,
    check_against_reference,
    everything,
    infer,
    make_data,
    share_work,
    train,
)

every_cell = pytest.mark.parametrize("cell", CELLS)


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

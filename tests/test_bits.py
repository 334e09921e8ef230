"""Results do not depend on threads, chunks and other rows, to the last bit; a poisoned row stays alone."""

import numpy as np
import pytest

from cases import (
    CELLS,
    DEEP,
    DTYPES,
    OF_ROWS,
    PARTITIONS,
    WAYS,
    B,
    H,
    I,
    Native,
    T,
    as_state,
    assert_same_bits,
    everything,
    infer,
    make_data,
    share_work,
    train,
)

pytestmark = pytest.mark.alone  # the threads of a call meet at each step

every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


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


@pytest.mark.parametrize(("cell", "hidden"), [("lstm", 1536), ("rnn_tanh", 3072)])
def test_bits_do_not_depend_on_fetching_ahead(cell, hidden, isa):
    """What comes from memory is fetched ahead where there are rows enough to hide that."""
    layer = Native(cell, hidden, hidden)
    data = make_data(layer, 2, 40)
    share_work(2, "units")
    whole = of_rows(layer, data)
    few = of_rows(layer, data.rows(slice(5)))
    assert_same_bits(few, {name: a[:, :5] for name, a in whole.items()}, "in a batch of 5")


@every_dtype
def test_bits_do_not_depend_on_pairs_of_panels(dtype, isa):
    """In which the input product of long rows goes, where there are more than two of them."""
    layer = Native("rnn_tanh", 700, 10 * H, dtype=dtype)
    data = make_data(layer, 1, 40)
    for threads, partition in WAYS[:3]:
        share_work(threads, partition)
        whole = of_rows(layer, data)
        for rows in (1, 2, 3, 7, 29):
            few = of_rows(layer, data.rows(slice(rows)))
            assert_same_bits(few, {name: a[:, :rows] for name, a in whole.items()}, f"in a batch of {rows}")


@every_cell
@every_dtype
def test_bits_do_not_depend_on_packing(cell, dtype, isa):
    """A single step of one row reads the weights as they lie; in a batch, and with `prepare`, they are packed."""
    for inputs, hidden in ((1, 9), (3, 17), (65, 40), (130, 129)):
        layer = Native(cell, inputs, hidden, dtype=dtype)
        data = make_data(layer, 1, 5)
        one = data.rows(slice(1))
        for threads, partition in WAYS[:3]:
            share_work(threads, partition)
            whole, alone = of_rows(layer, data), of_rows(layer, one)
            assert_same_bits(alone, {name: a[:, :1] for name, a in whole.items()}, f"{inputs}, {hidden}")
            assert np.array_equal(layer.prepare()(one.x)[0], layer(one.x)[0])


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

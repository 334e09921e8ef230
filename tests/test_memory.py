"""Memory: none is lost over many calls, and none is taken that a call does not need."""

import gc
import itertools
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from cases import CELLS, DTYPES, Native, as_state, assert_same_bits, backward, forward, make_data, state_shapes
from fastrnn import _core

every_cell = pytest.mark.parametrize("cell", CELLS)
needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc/self/statm")
MEGABYTE = 1 << 20


def resident():
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(work, times):
    """By how many bytes the process grows while work(k) is done `times` times; a fifth as often before, to warm up.

    The least of three times, if the first is much: memory that is lost is lost each time, while a process that has run
    other libraries also grows by itself, once.
    """
    for k in range(times // 5):
        work(k)
    grown = []
    while len(grown) < 3 and min(grown, default=MEGABYTE) >= MEGABYTE:
        before = resident()
        for k in range(times):
            work(k)
        grown.append(resident() - before)
    return min(grown)


# --------------------------------------------------------------------------------------------------------- many calls


@needs_proc
@every_cell
def test_many_steps(cell):
    layer = Native(cell, 8, 16, bidirectional=True)
    fast = layer.prepare()
    data = make_data(layer, 1, 2)
    state = as_state(data.state)

    def work(k):
        layer(data.x, state)
        fast(data.x, state)

    assert growth(work, 10_000) < MEGABYTE


@needs_proc
def test_a_hundred_thousand_steps():
    fast = Native("lstm", 8, 16).prepare()
    carried = [np.zeros((1, 1, 8), np.float32), None]

    def work(k):
        carried[1] = fast(*carried)[1]

    assert growth(work, 100_000) < MEGABYTE


@needs_proc
@every_cell
def test_many_tapes(cell):
    """Of 40 kB each: 5000 that stayed would be 200 MB."""
    layer = Native(cell, 8, 16, 2, bidirectional=True, dropout=0.5)
    data = make_data(layer, 20, 4, lengths=True)

    def work(k):
        _, tape = forward(layer, data)
        if k % 2:
            backward(layer, tape, data)

    assert growth(work, 1000) < MEGABYTE


@needs_proc
def test_many_shapes():
    """10,000 of them, of 40 networks."""
    layers = [Native(cell, 1 + k, 3 + 2 * k) for cell in CELLS for k in range(6)]
    shapes = np.random.default_rng(0).permutation(10_000)

    def work(k):
        layer = layers[k % len(layers)]
        steps, rows = 1 + shapes[k] // 100, 1 + shapes[k] % 100 // 4
        x = np.zeros((steps, rows, layer.input_size), np.float32)
        if k % 5 == 0:
            y, _, tape = layer.forward(x)
            layer.backward(tape, y)
        else:
            layer(x)

    assert growth(work, 10_000) < 8 * MEGABYTE  # the allocator's unevenness; all that the calls took is 2 GB


@needs_proc
def test_many_layers_and_refusals():
    x = np.zeros((3, 2, 8), np.float32)

    def work(k):
        layer = Native("gru", 8, 32, bidirectional=True)
        fast = layer.prepare()
        fast(x)
        for call in (layer, layer.forward, fast):
            with pytest.raises(ValueError, match="lengths"):
                call(x, None, lengths=[9, 9])

    assert growth(work, 2000) < MEGABYTE


# ------------------------------------------------------------------------------------------------------ what is needed


@every_cell
@pytest.mark.parametrize("prepared", [False, True])
def test_scratch_of_inference_does_not_grow_with_time(cell, prepared):
    for threads in (1, 2):
        fastrnn.set_num_threads(threads)
        for hidden, rows in ((32, 1), (128, 16), (512, 4)):
            spec = Native(cell, 64, hidden, 3).spec
            some, many = (_core.forward_scratch(spec, steps, rows, False, prepared) for steps in (10_000, 1_000_000))
            assert some == many


@every_cell
@pytest.mark.parametrize("bidirectional", [False, True])
def test_scratch_of_training_does_not_grow_with_time(cell, bidirectional):
    """What does is on the tape, and backward needs two layers' gradients at most: here no layer lies below another."""
    for hidden, rows in ((32, 1), (128, 16), (512, 4)):
        spec = Native(cell, 64, hidden, 3, bidirectional=bidirectional).spec
        some, many = (_core.forward_scratch(spec, steps, rows, True, False) for steps in (10_000, 1_000_000))
        assert some == many
        spec = Native(cell, 64, hidden).spec
        some, many = (_core.backward_scratch(spec, steps, rows) for steps in (10_000, 1_000_000))
        assert some == many


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the kilobytes of Linux' ru_maxrss")
@every_cell
def test_inference_takes_no_more_than_its_results(cell):
    """A long sequence's gates are ten times its y, and never there at once."""
    program = f"""
        import resource
        import sys

        import numpy as np

        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from cases import Native

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

        layer = Native({cell!r}, 1, 24, 3)
        x = np.zeros((200_000, 1, 1), np.float32)
        layer(x[:5000])
        before = peak()
        y, _ = layer(x)
        print(peak() - before - y.nbytes)
    """
    code = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(code, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 4 * MEGABYTE


SAVED = {"rnn_tanh": 0, "rnn_relu": 0, "rnn_sigmoid": 0, "gru": 4}  # values a unit and step; for gru W_hn h + b_hn, too


@every_cell
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tape_holds_gates_c_and_h(cell, dtype):
    for layers, bidirectional in ((1, False), (1, True), (3, True)):
        layer = Native(cell, 21, 37, layers, bidirectional=bidirectional, dtype=dtype)
        steps, rows, directions = 50, 7, 1 + bidirectional
        spec = layer.spec
        width, *c = (shape[-1] for shape in state_shapes(spec))
        gates = len(layer.parameters["weight_hh_l0"]) // spec.hidden_size
        values = layers * directions * (SAVED.get(spec.cell, gates) * spec.hidden_size + sum(c) + width)
        needed = values * steps * rows * np.dtype(dtype).itemsize
        tape = layer.forward(np.zeros((steps, rows, 21), dtype))[2]
        pieces = layers * (2 * directions + 1)
        assert needed <= tape.nbytes <= needed + 64 * pieces
        assert layer.forward(np.zeros((0, rows, 21), dtype))[2].nbytes == 0


@every_cell
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("prepared", [False, True])
def test_scratch_of_inference_by_the_formula(cell, dtype, prepared):
    """README.md states it; here for one thread."""
    fastrnn.set_num_threads(1)
    itemsize = np.dtype(dtype).itemsize

    def whole(width):  # an odd number of lines of 64 bytes
        return (-(-width * itemsize // 64) | 1) * 64 // itemsize

    for hidden, inputs, (layers, directions) in itertools.product(
        (64, 256), (64, 320), ((1, 1), (3, 1), (1, 2), (2, 2))
    ):
        spec = Native(cell, inputs, hidden, layers, bidirectional=directions == 2, dtype=dtype).spec
        width, *c = (shape[-1] for shape in state_shapes(spec))
        gates = spec.parameter_shapes()[1][1][0] // hidden
        widest = max(inputs, directions * width) if layers > 1 else inputs
        packed = gates * hidden * (widest + width) + spec.proj_size * hidden
        state = 2 * whole(width) + sum(map(whole, c))
        if spec.proj_size or spec.cell == "gru_reset_before":
            state += whole(hidden)
        if spec.cell == "gru_reset_before":
            state += 3 * hidden
        between = 2 * width if layers > 1 and directions == 2 else 0
        for rows, steps in itertools.product((1, 64), (1, 100)):
            chunk = max(rows, min(steps * rows, 4096, max(8, 2**20 // (gates * hidden * itemsize))))
            values = chunk * (gates * hidden + whole(widest)) + rows * state + steps * rows * between
            stated = (values + (0 if prepared else packed)) * itemsize
            actual = _core.forward_scratch(spec, steps, rows, False, prepared)
            assert 0.95 * stated <= actual <= 1.05 * stated + 8192


@pytest.mark.parametrize("training", [False, True])
def test_scratch_is_what_calls_take(training):
    """The measure that other tests go by grows with what a call has to hold."""
    spec = Native("lstm", 64, 128, 2, bidirectional=True).spec
    sizes = [_core.forward_scratch(spec, 100, rows, training, False) for rows in (1, 16, 256)]
    assert 0 < sizes[0] < sizes[1] < sizes[2]
    assert _core.forward_scratch(spec, 100, 16, training, True) < sizes[1]  # the packed weights come with the call
    backwards = [_core.backward_scratch(spec, steps, 16) for steps in (1, 100, 10_000)]
    assert 0 < backwards[0] < backwards[1] < backwards[2]


# ---------------------------------------------------------------------------------------------------------- lifetimes


@every_cell
def test_a_tape_outlives_its_layer(cell):
    layer = Native(cell, 21, 37, 2, bidirectional=True)
    data = make_data(layer, 9, 7, lengths=True)
    results, tape = forward(layer, data)
    expected = backward(layer, tape, data)
    gates = results["gates of layer 1 direction 0"].copy()
    dy, dstate = data.dy, as_state(data.dstate)
    view = tape.gates(1, 0)
    del layer, data, results
    gc.collect()
    junk = [np.full((9, 7, 21), np.nan, np.float32) for _ in range(100)]  # takes the place of what was given up
    grads = fastrnn.functional.backward(tape, dy, dstate)
    assert_same_bits(grads.parameters, {name: expected[f"d{name}"] for name in grads.parameters})
    assert np.array_equal(grads.x, expected["dx"])
    del tape, junk
    gc.collect()
    junk = [np.full(view.shape, np.nan, np.float32) for _ in range(100)]
    assert np.array_equal(view, gates)
    del junk


def test_a_tape_keeps_x_and_the_weights_alive():
    layer = Native("gru", 5, 7)
    x = np.zeros((4, 3, 5), np.float32)
    seen = weakref.ref(x), weakref.ref(layer.parameters["weight_ih_l0"])
    tape = layer.forward(x)[2]
    assert tape.x is x
    del x, layer
    gc.collect()
    assert all(ref() is not None for ref in seen)
    del tape
    gc.collect()
    assert all(ref() is None for ref in seen)


def test_nothing_else_keeps_what_it_was_given():
    layer = Native("lstm", 5, 7, 2, bidirectional=True)
    fast = layer.prepare()
    data = make_data(layer, 4, 3, lengths=True)
    given = [data.x, data.dy, *data.state, *data.dstate, *layer.parameters.values(), layer.spec]
    counts = [sys.getrefcount(thing) for thing in given]
    for _ in range(10):
        tape = forward(layer, data)[1]
        backward(layer, tape, data)
        layer(data.x, as_state(data.state), lengths=data.lengths)
        fast(data.x, as_state(data.state), lengths=data.lengths)
        with pytest.raises(ValueError, match="c0"):
            layer(data.x, (data.state[0], data.state[1][:1]))
        with pytest.raises(ValueError, match="dc_n"):
            layer.backward(tape, data.dy, (data.dstate[0], data.dstate[1][:1]))
        del tape
    gc.collect()  # the errors' tracebacks
    assert [sys.getrefcount(thing) for thing in given] == counts


def test_tapes_end_with_their_last_reference():
    layer = Native("lstm", 5, 7)
    x = np.zeros((4, 3, 5), np.float32)
    gc.disable()
    try:  # no cycle holds them until a collection
        tapes = [layer.forward(x)[2] for _ in range(1000)]
        refs = [weakref.ref(tape) for tape in tapes]
        view = tapes[500].cells(0, 0)
        del tapes
        assert [k for k, ref in enumerate(refs) if ref() is not None] == [500]
        del view
        assert refs[500]() is None
    finally:
        gc.enable()

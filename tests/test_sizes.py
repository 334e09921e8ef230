"""More than 32 bits count, and more than there is memory for."""

import gc
import mmap
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cases import (
    OF_ROWS,
    PROJECTED,
    WAYS,
    Data,
    H,
    I,
    Native,
    assert_same_bits,
    everything,
    infer,
    make_data,
    share_work,
    train,
)


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

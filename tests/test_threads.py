"""Calls from many Python threads, across fork, at any number of threads, and with the settings of the environment."""

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import fastrnn
from cases import CELLS, PARTITIONS, Native, assert_same_bits, everything, forward, infer, make_data, train
from fastrnn import _core

pytestmark = pytest.mark.alone

PATIENCE = 30  # seconds after which a thread or a process that should have ended is taken to hang


@pytest.fixture(autouse=True)
def deadline():
    """A deadlock inside the kernels cannot be interrupted: show where every thread is, and end."""
    faulthandler.dump_traceback_later(8 * PATIENCE, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


def make(cell="lstm", seed=1, **options):
    layer = Native(cell, 21, 37, num_layers=2, bidirectional=True, seed=seed, **options)
    return layer, make_data(layer, 9, 7, seed=seed, lengths=True)


def in_threads(count, work):
    """work(k) in `count` threads that begin together; what each gave."""
    ready = threading.Barrier(count)

    def begin(k):
        ready.wait(PATIENCE)
        return work(k)

    with ThreadPoolExecutor(count) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(begin, k) for k in range(count)]]


# ------------------------------------------------------------------------------------------------------ Python threads


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("partition", ["automatic", *PARTITIONS])
def test_one_layer_in_many_threads(cell, partition):
    layer, data = make(cell, dropout=0.3)
    fast = layer.prepare()
    expected, prepared = everything(layer, data), infer(fast, data)
    fastrnn.set_num_threads(2)
    _core.set_partition(partition)

    def work(_):
        for _ in range(20):
            assert_same_bits(everything(layer, data), expected)
            assert_same_bits(infer(fast, data), prepared)

    in_threads(8, work)


@pytest.mark.parametrize("partition", ["automatic", *PARTITIONS])
def test_many_layers_in_many_threads(partition):
    """Each of another cell and with data of its own, so that what leaks from one call into another is seen."""
    layers = [make(CELLS[k % len(CELLS)], seed=k) for k in range(8)]
    expected = [everything(*pair) for pair in layers]
    fastrnn.set_num_threads(3)
    _core.set_partition(partition)

    def work(k):
        for _ in range(30):
            assert_same_bits(everything(*layers[k]), expected[k])

    in_threads(8, work)


def test_one_tape_in_many_threads():
    layer, data = make("gru")
    tape = forward(layer, data)[1]
    expected = layer.backward(tape, data.dy)
    _core.set_partition("units")

    def work(_):
        for _ in range(30):
            grads = layer.backward(tape, data.dy)
            assert_same_bits(grads.parameters, expected.parameters)
            assert np.array_equal(grads.x, expected.x)

    in_threads(8, work)


def test_where_other_programs_want_the_cores():
    """Threads that meet at every step would wait for the late one's turn, milliseconds each time."""
    fast = fastrnn.LSTM(64, 64, seed=0).prepare()
    x = np.zeros((100, 1, 64), np.float32)

    def seconds(threads):
        fastrnn.set_num_threads(threads)
        begin = time.perf_counter()
        for _ in range(2000):
            fast(x)
        return time.perf_counter() - begin

    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count())]
    try:
        time.sleep(0.2)
        alone = min(seconds(1) for _ in range(2))
        assert min(seconds(2) for _ in range(2)) < 6 * alone
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


def test_settings_may_change_during_calls():
    """Threads and partition: a call goes on as it began, and the next follows."""
    layer, data = make()
    by_isa = {}
    for isa in _core.available_isas():
        _core.set_isa(isa)
        by_isa[isa] = everything(layer, data)
    done = threading.Event()

    def change():
        k = 0
        while not done.is_set():
            k += 1
            fastrnn.set_num_threads(1 + k % 3)
            _core.set_partition(("automatic", *PARTITIONS)[k % 3])
            time.sleep(0.0002)

    changing = threading.Thread(target=change)
    changing.start()
    try:
        for isa in 5 * _core.available_isas():
            _core.set_isa(isa)
            for _ in range(20):
                assert_same_bits(everything(layer, data), by_isa[isa])
    finally:
        done.set()
        changing.join(PATIENCE)
    assert not changing.is_alive()


def test_prepared_keeps_its_instruction_set():
    layer, data = make()
    isas = _core.available_isas()
    expected, fast = {}, {}
    for isa in isas:
        _core.set_isa(isa)
        expected[isa], fast[isa] = infer(layer, data), layer.prepare()
    for current in isas:
        _core.set_isa(current)
        for isa in isas:
            assert_same_bits(infer(fast[isa], data), expected[isa])


def test_other_threads_run_during_a_call():
    """The kernels let go of the interpreter's lock."""
    layer = fastrnn.LSTM(256, 256)
    x = np.zeros((400, 32, 256), np.float32)
    fastrnn.set_num_threads(1)
    layer(x[:1])
    tape = layer.forward(x)[2]
    for call in (lambda: layer(x), lambda: layer.prepare()(x), lambda: layer.forward(x), lambda: layer.backward(tape)):
        spans = []

        def timed(call=call, spans=spans):
            begin = time.perf_counter()
            call()
            spans.append((begin, time.perf_counter()))

        thread = threading.Thread(target=timed)
        ticks = []
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.001)
        ((begin, end),) = spans
        assert end - begin > 0.02
        # well inside the call, away from the work in Python on both sides of it
        inside = [t for t in ticks if begin + 0.2 * (end - begin) < t < begin + 0.8 * (end - begin)]
        assert len(inside) >= 3


# ------------------------------------------------------------------------------------------------------------- settings


def test_the_number_of_threads_is_a_limit_at_run_time():
    layer, data = make()
    expected = everything(layer, data)
    for partition in PARTITIONS:
        _core.set_partition(partition)
        for n in (1, 2, 3, 8, 1, 17, 2):
            fastrnn.set_num_threads(n)
            assert fastrnn.get_num_threads() == n
            assert_same_bits(everything(layer, data), expected, f"with {n} threads")


def test_a_bad_number_of_threads_changes_nothing():
    fastrnn.set_num_threads(2)
    for n, error in [
        *((n, ValueError) for n in (0, -1, -(2**31), 4096, 2**31, 2**63, 2**70, 10**5000)),
        *((n, TypeError) for n in (None, True, 1.0, "2", [2], 2j, np.ones(1))),
    ]:
        with pytest.raises(error, match=r"^n must be"):
            fastrnn.set_num_threads(n)
        assert fastrnn.get_num_threads() == 2
    fastrnn.set_num_threads(np.uint8(3))
    assert fastrnn.get_num_threads() == 3
    fastrnn.set_num_threads(4095)
    assert fastrnn.get_num_threads() == 4095


def test_native_calls_are_counted():
    layer, data = make()
    fast = layer.prepare()
    tape = layer.forward(data.x)[2]
    for call, count in [
        (lambda: layer(data.x), 1),
        (lambda: fast(data.x), 1),
        (lambda: layer.forward(data.x), 1),
        (lambda: layer.backward(tape), 1),
        (lambda: train(layer, data), 2),
        (layer.prepare, 0),
        (lambda: in_threads(4, lambda _: [layer(data.x) for _ in range(25)]), 100),
    ]:
        before = fastrnn.native_calls()
        call()
        assert fastrnn.native_calls() == before + count
    before = fastrnn.native_calls()
    for refused in (layer, fast, layer.forward, layer.backward):
        with pytest.raises(TypeError):
            refused(None)
    assert fastrnn.native_calls() == before


REPORT = """
    import numpy as np

    import fastrnn

    layer = fastrnn.GRU(5, 37, num_layers=2, bidirectional=True, seed=1)
    x = np.random.default_rng(0).normal(size=(9, 7, 5)).astype(np.float32)
    y, _, tape = layer.forward(x)
    grads = layer.backward(tape, y)
    exact = fastrnn.reference.GRU(5, 37, num_layers=2, bidirectional=True, seed=1)(x)[0]
    assert np.abs(y - exact).max() < 1e-6
    config = fastrnn.show_config("dict")
    print(config["threads"], config["isa"])
"""


def run_alone(program, **environment):
    """A new process that must end well, without this one's settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FASTRNN_")}
    code = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(code, env=kept | environment, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    return done


def report(**environment):
    """(threads, instruction set, stderr) of a new process."""
    done = run_alone(REPORT, **environment)
    threads, isa = done.stdout.split()
    return int(threads), isa, done.stderr


def test_environment_sets_the_number_of_threads():
    usual = report()[0]
    assert 1 <= usual <= os.cpu_count()
    for n in (1, 3, 5):
        assert report(FASTRNN_NUM_THREADS=str(n)) == (n, _core.available_isas()[-1], "")
    for bad in ("0", "-1", "two", "2.5", "3x", "99999999999999999999"):
        threads, _, warning = report(FASTRNN_NUM_THREADS=bad)
        assert threads == usual
        assert "FASTRNN_NUM_THREADS" in warning
        assert len(warning.splitlines()) == 1


def test_environment_sets_the_instruction_set():
    for isa in _core.available_isas():
        assert report(FASTRNN_ISA=isa)[1:] == (isa, "")
    for bad in ("sse9", "avx", "AVX2 "):
        _, isa, warning = report(FASTRNN_ISA=bad)
        assert isa == _core.available_isas()[-1]
        assert "FASTRNN_ISA" in warning
        assert len(warning.splitlines()) == 1


def test_a_bad_instruction_set_changes_nothing():
    before = _core.isa()
    for bad in ("sse9", "", "AVX2 "):
        with pytest.raises(ValueError, match="name"):
            _core.set_isa(bad)
        with pytest.raises(ValueError, match="name"):
            _core.set_partition(bad)
    assert _core.isa() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs sched_setaffinity")
def test_affinity_is_respected():
    program = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import fastrnn
        print(fastrnn.get_num_threads())
    """
    assert run_alone(program).stdout == "1\n"


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two processors"
)
def test_a_worker_leaves_the_callers_processor():
    program = """
        import os
        import numpy as np
        import fastrnn
        from fastrnn import _core

        here, there, *_ = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {here})  # of this thread, and of those that it starts
        fastrnn.set_num_threads(2)
        _core.set_partition("units")
        layer = fastrnn.LSTM(16, 64, seed=1)
        x = np.ones((20, 2, 16), np.float32)
        before = set(os.listdir("/proc/self/task"))
        y = layer(x)[0]
        (worker,) = map(int, set(os.listdir("/proc/self/task")) - before)

        def place():
            with open(f"/proc/self/task/{worker}/stat") as stat:
                return int(stat.read().rpartition(")")[2].split()[36])

        assert place() == here, "it may not run anywhere else"
        for _ in range(20):
            os.sched_setaffinity(worker, {here})
            os.sched_setaffinity(worker, {here, there})
            assert np.array_equal(layer(x)[0], y)
            assert place() == there
            assert os.sched_getaffinity(worker) == {here, there}
    """
    run_alone(program)


# ----------------------------------------------------------------------------------------------------------------- fork

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def ends_well(pid):
    """Whether a child ends, and with status 0; one that hangs is killed."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status == 0
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


def forked(work):
    """The process id of a child that does the work and then ends, with status 0 if all went well."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forking with threads
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


@needs_fork
@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("used", [True, False], ids=["used", "unused"])
def test_a_child_computes_the_same(partition, used):
    layer, data = make()
    fastrnn.set_num_threads(3)
    _core.set_partition(partition)
    expected = everything(layer, data)
    tape = forward(layer, data)[1]
    gradients = layer.backward(tape, data.dy)
    fast = layer.prepare()
    if not used:  # with this many threads: the pool has yet to grow
        fastrnn.set_num_threads(11)

    def work():
        for _ in range(3):
            assert_same_bits(everything(layer, data), expected)
        assert_same_bits(layer.backward(tape, data.dy).parameters, gradients.parameters)  # of the parent's tape
        infer(fast, data)

    def work_and_fork():
        work()
        assert ends_well(forked(work))
        work()

    children = [forked(work) for _ in range(4)]
    assert [ends_well(pid) for pid in children] == [True] * 4
    assert ends_well(forked(work_and_fork))
    work()


@needs_fork
def test_fork_while_other_threads_compute():
    layer, data = make()
    fastrnn.set_num_threads(2)
    _core.set_partition("units")
    expected = everything(layer, data)
    done, failures = threading.Event(), []

    def compute():
        try:
            while not done.is_set():
                assert_same_bits(everything(layer, data), expected)
        except AssertionError as error:
            failures.append(error)

    def work():
        for _ in range(3):
            assert_same_bits(everything(layer, data), expected)

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        results = [ends_well(forked(work)) for _ in range(10)]
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures
    assert all(results)


def test_fork_during_the_first_call():
    """What is worked out once is never left half done in a child."""
    program = """
        import os
        import signal
        import sys
        import threading
        import time
        import numpy as np
        import fastrnn

        layer, x = fastrnn.LSTM(8, 64), np.zeros((5, 4, 8), np.float32)
        thread = threading.Thread(target=layer, args=(x,))
        thread.start()
        time.sleep(float(os.environ["DELAY"]))
        child = os.fork()
        if not child:
            signal.alarm(20)
            layer(x)
            os._exit(0)
        thread.join()
        sys.exit(os.waitpid(child, 0)[1])
    """
    for delay in range(10):
        run_alone(program, DELAY=str(2e-5 * delay))


def test_fork_while_masks_are_drawn():
    layer = fastrnn.LSTM(8, 4, num_layers=2, dropout=0.5)
    x, done = np.zeros((1, 1, 8), np.float32), threading.Event()

    def draw():
        while not done.is_set():
            layer.forward(x)

    threads = [threading.Thread(target=draw) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        results = [ends_well(forked(lambda: layer.forward(x))) for _ in range(20)]
    finally:
        done.set()
        for thread in threads:
            thread.join(PATIENCE)
    assert all(results)


def compute_bytes(layer, data, queue):
    results = everything(layer, data)
    queue.put([array.tobytes() for array in results.values()])


@needs_fork
def test_multiprocessing():
    layer, data = make()
    fastrnn.set_num_threads(2)
    _core.set_partition("units")
    expected = [array.tobytes() for array in everything(layer, data).values()]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    processes = [context.Process(target=compute_bytes, args=(layer, data, queue)) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's own, of forking with threads
        for process in processes:
            process.start()
    for _ in processes:
        assert queue.get(timeout=PATIENCE) == expected
    for process in processes:
        process.join(PATIENCE)
        assert process.exitcode == 0


def test_a_program_may_end_straight_after_a_call():
    program = """
        import numpy as np
        import fastrnn
        from fastrnn import _core

        fastrnn.set_num_threads(3)
        _core.set_partition("units")
        fastrnn.LSTM(8, 64)(np.zeros((50, 4, 8), np.float32))
    """
    for _ in range(3):
        assert run_alone(program).stderr == ""


@pytest.mark.parametrize("what", ["layer(x)", "layer.prepare()(x)", "layer.forward(x)", "layer.backward(tape)"])
def test_a_program_may_end_while_daemon_threads_compute(what):
    """What comes back from the kernels then has no interpreter to go on in."""
    program = f"""
        import threading
        import numpy as np
        import fastrnn

        layer, x = fastrnn.LSTM(8, 64), np.zeros((500, 4, 8), np.float32)
        tape = layer.forward(x)[2]
        begun = threading.Event()

        def work():
            while True:
                {what}
                begun.set()

        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        begun.wait()
    """
    for _ in range(3):
        assert run_alone(program).stderr == ""

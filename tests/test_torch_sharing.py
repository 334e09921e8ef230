"""Beside PyTorch's other operators and in its processes: threads, data loaders, multiprocessing, data parallelism."""

import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

import fastrnn  # noqa: E402
import fastrnn.torch  # noqa: E402
from fastrnn.torch import _threads  # noqa: E402
from test_memory import MEGABYTE, growth, needs_proc  # noqa: E402
from torch_cases import KINDS, OURS, flat, twins  # noqa: E402

pytestmark = pytest.mark.alone

HERE = Path(__file__).parent


def run(program, *arguments, timeout=120):
    """A program of its own; what it printed."""
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program), *arguments]
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def torch_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# -------------------------------------------------------------------------------------------------------------- threads


def test_pytorchs_threads_are_shared():
    """Where it computes with OpenMP, as all its own builds do."""
    openmp = "ATen parallel backend: OpenMP" in torch.__config__.parallel_info()
    assert _threads.share() == openmp


def test_no_more_threads_than_pytorch_may_use():
    """One thread: no other is started. Two: no more than PyTorch itself has started."""
    counts = run("""
        import os, torch, fastrnn, fastrnn.torch

        fastrnn.set_num_threads(2)
        layer, x = fastrnn.torch.LSTM(128, 128), torch.randn(50, 16, 128)

        def threads():
            return len(os.listdir("/proc/self/task"))

        torch.set_num_threads(1)
        before = threads()
        layer(x)[0].sum().backward()
        print(threads() - before)
        torch.set_num_threads(2)
        torch.randn(1000, 1000) @ torch.randn(1000, 1000)
        before = threads()
        for _ in range(20):
            layer(x)[0].sum()
        print(threads() - before)
    """)
    assert counts == ["0", "0"]


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_with_any_number_of_threads(kind, torch_threads):
    ours = OURS[kind](40, 64, 2, bidirectional=True)
    x = torch.randn(20, 16, 40, requires_grad=True)
    results = []
    for threads in (1, 2, 3):
        torch_threads(threads)
        fastrnn.set_num_threads(threads)
        found = flat(ours(x))
        results.append([*found, *torch.autograd.grad(found[0].square().sum(), [x, *ours.parameters()])])
    for found in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, results[0], strict=True))


def test_many_python_threads_beside_operators():
    """Layers and operators of PyTorch from many threads at once: right, and no deadlock."""
    ours = OURS["LSTM"](64, 64)
    linear, x = torch.nn.Linear(64, 64), torch.randn(50, 16, 64)
    with torch.no_grad():
        expected = linear(ours(x)[0])
    wrong = []

    def work():
        with torch.no_grad():
            for _ in range(30):
                if not torch.allclose(linear(ours(x)[0]), expected, atol=1e-6):
                    wrong.append(1)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_where_openmp_has_a_limit():
    """It may be less than what PyTorch was told."""
    for limit in ("1", "2", "9"):
        out = run(
            """
            import os, sys
            os.environ["OMP_THREAD_LIMIT"] = sys.argv[1]
            import torch, fastrnn, fastrnn.torch
            from fastrnn import _core

            fastrnn.set_num_threads(3)
            torch.set_num_threads(3)
            layer, x = fastrnn.torch.GRU(64, 64), torch.randn(30, 8, 64)
            _core.set_partition("units")
            many = layer(x)[0]
            _core.set_partition("automatic")
            fastrnn.set_num_threads(1)
            print(torch.equal(layer(x)[0], many))
            """,
            limit,
        )
        assert out == ["True"]


@needs_proc
def test_where_openmp_gives_fewer_threads_than_it_promised():
    """As it may with OMP_DYNAMIC: the call has the kernels' own, and raises an error where none can be started."""
    out = run("""
        import os, resource
        os.environ["OMP_DYNAMIC"] = "true"
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # no more than one thread
        import torch, fastrnn, fastrnn.torch
        from fastrnn import _core

        torch.set_num_threads(5)
        layer, x = fastrnn.torch.GRU(64, 64), torch.randn(30, 8, 64)
        fastrnn.set_num_threads(1)
        expected = layer(x)[0]
        _core.set_partition("units")
        fastrnn.set_num_threads(2)
        print(torch.equal(layer(x)[0], expected))
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        room = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 20), room[1]))  # no other thread's stack fits in
        fastrnn.set_num_threads(5)
        try:
            layer(x)
        except RuntimeError as error:
            print(str(error) == "fastrnn: no more threads can be started")
        resource.setrlimit(resource.RLIMIT_AS, room)
        print(torch.equal(layer(x)[0], expected))
    """)
    assert out == ["True", "True", "True"]


@pytest.mark.slow
def test_alternating_with_operators(torch_threads):
    """A layer and a linear layer in turns take no longer than the two alone: their threads do not wait for each other.

    The bound leaves room for a busy machine; bench/ratios.py has the exact figure. With two pools that spin against
    each other it takes up to twice as long.
    """
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    torch_threads(2)
    fastrnn.set_num_threads(2)
    layer, linear = OURS["LSTM"](256, 256), torch.nn.Linear(256, 256)
    x = torch.randn(100, 64, 256)

    def seconds(call):
        begin = time.perf_counter()
        for _ in range(5):
            call()
        return time.perf_counter() - begin

    with torch.inference_mode():
        ratios = []
        for _ in range(7):
            alone = seconds(lambda: layer(x)) + seconds(lambda: linear(x))
            ratios.append(seconds(lambda: linear(layer(x)[0])) / alone)
    assert sorted(ratios)[3] < 1.25


# ------------------------------------------------------------------------------------------------------------ processes


class Encoded(torch.utils.data.Dataset):
    """Data that a recurrent layer makes, in the loader's processes."""

    def __init__(self, layer):
        self.layer = layer

    def __len__(self):
        return 12

    def __getitem__(self, index):
        with torch.no_grad():
            return self.layer(torch.full((20, 4, 64), float(index)))[0]


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_data_loader(method):
    """Its workers are forked after the layer, and PyTorch's threads, have been used here."""
    layer = OURS["LSTM"](64, 64)
    here = [Encoded(layer)[k] for k in range(12)]
    torch.randn(500, 500) @ torch.randn(500, 500)
    loader = torch.utils.data.DataLoader(
        Encoded(layer), batch_size=None, num_workers=2, multiprocessing_context=method, timeout=60
    )
    for index, found in enumerate(loader):
        assert torch.equal(found, here[index])


def test_after_fork_with_threads():
    """A child that uses several threads has the core's own: OpenMP's have not survived."""
    out = run("""
        import os, torch, fastrnn, fastrnn.torch

        torch.set_num_threads(2)
        fastrnn.set_num_threads(2)
        layer, x = fastrnn.torch.GRU(128, 128), torch.randn(50, 16, 128)
        with torch.no_grad():
            here = layer(x)[0]
            child = os.fork()
            if child == 0:  # where PyTorch's own operators would wait for threads that are gone
                os._exit(0 if (layer(x)[0].numpy() == here.numpy()).all() else 1)
            print(os.waitpid(child, 0)[1], torch.equal(layer(x)[0], here))
    """)
    assert out == ["0", "True"]


def test_multiprocessing():
    """A module sent to another process by torch.multiprocessing shares its parameters, and runs there as here."""
    out = run(f"""
        import sys
        import torch, fastrnn.torch
        sys.path.insert(0, {str(HERE)!r})
        import torch_processes

        if __name__ == "__main__":
            layer = fastrnn.torch.LSTM(3, 4)
            layer.share_memory()
            x, parameters = torch.randn(5, 2, 3).share_memory_(), list(layer.parameters())
            before = layer(x)[0]
            gradients = torch.autograd.grad(before.square().sum(), parameters)
            results = [torch.zeros_like(t).share_memory_() for t in (before.detach(), *gradients)]
            context = torch.multiprocessing.get_context("spawn")
            child = context.Process(target=torch_processes.run_and_halve, args=(layer, x, results[0], results[1:]))
            child.start()
            child.join()
            twin = torch.nn.LSTM(3, 4)
            twin.load_state_dict(layer.state_dict())
            same = all(torch.equal(a, b) for a, b in zip(results, (before, *gradients), strict=True))
            print(child.exitcode, same)
            print(torch.equal(layer(x)[0], before), torch.allclose(layer(x)[0], twin(x)[0], atol=1e-6))
    """)
    assert out == ["0", "True", "False", "True"]


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_distributed_data_parallel(kind, tmp_path):
    """Two processes by gloo: the losses of torch.nn, step by step, and one set of weights in the end."""
    command = [sys.executable, "-W", "ignore", str(HERE / "torch_processes.py"), kind, str(tmp_path)]
    children = [
        subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for result in found:
        torch.testing.assert_close(result["fastrnn"], result["stock"])
        assert result["fastrnn"][-1] < 0.8 * result["fastrnn"][0]
        assert result["calls"] >= 2 * len(result["fastrnn"])
    for name, p in found[0]["weights"].items():
        assert torch.equal(p, found[1]["weights"][name])


# --------------------------------------------------------------------------------------------------------------- memory


@needs_proc
@pytest.mark.slow
def test_memory_of_training_at_ten_thousand_lengths():
    ours = OURS["LSTM"](8, 16, 2, dropout=0.1)
    optimizer = torch.optim.SGD(ours.parameters(), 1e-3)
    x = torch.randn(60, 4, 8)
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(1, 61, (10_000,), generator=generator).tolist()

    def work(k):
        optimizer.zero_grad()
        ours(x[: steps[k]], lengths=[steps[k], 1, 0, steps[k] // 2])[0].square().sum().backward()
        optimizer.step()

    assert growth(work, 10_000) < 2 * MEGABYTE


@needs_proc
@pytest.mark.parametrize("kind", KINDS)
def test_memory_of_calls(kind):
    _, ours = twins(kind, 8, 16)
    x = torch.randn(20, 4, 8)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, [20, 10, 5, 1])

    def work(k):
        with torch.inference_mode():
            ours(x)
            ours(packed)
        ours(x)

    assert growth(work, 2000) < MEGABYTE


@needs_proc
def test_memory_of_large_tapes():
    """Each is given back before the next call."""
    ours = OURS["GRU"](16, 128)
    x = torch.randn(80, 32, 16)

    def work(k):
        ours(x)[0].sum().backward()

    before = ours(x)[0]
    assert growth(work, 20) < 4 * MEGABYTE  # one has five
    before.sum().backward()

"""What the emulator cannot show: the CUDA kernels on a GPU. `make test-gpu` runs this; the suite does not.

The cases of tests/test_cuda.py and larger ones, against the reference in float64; the same bits again, as a CUDA graph
too; and small shapes under compute-sanitizer's memcheck, racecheck and synccheck.
"""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import cuda_runner
import cuda_toolkit
from cases import CELLS, Case
from conftest import hold_against, relative_error
from test_cuda import CASES, DTYPES, ON_GPU, SMALL, SMALL_RESIDENT, TYPES, check, comparable, make_call, on_gpu

LARGE = [
    Case(cell, hidden, inputs, batch, steps, layers, bidirectional=layers > 1, ragged=layers > 1)
    for cell in CELLS
    if cell != "rnn_relu"
    for hidden, inputs, batch, steps, layers in ((128, 64, 16, 100, 1), (256, 256, 64, 30, 2), (1024, 512, 3, 20, 1))
]
BATCH = 16  # cases a process
FLOAT32 = 1e-5  # the relative error that is allowed on a GPU, whatever the sizes


@pytest.fixture(scope="session")
def driver():
    """The driver for the GPU of this machine. Ends the run where there is no compiler or no GPU."""
    if missing := cuda_toolkit.missing():
        pytest.exit(f"test-gpu: no {' and no '.join(missing)} here: nothing was built, and nothing was run", 1)
    gpus = cuda_toolkit.build_for_gpu("fastrnn_cuda_driver")
    if not gpus:
        pytest.exit("test-gpu: there is no GPU here: the kernels were built, and nothing was run", 1)
    print(*gpus, sep="\n")
    return cuda_toolkit.FOR_GPU / "cuda" / "fastrnn_cuda_driver"


@pytest.fixture
def assert_near():
    """As everywhere, and in float32 within FLOAT32."""

    def hold_closer(which, dtype, spec, steps, results, expected):
        hold_against(which, dtype, spec, steps, results, expected)
        for name, array in results.items() if dtype == "float32" else ():
            assert relative_error(array, expected[name]) <= FLOAT32, name

    return hold_closer


def batches(cases, types=TYPES, **options):
    """Calls with what the reference makes of them, some at a time."""
    pairs = [pair for pair in itertools.product(cases, types) if comparable(*pair)]
    for i in range(0, len(pairs), BATCH):
        yield [make_call(case, dtype, **options) for case, dtype in pairs[i : i + BATCH]]


def hold(assert_near, driver, calls, under=()):
    results = cuda_runner.run([call for call, _ in calls], driver, under=under)
    for (call, expected), got in zip(calls, results, strict=True):
        check(assert_near, call, got, expected)


@pytest.mark.parametrize("options", [{}, {"strided": True}, {"graph": True}], ids=["plain", "strided", "graph"])
def test_parity(driver, assert_near, options):
    for calls in batches(CASES, **options):
        hold(assert_near, driver, calls)


@pytest.mark.parametrize("case", LARGE, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_large(driver, assert_near, case, dtype):
    hold(assert_near, driver, [make_call(case, dtype, graph=True)])


def has_clusters():
    command = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) >= 9


@pytest.mark.parametrize(("way", "blocks", "hidden", "types"), ON_GPU)
def test_ways(driver, assert_near, way, blocks, hidden, types):
    if way == "cluster" and not has_clusters():
        pytest.skip("needs a GPU of compute capability 9.0 or later")
    for calls in batches(on_gpu(hidden), types, way=way, blocks=blocks, graph=True):
        hold(assert_near, driver, calls)


@pytest.mark.parametrize("way", ["step_by_step", "one_sm", "cluster", "grid"])
def test_tf32(driver, way):
    """The switch is what makes float32 products less exact, and nothing else does."""
    if way == "cluster" and not has_clusters():
        pytest.skip("needs a GPU of compute capability 9.0 or later")
    case = Case("lstm", 64, 256, 16, 20)
    errors = []
    for dtype in ("float32", "tf32"):
        call, (_, expected, _) = make_call(case, dtype, way=way)
        ((_, forwards, _),) = cuda_runner.run([call], driver)
        errors.append(abs(forwards["y"] - expected["y"]).max())
    assert errors[0] < 1e-5 < errors[1] < 1e-2


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "synccheck"])
def test_compute_sanitizer(driver, assert_near, tool):
    sanitizer = cuda_toolkit.find("bin/compute-sanitizer") or cuda_toolkit.tool("compute-sanitizer")
    if not sanitizer:
        pytest.skip("needs compute-sanitizer, of the CUDA toolkit")
    calls = [make_call(case, dtype) for case, dtype in itertools.product(SMALL, DTYPES)]
    ways = [(way, blocks, case) for way, blocks, case in SMALL_RESIDENT if way != "cluster" or has_clusters()]
    calls += [
        make_call(case, dtype, way=way, blocks=blocks) for (way, blocks, case), dtype in itertools.product(ways, DTYPES)
    ]
    log = cuda_toolkit.ROOT / "build" / f"{tool}.log"
    hold(assert_near, driver, calls, (sanitizer, "--tool", tool, "--error-exitcode", "9", "--log-file", log))

"""The CUDA kernels against the reference, in the emulator: every cell, type and option.

In several orders of their threads, under sanitizers too. tests/cuda/gpu.py does the same on a GPU.
"""

import itertools
from functools import cache

import numpy as np
import pytest

import cuda_runner
from cases import CELLS, NEAR_A_KINK, PROJECTED, Case, Reference, covering, make_data, watched_kinks
from cuda_runner import Call

DTYPES = ("float32", "float64", "float16", "bfloat16")
TYPES = (*DTYPES, "tf32")  # float32 with products in TF32
FACTORS = {
    "cell": CELLS,
    "hidden": (1, 3, 17, 40),
    "inputs": (1, 4, 20),
    "batch": (1, 2, 5),
    "steps": (1, 2, 7),
    "layers": (1, 2, 3),
    "bidirectional": (False, True),
    "bias": (True, False),
    "batch_first": (False, True),
    "dropout": (0.0, 0.35),
    "initial": (True, False),
    "ragged": (False, True),
}
EXCLUDED = (
    {("cell", PROJECTED), ("hidden", 1)},
    {("dropout", 0.35), ("layers", 1)},
    {("hidden", 1), ("inputs", 1)},
)


def valid(**combination):
    return not any(pair <= combination.items() for pair in EXCLUDED)


CASES = [Case(**combination) for combination in covering(FACTORS, valid)]


def comparable(case, dtype):
    """Among many relus rounded to 16 bits, one always lies at its kink."""
    relus = case.hidden * (case.batch or 1) * case.steps * case.layers * (1 + case.bidirectional)
    return case.cell != "rnn_relu" or relus <= {"float16": 1000, "tf32": 1000, "bfloat16": 150}.get(dtype, 10**5)


# For the sanitizers: little of everything.
SMALL = [Case(cell, 5, 3, 3, 3, 2, bidirectional=True, dropout=0.35, ragged=True) for cell in CELLS]


@pytest.fixture(scope="module")
def programs():
    folder = cuda_runner.build()
    if isinstance(folder, str):
        pytest.skip(folder)
    return folder


def make_call(case, dtype, **options):
    """Data with no relu at its kink, as far as rounding in this type reaches; and what the reference makes of them."""
    near = NEAR_A_KINK * {"float16": 2**10, "tf32": 2**10, "bfloat16": 2**13}.get(dtype, 1)
    if dtype == "tf32":
        dtype, options["tf32"] = "float32", True
    for seed in itertools.count():
        layer = case.network(Reference, "float64")
        call = Call(layer, case.data(layer, seed), dtype, **options)
        with watched_kinks() as kinks:
            expected = call.expected()
        if kinks.nearest > near:
            break
    return call, expected


@cache
def small_calls():
    return [make_call(case, dtype) for case, dtype in itertools.product(SMALL, DTYPES)]


def check(assert_near, call, results, expected):
    for which, got, wanted in zip(("forward", "forward", "backward"), results, expected, strict=True):
        assert_near(which, "tf32" if call.tf32 else call.dtype, call.layer.spec, call.shape[0], got, wanted)


@pytest.mark.parametrize(
    ("case", "dtype"),
    [pytest.param(*p, id="-".join(map(str, p))) for p in itertools.product(CASES, DTYPES) if comparable(*p)],
)
def test_parity(programs, assert_near, case, dtype):
    number = CASES.index(case)
    call, expected = make_call(case, dtype, strided=number % 2 == 1)
    order = (("forward",), ("reverse",), ("random", "--seed", str(number)))[number % 3]
    (results,) = cuda_runner.run([call], programs / "cuda_driver_plain", "--order", *order)
    check(assert_near, call, results, expected)


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        ("plain", ("forward",)),
        ("plain", ("reverse",)),
        *(("plain", ("random", "--seed", str(seed))) for seed in (1, 2, 3)),
        ("address", ("forward",)),
        ("address", ("random", "--seed", "4")),
        ("thread", ("forward",)),
        ("thread", ("random", "--seed", "5")),
    ],
    ids=lambda value: value if isinstance(value, str) else "".join(value),
)
def test_orders_and_sanitizers(programs, assert_near, mode, order):
    calls = [call for call, _ in small_calls()]
    results = cuda_runner.run(calls, programs / f"cuda_driver_{mode}", "--order", *order)
    for (call, expected), got in zip(small_calls(), results, strict=True):
        check(assert_near, call, got, expected)


# The ways with W_hh on chip, with fewer rows than a block takes, more, and enough for several teams of blocks; units
# that the blocks share evenly, or not.
RESIDENT = [
    (way, blocks, case)
    for cell in CELLS
    if cell != PROJECTED
    for way, blocks, case in (
        ("one_sm", 1, Case(cell, 16, 3, 3, 4, 2, bidirectional=True, dropout=0.35, ragged=True)),
        ("one_sm", 1, Case(cell, 37, 5, 11, 3, bias=False, initial=False)),
        ("cluster", 2, Case(cell, 37, 3, 3, 4, 2, bidirectional=True, dropout=0.35, ragged=True)),
        ("cluster", 4, Case(cell, 16, 5, 11, 3, bias=False, initial=False)),
        ("grid", 3, Case(cell, 37, 3, 3, 4, 2, bidirectional=True, dropout=0.35, ragged=True)),
        ("grid", 4, Case(cell, 70, 5, 11, 3, bias=False, initial=False)),
    )
]
SMALL_RESIDENT = [
    (way, blocks, Case(cell, 9, 2, 3, 3, ragged=True))
    for cell in CELLS
    if cell not in (PROJECTED, "rnn_relu", "rnn_sigmoid")  # which wait for one another as rnn_tanh does
    for way, blocks in (("one_sm", 1), ("cluster", 2), ("grid", 3))
]


@cache
def resident_calls(small):
    if small:
        pairs = itertools.product(SMALL_RESIDENT, ("float32", "float16"))
    else:  # TF32 is of the products alone, of which there is one or, in gru_reset_before, two in a step
        in_tf32 = [each for each in RESIDENT if each[2].cell in ("lstm", "gru_reset_before")]
        pairs = itertools.chain(itertools.product(RESIDENT, DTYPES), itertools.product(in_tf32, ["tf32"]))
    return [
        make_call(case, dtype, way=way, blocks=blocks)
        for (way, blocks, case), dtype in pairs
        if comparable(case, dtype)
    ]


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        ("plain", ("forward",)),
        ("plain", ("reverse",)),
        ("plain", ("random", "--seed", "6")),
        ("address", ("random", "--seed", "7")),
        ("thread", ("forward",)),
        ("thread", ("random", "--seed", "8")),
    ],
    ids="".join,
)
def test_resident(programs, assert_near, mode, order):
    pairs = resident_calls(small=mode == "thread")
    results = cuda_runner.run([call for call, _ in pairs], programs / f"cuda_driver_{mode}", "--order", *order)
    for (call, expected), got in zip(pairs, results, strict=True):
        check(assert_near, call, got, expected)


# By the numbers of cuda/plan.h's Device: shared memory of a block, SMs, blocks in a cluster, threads in a block.
GPUS = {"A100": (166912, 108, 1, 256), "H100": (232448, 132, 16, 256), "B200": (232448, 148, 16, 256)}
# What tests/cuda/gpu.py runs on such a GPU, and in which types it fits: ways, blocks (0 is the plan's choice), units.
ON_GPU = [
    ("one_sm", 1, 40, TYPES),
    ("cluster", 2, 70, TYPES),
    ("cluster", 8, 96, TYPES),
    ("cluster", 16, 128, TYPES),
    ("grid", 3, 70, TYPES),
    ("grid", 0, 200, ("float32", "tf32")),
    ("grid", 0, 300, ("float16", "bfloat16")),
]


def on_gpu(hidden):
    """The cases for so many units."""
    return [
        case
        for cell in CELLS
        if cell not in (PROJECTED, "rnn_relu")
        for case in (
            Case(cell, hidden, 20, 11, 40, 2, bidirectional=True, dropout=0.35, ragged=True),
            Case(cell, hidden, 20, 40, 40, bias=False, initial=False),
        )
    ]


def emulate(monkeypatch, *device):
    monkeypatch.setenv("EMULATED_DEVICE", " ".join(map(str, device)))


@pytest.mark.parametrize("gpu", GPUS)
def test_a_gpu_serves_what_is_tested_there(programs, monkeypatch, gpu):
    module = cuda_runner.load_module()
    emulate(monkeypatch, *GPUS[gpu])
    names = {"one_sm": ", one SM ", "cluster": ", cluster ", "grid": ", grid "}
    for way, blocks, hidden, types in ON_GPU:
        if way == "cluster" and gpu == "A100":
            continue
        in_memory = [dtype for dtype in types if dtype in DTYPES]  # TF32 is float32 there
        for case, dtype in itertools.product(on_gpu(hidden), in_memory):
            options = case.layers, True, False, 0.0, case.bidirectional, 0
            network = module.Network(case.cell, case.inputs, hidden, *options, dtype)
            for backward in (False, True):
                lines = module.explain_plan(network, case.steps, case.batch, backward).splitlines()
                served = [line for line in lines if names[way] in line]
                if way == "cluster":
                    served = [line for line in served if f"; {blocks} blocks " in line]
                assert len({line[: len("layer 0")] for line in served}) == case.layers, (way, case, dtype, backward)


@pytest.mark.parametrize(
    ("way", "blocks", "case"),
    [
        ("one_sm", 1, Case("lstm", 37, 5, 11, 3)),
        ("cluster", 2, Case("gru", 70, 5, 11, 3, ragged=True)),
        ("grid", 4, Case("lstm", 70, 5, 19, 3, ragged=True)),
        ("grid", 0, Case("gru_reset_before", 70, 5, 11, 3)),
    ],
)
def test_blocks_of_as_many_threads_as_on_a_gpu(programs, assert_near, monkeypatch, way, blocks, case):
    emulate(monkeypatch, 232448, 12, 4, 256)
    pairs = [make_call(case, dtype, way=way, blocks=blocks) for dtype in ("float32", "float16", "tf32")]
    results = cuda_runner.run([call for call, _ in pairs], programs / "cuda_driver_plain", "--order", "reverse")
    for (call, expected), got in zip(pairs, results, strict=True):
        check(assert_near, call, got, expected)


def test_a_way_that_does_not_serve_the_sizes_is_refused(programs):
    for way, case in (
        ("one_sm", Case("lstm", 256, 3, 2, 2)),
        ("one_sm", Case(PROJECTED, 16, 3, 2, 2)),
        ("cluster", Case("lstm", 600, 3, 2, 2)),
        ("grid", Case("gru", 2, 3, 2, 2)),
    ):
        layer = case.network(Reference, "float64")
        call = Call(layer, make_data(layer, 2, 2), "float64", way=way)
        with pytest.raises(RuntimeError, match="this way does not serve these sizes here"):
            cuda_runner.run([call], programs / "cuda_driver_plain")


@pytest.mark.parametrize("cell", CELLS)
def test_the_order_of_threads_changes_no_bit(programs, cell):
    layer = Case(cell, 33, 7, 4, 5, 2, bidirectional=True, ragged=True).network(Reference, "float64")
    data = make_data(layer, 5, 4, lengths=True)
    ways = ["automatic"] if cell == PROJECTED else ["step_by_step", "one_sm", "cluster", "grid"]
    calls = [Call(layer, data, "float32", way=way) for way in ways]
    orders = (("forward",), ("reverse",), ("random", "--seed", "7"))
    runs = [cuda_runner.run(calls, programs / "cuda_driver_plain", "--order", *order) for order in orders]
    for other in runs[1:]:
        for group, same in zip(itertools.chain(*runs[0]), itertools.chain(*other), strict=True):
            assert all(np.array_equal(array, same[name]) for name, array in group.items())


@pytest.mark.parametrize(("way", "hidden"), [("step_by_step", 3), ("one_sm", 16), ("cluster", 8), ("grid", 8)])
@pytest.mark.parametrize("ragged", [False, True])
def test_many_steps(programs, assert_near, way, hidden, ragged):
    """More than one product with W_ih takes."""
    case = Case("lstm", hidden, 2, 9, 1000, bidirectional=True, ragged=ragged)
    call, expected = make_call(case, "float32", way=way)
    (results,) = cuda_runner.run([call], programs / "cuda_driver_plain")
    check(assert_near, call, results, expected)


@pytest.mark.parametrize("cell", CELLS)
def test_no_steps_and_no_rows(programs, assert_near, cell):
    for steps, rows in ((0, 3), (4, 0)):
        layer = Case(cell, 5, 3, rows, steps, 2, bidirectional=True).network(Reference, "float64")
        call = Call(layer, make_data(layer, steps, rows), "float32")
        (results,) = cuda_runner.run([call], programs / "cuda_driver_address")
        check(assert_near, call, results, call.expected())


def poisoned(data, lengths):
    """NaN past each row's length."""
    for row, length in enumerate(lengths):
        data.x[length:, row] = data.dy[length:, row] = np.nan


@pytest.mark.parametrize("cell", CELLS)
def test_padding_is_never_read(programs, cell):
    layer = Case(cell, 6, 4, 4, 5, 2, bidirectional=True).network(Reference, "float64")
    lengths = [3, 0, 5, 1]
    plain = make_data(layer, 5, 4, lengths=lengths)
    nan = make_data(layer, 5, 4, lengths=lengths)
    poisoned(nan, lengths)
    runs = [cuda_runner.run([Call(layer, data, "float32")], programs / "cuda_driver_plain")[0] for data in (plain, nan)]
    for group, same in zip(*runs, strict=True):
        assert all(np.array_equal(array, same[name]) for name, array in group.items())
    y, dx = runs[1][1]["y"], runs[1][2]["dx"]
    for row, length in enumerate(lengths):
        assert not y[length:, row].any()
        assert not dx[length:, row].any()


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("absent", ["dy", "dstate"])
def test_gradients_may_be_absent(programs, assert_near, cell, absent):
    layer = Case(cell, 6, 4, 3, 4, 2).network(Reference, "float64")
    data = make_data(layer, 4, 3)
    setattr(data, absent, None)
    call = Call(layer, data, "float32")
    (results,) = cuda_runner.run([call], programs / "cuda_driver_plain")
    check(assert_near, call, results, call.expected())


@pytest.mark.parametrize("cell", CELLS)
def test_large_pre_activations(programs, cell):
    layer = Case(cell, 6, 4, 3, 4).network(Reference, "float64")
    data = make_data(layer, 4, 3, initial=False)
    data.x[:] = np.where(data.x > 0, 3e4, -3e4)
    for dtype in DTYPES:
        (results,) = cuda_runner.run([Call(layer, data, dtype)], programs / "cuda_driver_plain")
        if cell != "rnn_relu":
            assert np.abs(results[0]["y"]).max() <= 1 + 2.0 * (cell == PROJECTED)
        assert all(np.isfinite(array).all() for name, array in results[0].items() if cell != "rnn_relu")


@pytest.mark.parametrize("cell", CELLS)
def test_nan_stays_in_its_row(programs, cell):
    layer = Case(cell, 6, 4, 3, 4, 2, bidirectional=True).network(Reference, "float64")
    data = make_data(layer, 4, 3)
    data.x[2, 1] = np.nan
    (results,) = cuda_runner.run([Call(layer, data, "float32")], programs / "cuda_driver_plain")
    assert np.isnan(results[0]["y"][:, 1]).any()
    assert np.isfinite(results[0]["y"][:, [0, 2]]).all()
    assert np.isfinite(results[2]["dx"][:, [0, 2]]).all()

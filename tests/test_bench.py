"""The benchmark: it measures what it says, does not time wrong answers, and its results can be read and drawn."""

import importlib.util
import inspect
import json
import math
import os
import re
import statistics
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import conftest
import fastrnn
from fastrnn import _core

BENCH = Path(__file__).parents[1] / "bench"
FILES = [path.stem for path in BENCH.glob("*.py") if path.stem not in ("plot", "keras_steps")]
CELLS = ["lstm", "gru", "gru_reset_before", "rnn_tanh", "rnn_relu", "rnn_sigmoid"]
MODES = ["inference", "training", "streaming", "inference-lengths", "training-lengths"]
PACKED, TAKE_PACKED = ["inference-packed", "training-packed"], ["pytorch", "fastrnn-torch"]
LIBRARIES = {  # the module by which each is found to be missing
    "fastrnn-torch": "torch",
    "fastrnn-onnx": "onnxruntime",
    "fastrnn-jax": "jax",
    "pytorch": "torch",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "jax": "jax",
    "tensorflow": "tensorflow",
}
OWN = ["fastrnn", "fastrnn-prepared", "reference"]  # need nothing else
PEERS = [*OWN, *LIBRARIES]
STEPS, BATCH, INPUT, HIDDEN = 5, 3, 6, 8


def without_matplotlib():
    return importlib.util.find_spec("matplotlib") is None


needs_matplotlib = pytest.mark.skipif(without_matplotlib(), reason="matplotlib is missing: pip install fastrnn[plot]")


@pytest.fixture(scope="module")
def bench():
    """The benchmark's modules by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCH)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in [*FILES, "peers"]})


@pytest.fixture(scope="module")
def effort(bench):
    return bench.timing.Effort(block_seconds=1e-4, min_blocks=4, max_blocks=4, pause=0, awake_seconds=0)


@pytest.fixture
def case(bench):
    def make(cell="lstm", mode="inference", dtype="float32"):
        return bench.grid.Case(cell, mode, bench.grid.Shape(BATCH, HIDDEN, INPUT), STEPS, dtype)

    return make


@pytest.fixture(scope="module")
def document(bench, effort):
    """Results of all cells and modes, of fastrnn and the reference."""
    chosen = bench.grid.cases(CELLS, MODES, bench.grid.shapes("1x7 3x6x8"), STEPS, "float32")
    peers = {name: bench.peers.load(name, 1) for name in OWN}
    return bench.compare.compare(chosen, peers, {"pytorch": "gone"}, 1, effort, lambda *_, **__: None)


@pytest.fixture
def rivalled(bench, document):
    """The same with made-up results of two libraries: one is the best in inference, the other is alone in training."""
    document = json.loads(json.dumps(document))
    for name, slower in {"pytorch": 3.0, "onnxruntime": 2.0}.items():
        document["peers"][name] = {"label": bench.peers.REGISTRY[name].label, "version": "1"}
        for case in document["cases"]:
            if name == "pytorch" or not case["mode"].startswith("training"):
                results = case["results"]
                times = ("median", "q1", "q3")
                results[name] = results["fastrnn"] | {key: slower * results["fastrnn"][key] for key in times}
                for ours, gains in case["speedup"].items():
                    gains[name] = results[name]["median"] / results[ours]["median"]
    return document


# ---------------------------------------------------------------------------------------------------------- figures


def test_document(document):
    document = json.loads(json.dumps(document))
    assert document["format"] == 3
    assert document["complete"]
    assert document["fastrnn"]["version"] == fastrnn.__version__
    assert document["fastrnn"]["isa"] == fastrnn.show_config("dict")["isa"]
    assert {"compiler", "commit"} <= document["fastrnn"].keys()
    assert {"cpu", "cores", "processors", "os", "python"} <= document["machine"].keys()
    assert (document["settings"]["threads"], document["settings"]["steps"]) == (1, STEPS)
    for name in ("peak", "meeting"):
        values = [case[name] for case in document["cases"]]
        assert document[name] == {"median": statistics.median(values), "least": min(values), "most": max(values)}
    assert document["missing"] == {"pytorch": "gone"}
    assert document["peers"]["reference"]["version"] == np.__version__
    cases = [(case["mode"], case["cell"], case["batch"], case["input"], case["hidden"]) for case in document["cases"]]
    assert len(set(cases)) == len(cases) == len(CELLS) * len(MODES) * 2


def test_arithmetic(document):
    for case in document["cases"]:
        results = case["results"]
        prepared = [] if case["mode"].startswith("training") else ["fastrnn-prepared"]
        assert list(results) == ["fastrnn", *prepared, "reference"]
        for result in results.values():
            assert len(result["readings"]) == 4
            assert result["calls"] >= 1
            assert result["median"] == pytest.approx(statistics.median(result["readings"]))
            assert (
                min(result["readings"]) <= result["q1"] <= result["median"] <= result["q3"] <= max(result["readings"])
            )
            assert result["flops_per_second"] == pytest.approx(case["flops"] / result["median"])
            assert result["peak_share"] == pytest.approx(result["flops_per_second"] / case["peak"])
            assert all(0 <= error < 1e-4 for error in result["errors"].values())
        assert case["speedup"] == {
            ours: {"reference": pytest.approx(results["reference"]["median"] / results[ours]["median"])}
            for ours in ["fastrnn", *prepared]
        }
        assert case["best"] is None  # not the reference


def test_best_peer(bench, rivalled):
    for case in rivalled["cases"]:
        name, gain = ("pytorch", 3) if case["mode"].startswith("training") else ("onnxruntime", 2)
        assert bench.report.best(case["results"]) == name
        assert bench.report.gain(case, "fastrnn") == (pytest.approx(gain), name)
        assert (bench.report.gain(case, "fastrnn-prepared") is None) == case["mode"].startswith("training")


def test_summary(bench, document, rivalled):
    assert [(entry["gain"], entry["least"], entry["share"]) for entry in document["summary"]] == 30 * [(None,) * 3]

    first, _ = (case for case in rivalled["cases"] if (case["mode"], case["cell"]) == ("inference", "gru"))
    first["speedup"]["fastrnn"]["onnxruntime"] = 8.0
    first |= {"batch": 16, "hidden": 256}
    first["results"]["fastrnn"]["peak_share"] = 0.75
    third = json.loads(json.dumps(first)) | {"hidden": 512}
    third["results"]["fastrnn"]["peak_share"] = 0.25
    third["speedup"]["fastrnn"]["onnxruntime"] = 0.5
    rivalled["cases"].append(third)
    by_case = {(entry["mode"], entry["cell"]): entry for entry in bench.report.summary(rivalled)}
    assert len(by_case) == 30
    entry = by_case["inference", "gru"]
    assert entry["gain"] == pytest.approx((8 * 2 * 0.5) ** (1 / 3))
    assert entry["least"] == {"gain": 0.5, "peer": "onnxruntime", "shape": "16, 512 (I 7)"}
    assert entry["share"] == {"median": 0.5, "least": 0.25}
    assert by_case["training", "lstm"]["gain"] == pytest.approx(3)
    assert by_case["streaming", "lstm"]["fastrnn"] == "fastrnn-prepared"


@pytest.mark.parametrize(("cell", "gates"), [("lstm", 4), ("gru", 3), ("gru_reset_before", 3), ("rnn_tanh", 1)])
def test_operations(bench, case, cell, gates):
    weights = sum(array.size for name, array in fastrnn_layer(cell).parameters.items() if name.startswith("weight"))
    assert weights == gates * HIDDEN * (INPUT + HIDDEN)
    assert bench.problem.Problem.of(case(cell)).flops == 2 * weights * STEPS * BATCH
    assert bench.problem.Problem.of(case(cell, "training")).flops == 6 * weights * STEPS * BATCH
    varied = bench.problem.Problem.of(case(cell, "training-lengths"))
    assert varied.flops == 6 * weights * varied.lengths.sum() < 6 * weights * STEPS * BATCH


def fastrnn_layer(cell):
    kind = cell.split("_")[0].upper()
    return getattr(fastrnn, kind)(INPUT, HIDDEN)


def test_tolerances_are_those_of_the_suite(bench, case):
    for dtype in ("float32", "float64"):
        table = conftest.TOLERANCES[dtype]
        problem = bench.problem.Problem.of(case("lstm", "training", dtype))
        for name in problem.expected:
            which = "backward" if name.startswith("d") else "forward"
            assert problem.tolerance(name) == pytest.approx(table[which](INPUT + HIDDEN, STEPS))


def test_what_others_take(bench):
    before, after = bench.machine.Usage(10, 100, 50), bench.machine.Usage(20, 118, 65)
    assert bench.machine.others(before, after) == pytest.approx(0.3)
    assert bench.machine.others(before, after._replace(own=70)) == 0  # the clocks are not that exact
    assert bench.machine.others(before, after._replace(busy=None)) is None


def test_warnings(bench, document):
    calm = json.loads(json.dumps(document))
    calm["others"] = 0.01
    calm["peak"] |= {"least": 7.5e9, "most": 8e9}
    calm["meeting"] |= {"least": 60e-9, "most": 110e-9}
    for case in calm["cases"]:
        for result in case["results"].values():
            result |= {"q1": 0.95 * result["median"], "q3": 1.05 * result["median"]}
    assert bench.report.warnings(calm) == []

    calm["peak"]["least"] = 7e9
    calm["meeting"]["most"] = 3e-7
    calm["others"] = 0.5
    calm["machine"]["processors"] = 2
    calm["cases"][0]["results"]["fastrnn"]["q3"] *= 2
    changed, far, busy, shaky = bench.report.warnings(calm)
    assert "between 7 GFLOP/s and 8 GFLOP/s" in changed
    assert far == "threads met in 0.06 µs to 0.30 µs"
    assert busy == "other programs took 0.50 of 2 processors"
    assert shaky.startswith("1 of ")


# ----------------------------------------------------------------------------------------------------------- timing


def test_functions_take_turns(bench, effort):
    calls = []
    functions = {name: bench.timing.Timed(lambda name=name: calls.append(name), nullcontext) for name in "ab"}
    bench.timing.measure(functions, replace(effort, block_seconds=1e-9))
    # Two calls each to see how long they take; then blocks of an untimed call and a timed one.
    assert "".join(calls) == "aabb" + 2 * ("aabb" + "bbaa")
    assert all(len(function.readings) == 4 for function in functions.values())


def test_turns_count_where_the_machine_is_steady(bench, effort):
    effort = replace(effort, block_seconds=1e-9)
    for peaks, counting in (
        (8 * [100], 8 * [100]),
        ([100, 99, 100, 89, 92, 95, 100, 100, 91, 91], [100, 99, 92, 95, 100, 100, 91, 91]),
        ([50, 50, 100, 100, *6 * [100]], [50, 50, *6 * [100]]),  # nothing better was known
        ([100, 100, *4 * [60, 60], *3 * [60, 60]], [100, 100, *6 * [60]]),  # there is an end
    ):
        timed = bench.timing.Timed(lambda: None, nullcontext)
        left = iter(peaks)
        assert bench.timing.measure({"a": timed}, effort, lambda left=left: next(left)) == counting
        assert len(timed.readings) == timed.blocks == 4
    left = iter([89, 100, 100, 89, *8 * [91]])
    assert bench.timing.measure({"a": timed}, effort, lambda: next(left), best=100) == 8 * [91]


def test_unsteady_cases_are_measured_again(bench, effort, monkeypatch):
    """Where the machine had less than 90% of its best, or cores far apart; up to twice, and the best run counts."""
    again = {"b": [(70, 1), (60, 1)], "c": [(95, 1)], "e": [(92, 2.5)], "f": [(99, 4), (97, 1)]}
    entry = lambda peak, meeting: {"peak": peak, "meeting": meeting}  # noqa: E731
    monkeypatch.setattr(bench.compare, "run_case", lambda case, *_: entry(*again[case].pop(0)))
    first = {"a": (100, 1), "b": (80, 1), "c": (60, 1), "d": (91, 3), "e": (100, 4), "f": (95, 4)}
    cases = [entry(*state) for state in first.values()]
    said = []
    bench.compare.measure_unsteady_again(cases, list(first), {}, 1, effort, lambda text, **_: said.append(text))
    assert [entry["peak"] for entry in cases] == [100, 80, 95, 91, 92, 97]
    assert not any(again.values())
    assert [text[-1] for text in said] == ["b", "c", "e", "f", "b", "f"]
    assert "60%" in said[1]
    assert "apart" not in said[1]
    assert "far apart" in said[2]


def test_the_peak_is_one(bench, effort):
    assert all(1e8 < bench.roofline.peak(dtype, 1, effort) < 1e13 for dtype in ("float32", "float64"))


def test_what_bounds_a_sequence_alone(bench):
    fastrnn.set_num_threads(2)
    assert bench.roofline.meeting(1) == 0
    assert 1e-9 < bench.roofline.meeting(2) < 1e-2
    for dtype, itemsize in (("float32", 4), ("float64", 8)):
        assert 1e7 < _core.weight_rate(dtype, 100, 30, 2, 0.01) / itemsize < 1e12
    for sizes in ((0, 1), (1, 0), (65537, 1)):
        with pytest.raises(ValueError, match=r"rows and depth: expected 1 ... 65536"):
            _core.weight_rate("float32", *sizes, 1, 0.01)
    with pytest.raises(ValueError, match="threads: expected at least 1"):
        _core.meeting_rate(0, 0.01)


def test_time_is_limited(bench):
    effort = bench.timing.Effort()
    for seconds in (1e-6, 1e-4, 1e-2, 0.1, 1, 10):
        blocks, calls = effort.plan(seconds, slow=False)
        assert effort.min_blocks <= blocks <= effort.max_blocks
        assert calls == max(1, math.ceil(effort.block_seconds / seconds))
    assert effort.plan(10, slow=True) == (3, 1)


def test_what_is_done_survives_an_interruption(bench, effort, case):
    first = case()
    peer = bench.peers.load("fastrnn", 1)

    class Interrupted(type(peer)):
        def supports(self, case):
            if case is not first:
                raise KeyboardInterrupt
            return True

    document = bench.compare.compare(
        [first, case("gru")], {"fastrnn": Interrupted(1)}, {}, 1, effort, lambda *_, **__: None
    )
    assert not document["complete"]
    assert [entry["cell"] for entry in document["cases"]] == ["lstm"]
    assert document["cases"][0]["results"]["fastrnn"]["peak_share"] > 0


def test_ratios(bench, effort):
    """Each of its kinds of rows, on small shapes: proportions that are none of another kind's."""
    for row, proportions in [
        (bench.ratios.of_lengths("gru", 3, 8, effort), 2),
        (bench.ratios.of_directions("lstm", effort), 1),
        (bench.ratios.of_a_call("rnn_tanh", effort), 1),
        (bench.ratios.of_weights("gru", 8, effort), 1),
        (bench.ratios.of_turns("gru", 3, 8, effort), 2),
        (bench.ratios.of_the_peak("lstm", _core.isa(), "float64", effort), 2),
    ]:
        title, *figures = row
        assert title.startswith(("LSTM, ", "GRU, ", "RNN, tanh, "))
        assert [
            bool(re.fullmatch(r"\d+(\.\d+)?(| µs|%|% \([\d.]+ of [\d.]+ µs; threads meet in [\d.]+\))", figure))
            for figure in figures
        ] == [
            True,
            proportions == 2,
        ]


def test_programs(bench, tmp_path, monkeypatch, capsys):
    """Both ways in turns; what a program says of itself; one that fails stops all."""
    program = """
    import sys
    backend, picture = sys.argv[2], sys.argv[4]
    if backend != WRONG:
        print(f"accuracy on names not seen in training: {len(backend)}%")
    open(picture, "w").close()
    """
    monkeypatch.setattr(bench.programs, "FOLDER", tmp_path)
    source = inspect.cleandoc(program)
    (tmp_path / "torch_names.py").write_text(source.replace("WRONG", "None"))
    bench.programs.main(["torch_names", "--rounds", "2"])
    table, log = capsys.readouterr()
    assert re.search(r"torch_names \| 7% \| 5% \| \d+\.\d s \| \d+\.\d s \| \d+\.\d\d \|", table)
    assert re.findall(r"torch_names, (\w+): (\d)", log) == [
        ("fastrnn", "1"),
        ("stock", "1"),
        ("stock", "2"),
        ("fastrnn", "2"),
    ]
    (tmp_path / "torch_names.py").write_text(source.replace("WRONG", "'stock'"))
    with pytest.raises(SystemExit, match="torch_names --backend stock failed"):
        bench.programs.main(["torch_names"])
    with pytest.raises(SystemExit):
        bench.programs.main(["no_such_program"])


def test_keras_steps():
    for module in ("torch", "keras"):
        pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, str(BENCH / "keras_steps.py"), "--quick"],
        env=os.environ | {"KERAS_BACKEND": "torch"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"\| torch \| (\w+) \| [\d.]+ ms \| [\d.]+ ms \| [\d.]+ \|", done.stdout) == [
        "LSTM",
        "GRU",
        "SimpleRNN",
    ]


def test_keras_steps_without_keras(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(SystemExit, match="keras_steps: keras is not installed: pip install keras jax"):
        importlib.import_module("keras_steps")


# ---------------------------------------------------------------------------------------------------- right answers


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_gives_right_answers(bench, case, name):
    try:
        peer = bench.peers.load(name, 1)
    except bench.peers.MissingError as missing:
        pytest.skip(str(missing))
    supported = 0
    for dtype, cells in (("float32", CELLS), ("float64", ["lstm"])):
        for cell in cells:
            for mode in MODES + PACKED:
                tried = case(cell, mode, dtype)
                if mode == "streaming":
                    tried = replace(tried, steps=1, shape=bench.grid.Shape(1, HIDDEN, INPUT))
                functions, errors = bench.compare.checked(bench.problem.Problem.of(tried), {name: peer})
                assert functions.keys() == errors.keys()
                supported += len(functions)
                assert mode not in PACKED or bool(functions) == (peer.supports(tried) and name in TAKE_PACKED)
    assert supported >= 8


def test_packed_rows(bench, effort):
    """PyTorch's format has fastrnn.torch for its headline; without it there is nothing to compare."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is missing: pip install fastrnn[torch]")
    chosen = bench.grid.cases(["gru"], PACKED, bench.grid.shapes("3x6x8"), STEPS, "float32")
    peers, _ = bench.compare.load_peers(["pytorch"], 1, PACKED)
    document = bench.compare.compare(chosen, peers, {}, 1, effort, lambda *_, **__: None)
    assert [list(case["results"]) for case in document["cases"]] == 2 * [["fastrnn-torch", "pytorch"]]
    assert {(entry["fastrnn"], entry["least"]["peer"]) for entry in document["summary"]} == {
        ("fastrnn-torch", "pytorch")
    }
    varied = bench.problem.Problem.of(chosen[0])
    assert varied.flops == bench.problem.Problem.of(replace(chosen[0], mode="inference-lengths")).flops
    for text in (bench.report.markdown(document), bench.report.tables(document)):
        assert "inference-packed, GRU" in text


def spoilt_y(answer):
    answer["y"] = answer["y"] + np.float32(1e-3)


def spoilt_state(answer):
    answer["c_n"] = answer["c_n"] * np.float32(1.001)


def spoilt_gradient(answer):
    answer["d_bias_hh_l0"][3] = np.nan


def missing_gradient(answer):
    del answer["dx"]


def other_type(answer):
    answer["h_n"] = answer["h_n"].astype(np.float64)


def other_shape(answer):
    answer["h_n"] = answer["h_n"][0]


@pytest.mark.parametrize(
    ("mode", "spoil", "message"),
    [
        ("inference", spoilt_y, "y has a relative error of"),
        ("inference", spoilt_state, "c_n has a relative error of"),
        ("streaming", spoilt_y, "y has a relative error of"),
        ("training", spoilt_y, "y has a relative error of"),
        ("training", spoilt_gradient, "d_bias_hh_l0 has a relative error of nan"),
        ("training", missing_gradient, "the answer has y, h_n, c_n, d_weight"),
        ("inference", other_type, "h_n is float64"),
        ("inference", other_shape, "h_n is float32 (3, 8), not float32 (1, 3, 8)"),
    ],
)
def test_wrong_answers_are_not_timed(bench, case, effort, monkeypatch, mode, spoil, message):
    right = bench.peers.load("reference", 1)
    calls = 0

    class Wrong(type(right)):
        def prepare(self, problem):
            call = super().prepare(problem)

            def counted():
                nonlocal calls
                calls += 1
                return call()

            return counted

        def answer(self, problem, result):
            answer = super().answer(problem, result)
            spoil(answer)
            return answer

    def timed(*arguments):
        raise AssertionError("it was timed")

    monkeypatch.setattr(bench.compare, "measure", timed)
    tried = case("lstm", mode)
    peers = {"fastrnn": bench.peers.load("fastrnn", 1), "reference": Wrong(1)}
    with pytest.raises(bench.problem.WrongAnswerError) as caught:
        bench.compare.run_case(tried, peers, 1, effort)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"NumPy, {mode} lstm 3x6x8: ")
    assert calls == bench.problem.Problem.of(tried).calls_to_check


# ------------------------------------------------------------------------------------------------- the command line


def run(*arguments):
    command = [sys.executable, "-W", "error", str(BENCH / "compare.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_command(tmp_path):
    chosen = "--quick --cells gru --modes inference streaming --shapes 2x8 --steps 5 --threads 1 --peers reference"
    done = run(*chosen.split(), "--output", tmp_path / "new" / "results.v1")
    assert done.returncode == 0, done.stderr
    assert "[  2/2 " in done.stdout
    assert "inference, T 5: median" in done.stdout
    document = json.loads((tmp_path / "new" / "results.v1.json").read_text("utf-8"))
    assert [list(case["results"]) for case in document["cases"]] == 2 * [["fastrnn", "reference"]]
    assert document["settings"]["threads"] == 1
    assert 0 < document["peak"]["least"] <= document["peak"]["most"]
    if without_matplotlib():
        assert "pip install matplotlib" in done.stdout
    else:
        assert_picture(tmp_path / "new" / "results.v1.png")

    again = run("--markdown-only", tmp_path / "new" / "results.v1.json")
    assert again.returncode == 0, again.stderr
    assert "| 2, 8 |" in again.stdout


@pytest.mark.parametrize("content", [None, "", "[]", '{"format": 1}'])
def test_files_that_are_no_results(tmp_path, content):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_text(content)
    done = run("--markdown-only", path)
    assert done.returncode == 1
    assert done.stderr.startswith("compare: cannot read" if content is None else f"compare: {path} is not a file of")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [("--shapes", "16"), ("--shapes", "0x8"), ("--shapes", "1x2x3x4"), ("--threads", "0"), ("--cells", "elman")],
)
def test_options_out_of_range(bench, capsys, arguments):
    with pytest.raises(SystemExit):
        bench.options.parse(arguments)
    assert f"argument {arguments[0]}: " in capsys.readouterr().err


def test_default_grid(bench):
    chosen = bench.options.parse([]).cases
    assert {case.cell for case in chosen} == {"lstm", "gru", "rnn_tanh"}
    shapes = [str(case.shape) for case in chosen if (case.cell, case.mode) == ("lstm", "training")]
    assert shapes == ["1x64", "1x128", "1x256", "1x512", "16x128", "16x256", "32x512", "64x256", "64x512", "256x256"]
    assert [case.shape.hidden for case in chosen if (case.cell, case.mode) == ("gru", "streaming")] == [
        64,
        128,
        256,
        512,
    ]
    full = {str(case.shape) for case in bench.options.parse(["--full"]).cases}
    assert full - set(shapes) == {"1x1024", "64x1024"}


def test_missing_peers_are_named(bench, monkeypatch):
    for name, module in LIBRARIES.items():
        monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.delitem(sys.modules, f"peers.{bench.peers.REGISTRY[name].file}", raising=False)
    loaded, missing = bench.compare.load_peers(None, 1)
    assert list(loaded) == OWN
    assert list(missing) == list(LIBRARIES)
    assert missing["pytorch"] == "PyTorch is not compared: there is no module 'torch'; pip install torch"
    assert missing["openvino"] == ("OpenVINO is not compared: there is no module 'openvino'; pip install onnx openvino")
    with pytest.raises(bench.compare.UserError, match="pip install torch"):
        bench.compare.load_peers(["pytorch"], 1)


def test_letters_tell_peers_apart(bench):
    letters = [bench.peers.REGISTRY[name].letter for name in LIBRARIES if name not in bench.peers.OURS]
    assert all(letters)
    assert len(set(letters)) == len(letters)
    assert set(bench.peers.REGISTRY) == set(PEERS)


# --------------------------------------------------------------------------------------------------- tables, picture


def test_drop_in(bench, rivalled):
    """fastrnn.torch over PyTorch has a table where both were measured, and so has fastrnn.onnx over ONNX Runtime."""
    for ours, theirs, gain, modes in (
        ("fastrnn-torch", "pytorch", "3.0×", MODES),
        ("fastrnn-onnx", "onnxruntime", "2.0×", [mode for mode in MODES if not mode.startswith("training")]),
    ):
        title = f"{bench.peers.REGISTRY[ours].label} over {bench.peers.REGISTRY[theirs].label}, the same program"
        assert bench.report.drop_in(rivalled, ours, theirs) == []
        assert title not in bench.report.markdown(rivalled)
        rivalled["peers"][ours] = {"label": bench.peers.REGISTRY[ours].label, "version": "1"}
        for case in rivalled["cases"]:
            if theirs in case["results"]:
                case["results"][ours] = case["results"]["fastrnn"]
                case["speedup"][ours] = case["speedup"]["fastrnn"]
        rows = bench.report.drop_in(rivalled, ours, theirs)
        (row,) = (row for row in rows if row[0] == "inference, LSTM")
        assert row[1] == gain
        assert row[2] in (f"{gain} at 1, 7", f"{gain} at 3, 8 (I 6)")  # which of them is chance
        assert len(rows) == len(CELLS) * len(modes)
        for text in (bench.report.markdown(rivalled), bench.report.tables(rivalled)):
            assert title in text


def test_markdown(bench, document, rivalled):
    text = bench.report.markdown(rivalled)
    case = bench.report.find(rivalled, "streaming", "gru", bench.grid.Shape(1, 7))
    ratio = case["results"]["onnxruntime"]["median"] / case["results"]["fastrnn-prepared"]["median"]
    rows = text[text.index("**Streaming**") :].splitlines()
    assert rows[2].split(" | ")[1:3] == ["LSTM", "GRU"]
    assert f"**{bench.report.ratio(ratio)}** ONNX Runtime" in rows[4].split(" | ")[2]
    assert "| 3, 8 (I 6) |" in text
    assert all(text.count(f"**{mode.capitalize()}** (") == 1 for mode in MODES)
    assert "| training, LSTM | 3.0× | 3.0× PyTorch at " in text
    assert "PyTorch" not in bench.report.markdown(document)


def test_tables(bench, document, rivalled):
    lines = bench.report.tables(rivalled).splitlines()
    head = next(line for line in lines if "best peer" in line and "NumPy" in line)
    assert head.split("  ")[-1].strip() == "ONNX Runtime"
    row = next(line for line in lines[lines.index(head) :] if line.startswith("LSTM 3x6x8"))
    assert "2.0× ONNX Runtime" in row
    assert "3.0×" in row
    assert "PyTorch" not in bench.report.tables(document)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1.234, "1.23 s"), (0.9999, "1.00 s"), (0.0123, "12.3 ms"), (9.999e-4, "1.00 ms"), (2.5e-7, "0.25 µs")],
)
def test_durations(bench, seconds, text):
    assert bench.report.duration(seconds) == text


def assert_picture(path):
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000


@needs_matplotlib
def test_picture_of_the_drop_in(bench, document, rivalled, tmp_path):
    """Of the modes of all results that have both."""
    import plot

    rivalled["peers"]["fastrnn-torch"] = {"label": "fastrnn.torch", "version": "1"}
    training = json.loads(json.dumps(rivalled))
    for which, chosen in (("inference", rivalled), ("training", training)):
        chosen["cases"] = [case for case in chosen["cases"] if case["mode"].startswith(which)]
        for case in chosen["cases"]:
            case["results"]["fastrnn-torch"] = case["results"]["fastrnn"]
            case["speedup"]["fastrnn-torch"] = case["speedup"]["fastrnn"]
    assert plot.draw_drop_in([document]) is None
    assert len(plot.draw_drop_in([document, rivalled]).axes) == 2
    assert len(plot.draw_drop_in([rivalled, training]).axes) == 4
    paths = [tmp_path / "a.b.json", tmp_path / "other.json"]
    for path, content in zip(paths, (rivalled, training), strict=True):
        path.write_text(json.dumps(content), "utf-8")
    bench.compare.main(bench.options.parse(["--picture-only", *map(str, paths)]))
    for name in ("a.b.png", "a.b-torch.png", "other.png"):
        assert_picture(tmp_path / name)


@needs_matplotlib
@pytest.mark.parametrize("kept", ["everything", "no rival", "one case"])
def test_picture(bench, document, rivalled, tmp_path, kept):
    if kept == "everything":
        document = rivalled
    elif kept == "one case":
        document = rivalled | {"cases": rivalled["cases"][:1]}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(document), "utf-8")
    bench.compare.main(bench.options.parse(["--picture-only", str(path)]))
    assert_picture(tmp_path / "results.png")

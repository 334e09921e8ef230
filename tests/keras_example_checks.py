"""The examples in Keras learn, with fastrnn's layers as with Keras'. `test_keras.py` runs this file in a process."""

import importlib.util
import os
import pickle
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import fastrnn

pytest.importorskip("matplotlib")
if os.environ.get("KERAS_BACKEND") != "tensorflow":
    sys.modules["tensorflow"] = None  # Keras, on another backend, would import it to seed it, for seconds

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras' variables
EXAMPLES = Path(__file__).parents[1] / "examples"
CHINESE = "床前明月光，疑是地上霜。举头望明月，低头思故乡。\n"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a program as from the command line; returns what it prints, and how often it called the kernels."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))  # whatever data sets this machine has

    def call(name, *arguments):
        calls = fastrnn.native_calls()
        load(name).main([*map(str, arguments), "--picture", f"{name}.png"])
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        return capsys.readouterr().out, fastrnn.native_calls() - calls

    return call


def numbers(pattern, output):
    return [float(number) for number in re.search(pattern, output).groups()]


def losses(output):
    return [float(loss) for loss in re.findall(r"val_loss: (\d+\.\d+)", output)]


TEXT = ("--most", 30_000, "--batch", 16, "--steps", 32, "--epochs", 3, "--length", 40, "--learning-rate", 0.01)


def test_text_generation(run):
    found = {}
    for backend in ("fastrnn", "stock"):
        output, calls = run("keras_text_generation", "--backend", backend, *TEXT)
        bits, unigram = numbers(r"training: ([\d.]+) bits per character \(([\d.]+) knowing", output)
        assert bits < 0.8 * unigram
        assert (calls > 150) == (backend == "fastrnn")
        found[backend] = losses(output)
    assert found["fastrnn"] == pytest.approx(found["stock"], rel=0.02)


def test_text_generation_in_chinese(run, tmp_path):
    (tmp_path / "poem.txt").write_text(CHINESE * 200 + "罕", "utf-8")
    options = ("--batch", 4, "--steps", 16, "--epochs", 3, "--learning-rate", 0.01, "--characters", 22)
    output, _ = run("keras_text_generation", "--text", "poem.txt", "--length", 48, "--seed-text", "举头", *options)
    bits, unigram = numbers(r"training: ([\d.]+) bits per character \(([\d.]+) knowing", output)
    assert bits < 0.3 * unigram
    written = output.split("-" * 80)[1].strip()
    assert written.startswith("举头望明月")
    assert set(written) <= set(CHINESE)


def test_text_generation_mistakes(run, tmp_path):
    (tmp_path / "short.txt").write_text("short")
    (tmp_path / "binary").write_bytes(b"abc\xff")
    for name, message in (
        ("none.txt", "cannot read none.txt: No such file or directory"),
        ("short.txt", "5 characters are too few for 64 streams of 64"),
        ("binary", r"binary is not UTF-8 text \(byte 3\)"),
    ):
        with pytest.raises(SystemExit, match=message):
            run("keras_text_generation", "--text", name)


def test_forecasting(run):
    pytest.importorskip("statsmodels")
    found = {}
    for backend in ("fastrnn", "stock"):
        output, calls = run("keras_forecasting", "--backend", backend, "--epochs", 15)
        error, persistence = numbers(r"training: ([\d.]+) ppm \(persistence: ([\d.]+) ppm\)", output)
        assert error < 0.6 * persistence
        assert (calls > 150) == (backend == "fastrnn")
        found[backend] = losses(output)
    assert found["fastrnn"] == pytest.approx(found["stock"], rel=0.05)


@pytest.mark.parametrize("name", ["keras_forecasting", "keras_text_classification", "keras_text_generation"])
def test_without_keras(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    backend = os.environ["KERAS_BACKEND"]
    with pytest.raises(SystemExit, match=f"{name}: keras is not installed: pip install keras {backend}"):
        load(name)


def test_without_matplotlib(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    load("keras_forecasting").main(["--epochs", "1"])
    assert capsys.readouterr().out.endswith("no picture: matplotlib is not installed\n")


GROUPS = {"rec.autos": ("brake", "engine", "road", "wheel"), "sci.space": ("comet", "moon", "orbit", "rocket")}


def newsgroups(count, random):
    """As scikit-learn keeps them: the category also stands in the header, and other words in quotes and a footer."""
    from sklearn.utils import Bunch

    target, names = np.arange(count) % len(GROUPS), list(GROUPS)
    texts = [" ".join(random.choice(GROUPS[names[k]], 8)) for k in target]
    form = "Newsgroups: {}\n\nIn article 1:\n> quoted\n{}\n\n--\nfooter"
    data = [form.format(names[k], text) for k, text in zip(target, texts, strict=True)]
    return Bunch(data=data, target=target, target_names=names, filenames=np.array([str(k) for k in range(count)]))


def test_text_classification_of_newsgroups(run, tmp_path):
    """Those that are on disk, in scikit-learn's own file, and only what their authors wrote."""
    random = np.random.default_rng(0)
    saved = pickle.dumps({"train": newsgroups(120, random), "test": newsgroups(40, random)})
    (tmp_path / "20news-bydate_py3.pkz").write_bytes(zlib.compress(saved))
    found = load("keras_text_classification").newsgroups()
    assert len(found) == 160
    assert all(set(text.split()) <= set(GROUPS[group]) for text, group in found)
    output, _ = run("keras_text_classification", "--cell", "GRU", "--epochs", 4)
    assert output.startswith("20 Newsgroups\n128 texts of 2 categories to learn, 32 held out\n")
    assert numbers(r"GRU +accuracy ([\d.]+)%", output) == [100.0]


def test_text_classification(run):
    small = ("--most", 600, "--longest", 30, "--epochs", 6)
    output, calls = run("keras_text_classification", *small)
    (guess,) = numbers(r"always the commonest category: ([\d.]+)%", output)
    assert calls > 200
    for cell in ("SimpleRNN", "LSTM", "GRU"):
        (accuracy,) = numbers(rf"{cell} +accuracy ([\d.]+)%", output)
        assert accuracy > guess + 10, cell
    output, calls = run("keras_text_classification", "--backend", "stock", "--cell", "GRU", *small)
    assert calls == 0
    assert numbers(r"GRU +accuracy ([\d.]+)%", output) == pytest.approx([accuracy], abs=10)

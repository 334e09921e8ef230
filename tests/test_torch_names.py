"""The example of PyTorch learns, with fastrnn's layers as with torch.nn's."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("names")
pytest.importorskip("matplotlib")

import fastrnn  # noqa: E402

EXAMPLE = Path(__file__).parents[1] / "examples" / "torch_names.py"
SMALL = ("--epochs", 4, "--most", 400, "--hidden", 32, "--learning-rate", 0.01)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the program as from the command line; returns what it prints."""
    spec = importlib.util.spec_from_file_location("torch_names", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        module.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return call


def learned(output):
    """(losses, accuracy in the end)."""
    losses = [float(loss) for loss in re.findall(r"loss (\d\.\d+)", output)]
    return losses, float(re.search(r"not seen in training: ([\d.]+)%", output)[1]) / 100


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_learns(run, tmp_path, cell):
    calls = fastrnn.native_calls()
    output = run("--cell", cell, "--name", "Grace", *SMALL)
    losses, accuracy = learned(output)
    assert fastrnn.native_calls() > calls + 100
    assert losses[-1] < 0.85 * losses[0]
    assert accuracy > 0.5
    assert re.search(r"^Grace: female \d+%, male \d+%, last \d+%$", output, re.MULTILINE)
    assert (tmp_path / "torch_names.png").stat().st_size > 10_000


def test_the_same_on_torch_nn(run):
    """The same course of training, up to rounding."""
    calls = fastrnn.native_calls()
    theirs = learned(run("--backend", "stock", *SMALL))
    assert fastrnn.native_calls() == calls
    ours = learned(run("--backend", "fastrnn", *SMALL))
    assert ours[0] == pytest.approx(theirs[0], abs=0.02)
    assert ours[1] == pytest.approx(theirs[1], abs=0.1)


def test_mistakes_are_explained(run, monkeypatch, capsys):
    for arguments, message in [
        (("--name", "Jürgen"), "the network knows the letters a to z alone"),
        (("--epochs", 0), "must be at least 1"),
    ]:
        with pytest.raises(SystemExit):
            run(*arguments)
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "names", None)
    with pytest.raises(SystemExit, match="pip install names"):
        run(*SMALL)


def test_without_matplotlib(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run("--most", 50, "--epochs", 1).endswith("no picture: matplotlib is not installed\n")

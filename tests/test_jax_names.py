"""The example of JAX learns, in fastrnn's kernels as in Equinox' cell, with the same numbers."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("equinox")
pytest.importorskip("optax")
pytest.importorskip("names")
pytest.importorskip("matplotlib")

import jax.numpy as jnp  # noqa: E402

import fastrnn  # noqa: E402

EXAMPLE = Path(__file__).parents[1] / "examples" / "jax_names.py"
SMALL = ("--epochs", 3, "--most", 1500, "--hidden", 32, "--batch", 32, "--learning-rate", 0.01)


def load(monkeypatch):
    spec = importlib.util.spec_from_file_location("jax_names", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "jax_names", module)  # where Equinox looks for a class's annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example(monkeypatch):
    return load(monkeypatch)


@pytest.fixture
def run(example, tmp_path, monkeypatch, capsys):
    """Run the program as from the command line; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        example.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return call


def learned(output):
    """(bits by frequencies, bits of each epoch, bits on other names in the end)."""
    by_frequencies = float(re.search(r"([\d.]+) bits by frequencies", output)[1])
    course = [float(b) for b in re.findall(r"bits a letter (\d\.\d+)", output)]
    return by_frequencies, course, float(re.search(r"not seen in training: ([\d.]+)", output)[1])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_learns_and_writes(run, tmp_path, cell):
    calls = fastrnn.native_calls()
    output = run("--cell", cell, "--write", 5, *SMALL)
    baseline, course, others = learned(output)
    assert fastrnn.native_calls() > calls + 200
    assert course[-1] < course[0] - 0.15
    assert others < baseline - 0.2
    assert len(re.search(r"new names: (.*)", output)[1].split(", ")) == 5
    assert (tmp_path / "jax_names.png").stat().st_size > 10_000


def test_the_same_on_the_stock_cell(run):
    """The same course of training, up to rounding."""
    calls = fastrnn.native_calls()
    theirs = learned(run("--backend", "stock", *SMALL))
    assert fastrnn.native_calls() == calls
    ours = learned(run("--backend", "fastrnn", *SMALL))
    assert ours[1] == pytest.approx(theirs[1], abs=0.01)
    assert ours[2] == pytest.approx(theirs[2], abs=0.02)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_same_numbers(example, cell):
    """Losses and all gradients, of the same parameters."""
    names = jnp.asarray(example.encode(["ada", "grace", "barbara"]))
    losses, gradients = [], []
    for backend in example.BACKENDS:
        model = example.NameModel(backend, cell, 16, jax.random.key(0))
        compiled = example.eqx.filter_jit(example.eqx.filter_value_and_grad(example.loss_of))
        loss, gradient = compiled(model, names)
        losses.append(float(loss))
        gradients.append(jax.tree.leaves(gradient))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_mistakes_are_explained(run, monkeypatch, capsys):
    for arguments, message in [(("--hidden", 30), "must be a multiple of 4"), (("--epochs", 0), "must be at least 1")]:
        with pytest.raises(SystemExit):
            run(*arguments)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="too few for batches of 64"):
        run("--most", 30)
    monkeypatch.setitem(sys.modules, "names", None)
    with pytest.raises(SystemExit, match="pip install names"):
        run(*SMALL)


def test_without_equinox(monkeypatch):
    monkeypatch.setitem(sys.modules, "equinox", None)
    with pytest.raises(SystemExit, match="equinox is not installed: pip install equinox jax optax"):
        load(monkeypatch)

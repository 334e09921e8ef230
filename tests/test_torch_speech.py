"""The example of speech learns, with fastrnn's LSTM as with torch.nn's, and streams what it has learned."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")
if importlib.util.find_spec("sktime") is None:
    pytest.skip("sktime is missing: pip install --no-deps sktime", allow_module_level=True)

import fastrnn  # noqa: E402

EXAMPLE = Path(__file__).parents[1] / "examples" / "torch_speech.py"
SMALL = ("--epochs", 6, "--hidden", 32, "--learning-rate", 0.01)


@pytest.fixture(autouse=True)
def one_thread():
    """Steps of some microseconds are not worth a second one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def example():
    spec = importlib.util.spec_from_file_location("torch_speech", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(example, tmp_path, monkeypatch, capsys):
    """Run the program as from the command line; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        example.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return call


def learned(output):
    """(losses, accuracy by frames, by utterances)."""
    losses = [float(loss) for loss in re.findall(r"loss (\d\.\d+)", output)]
    accuracies = re.search(r"others: ([\d.]+)% of the frames, ([\d.]+)% of the utterances", output).groups()
    return losses, *(float(a) / 100 for a in accuracies)


def test_the_data(example):
    training, others = example.read_speech("TRAIN"), example.read_speech("TEST")
    assert (len(training), len(others)) == (270, 370)
    for utterances in (training, others):
        assert {u.speaker for u in utterances} == set(range(9))
        assert {u.frames.shape[1] for u in utterances} == {12}
        assert min(len(u.frames) for u in utterances) == 7
    assert max(len(u.frames) for u in others) == 29
    frames = torch.cat([u.frames for u in example.normalized(training, like=training)])
    torch.testing.assert_close(frames.mean(0), torch.zeros(12), atol=1e-5, rtol=0)
    torch.testing.assert_close(frames.std(0), torch.ones(12))


def test_learns_and_streams(run, tmp_path):
    calls = fastrnn.native_calls()
    output = run(*SMALL)
    losses, frames, utterances = learned(output)
    assert fastrnn.native_calls() > calls + 200
    assert losses[-1] < 0.6 * losses[0]
    assert frames > 0.6
    assert utterances > 0.8
    assert re.findall(r"listening to (\d) frames? at a time gives the same", output) == ["1", "8"]
    assert (tmp_path / "torch_speech.png").stat().st_size > 10_000


def test_the_same_on_torch_nn(run):
    """The same course of training, up to rounding, for as long as that does not grow."""
    calls = fastrnn.native_calls()
    theirs = learned(run("--backend", "stock", "--dropout", 0, *SMALL, "--epochs", 2))
    assert fastrnn.native_calls() == calls
    ours = learned(run("--backend", "fastrnn", "--dropout", 0, *SMALL, "--epochs", 2))
    assert ours[0] == pytest.approx(theirs[0], abs=0.02)
    assert ours[1:] == pytest.approx(theirs[1:], abs=0.1)


def test_a_stream_that_forgets_is_found(example):
    """The check of the stream can fail."""
    torch.manual_seed(0)
    model = example.Listener("fastrnn", 8, 1, 0.0)
    utterances = example.read_speech("TEST")[:3]
    example.check_stream(model, utterances, 4)
    hear = model.forward
    model.forward = lambda frames, state=None: hear(frames)
    with pytest.raises(AssertionError, match="not close"):
        example.check_stream(model, utterances, 4)


def test_mistakes_are_explained(example, run, monkeypatch, capsys):
    for arguments, message in [(("--dropout", 1), "from 0 to less than 1"), (("--epochs", 0), "must be at least 1")]:
        with pytest.raises(SystemExit):
            run(*arguments)
        assert message in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "sktime", None)
    monkeypatch.setattr(example.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install --no-deps sktime"):
        run(*SMALL)

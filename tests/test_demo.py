"""The demo learns, writes, goes on from a saved model, and says clearly what is wrong with its input."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DEMO = Path(__file__).parents[1] / "examples" / "text_generation.py"
ENGLISH = "the quick brown fox jumps over the lazy dog. a lazy fox jumps over a quick dog, and the dog is brown.\n" * 60
CHINESE = "春眠不觉晓，处处闻啼鸟。夜来风雨声，花落知多少。\n床前明月光，疑是地上霜。举头望明月，低头思故乡。\n" * 60


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("text_generation", DEMO)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)  # where dataclasses look for it
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def run(demo, tmp_path, monkeypatch, capsys):
    """Run the program as from the command line; returns what it prints."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        demo.main([str(argument) for argument in arguments])
        return capsys.readouterr().out

    return call


def text_file(folder, text):
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    return path


def written(output):
    """What stands between the last two rules."""
    return output.split("-" * 80)[-2].strip("\n")


TINY = ("--batch", 8, "--steps", 32, "--seconds", 0.5, "--learning-rate", 0.01)


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_learns_far_more_than_letter_frequencies(demo, run, tmp_path, cell):
    path = text_file(tmp_path, ENGLISH)
    output = run("--text", path, "--cell", cell, "--updates", 120, *TINY, "--save", tmp_path / "model.npz")
    assert "text not seen in training" in output
    assert "same loss and gradients" in output

    model, vocabulary, seed_text = demo.TextModel.load(tmp_path / "model.npz")
    assert model.cell == cell
    assert ENGLISH.startswith(seed_text)
    numbers = vocabulary.encode(ENGLISH)
    assert demo.evaluate(model, demo.side_by_side(numbers, 4)) < 0.5 * demo.unigram_entropy(numbers)


def test_a_saved_model_goes_on_writing(run, tmp_path):
    path = text_file(tmp_path, ENGLISH)
    options = ("--length", 100, "--seed-text", "the ", "--temperature", 1)
    first = written(run("--text", path, "--updates", 20, *TINY, *options, "--seed", 3))
    assert (tmp_path / "text_generation.npz").exists()

    again = [written(run("--load", "text_generation.npz", *options, "--seed", seed)) for seed in (3, 3, 4)]
    assert first.startswith("the ")
    assert len(first) == pytest.approx(104, abs=4)  # newlines at the ends are not counted
    assert again[0] == again[1] == first
    assert again[2] != first


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_a_reader_that_has_enough(run, tmp_path, lines):
    run("--text", text_file(tmp_path, ENGLISH), "--updates", 1, *TINY, "--length", 0)
    command = [sys.executable, DEMO, "--load", "text_generation.npz", "--length", "100000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=tmp_path, text=True, encoding="utf-8", **pipes) as program:
        for _ in range(lines):
            program.stdout.readline()
        program.stdout.close()
        assert program.stderr.read() == ""
        assert program.wait(timeout=60) == 1


def test_chinese_with_rare_characters(demo, run, tmp_path):
    path = text_file(tmp_path, CHINESE + "罕")
    output = run("--text", path, "--updates", 100, *TINY, "--vocabulary", 30, "--length", 200, "--seed-text", "明月")
    assert written(output).startswith("明月")
    assert demo.UNKNOWN not in written(output)
    assert set(written(output)) <= set(CHINESE)

    model, vocabulary, _ = demo.TextModel.load(tmp_path / "text_generation.npz")
    assert len(vocabulary) == 30
    assert "罕" not in vocabulary
    assert vocabulary.encode("罕") == vocabulary.unknown
    numbers = vocabulary.encode(CHINESE)
    assert demo.evaluate(model, demo.side_by_side(numbers, 4)) < 0.5 * demo.unigram_entropy(numbers)


def test_learns_the_standard_library_by_default(run):
    output = run("--updates", 2, *TINY, "--length", 10)
    assert "1,500,000 characters" in output
    assert written(output).startswith("def ")


def test_streaming_agrees_with_reading_the_whole_text(demo):
    vocabulary = demo.Vocabulary.of(ENGLISH, 100)
    model = demo.TextModel("lstm", len(vocabulary), seed=1)
    text = "the " + "".join(demo.generate(model, vocabulary, "the ", 20, temperature=0, seed=0))
    y, _ = model.layer(model.embed(vocabulary.encode(text)[:, None]), None)
    likeliest = model.logits(y)[3:-1, 0].argmax(axis=1)
    assert "".join(vocabulary.characters[number] for number in likeliest) == text[4:]


@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_gradients(demo, cell):
    """Along each gradient the loss changes as the gradient says."""
    random = np.random.default_rng(0)
    model = demo.TextModel(cell, 12, seed=2)
    model.set_parameters({name: value * 4 for name, value in model.parameters.items()})
    numbers = random.integers(0, 12, (9, 5))
    loss, _, gradients = model.gradients(numbers[:-1], numbers[1:])
    assert loss == pytest.approx(model.loss(numbers[:-1], numbers[1:])[0], rel=1e-6)
    assert gradients.keys() == model.parameters.keys()

    for name, gradient in gradients.items():
        parameter, length = model.parameters[name], np.linalg.norm(gradient)
        start, step, losses = parameter.copy(), 0.01 * gradient / length, []
        for sign in (1, -1):
            parameter[...] = start + sign * step
            losses.append(model.loss(numbers[:-1], numbers[1:])[0])
        parameter[...] = start
        assert (losses[0] - losses[1]) / 0.02 == pytest.approx(length, rel=0.01), name


def test_sum_rows_by_number(demo):
    random = np.random.default_rng(0)
    rows, numbers = random.standard_normal((50, 3)), random.integers(0, 20, 50)
    expected = np.zeros((25, 3))
    np.add.at(expected, numbers, rows)
    np.testing.assert_allclose(demo.sum_rows_by_number(rows, numbers, 25), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (None, (), "cannot read text.txt: No such file or directory"),
        (b"", (), "text.txt is empty"),
        (b"short", (), "5 characters are too few for --batch 16; give a longer text"),
        (b"abc\xff", (), "text.txt is not UTF-8 text (byte 3)"),
        (ENGLISH.encode(), ("--seed-text", "the Ж"), "--seed-text: the text that was learned has no 'Ж'"),
        (ENGLISH.encode(), ("--load", "text.txt"), "text.txt is not a model saved by this program"),
        (ENGLISH.encode(), ("--load", "none.npz"), "cannot read none.npz: No such file or directory"),
        (ENGLISH.encode(), ("--save", "."), "cannot write ."),
    ],
)
def test_mistakes_get_one_clear_line(run, tmp_path, content, options, message):
    if content is not None:
        (tmp_path / "text.txt").write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        run("--text", "text.txt", "--updates", 1, *options)
    assert str(stopped.value).startswith(f"text_generation: {message}")
    assert "\n" not in str(stopped.value)


@pytest.mark.parametrize(
    "options", [("--temperature", "-1"), ("--length", "x"), ("--seconds", "nan"), ("--batch", "0")]
)
def test_options_out_of_range(run, capsys, options):
    with pytest.raises(SystemExit):
        run(*options)
    assert f"argument {options[0]}: invalid" in capsys.readouterr().err

"""Train a character-level text generator with fastrnn and NumPy alone, then let it write.

The network is the one of the classic tutorials: each character becomes a vector (embedding), a recurrent layer reads
the vectors one by one, and a dense layer with softmax says how likely each character is to come next.

    characters (T, B) -> embedding (T, B, 64) -> RNN, LSTM or GRU (T, B, 128) -> logits (T, B, V)

T is the number of time steps, B the number of text streams read side by side, V the number of characters known. Try

    python examples/text_generation.py
    python examples/text_generation.py --text novel.txt --cell lstm --seconds 120 --seed-text "The "
    python examples/text_generation.py --load text_generation.npz --temperature 0.5
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import os
import re
import statistics
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # NumPy's matrix products are small here. On several threads they gain little, and those threads, which stay awake
    # for a while after each product, get in the way of fastrnn's. To be said before NumPy is loaded.
    for library in ("OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")

import numpy as np

import fastrnn

CELLS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}
EMBEDDING_SIZE = 64
HIDDEN_SIZE = 128
UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for characters too rare to be in the vocabulary
RULE = "-" * 80
BITS = 1 / np.log(2)  # one nat in bits


class UserError(Exception):
    """Something the user can mend; its message is all they need to see."""


# --- text and characters ---------------------------------------------------------------------------------------------


def standard_library_text(limit: int = 1_500_000) -> str:
    """The code of Python's own top-level modules, in alphabetical order, cut after `limit` characters."""
    parts, size = [], 0
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if size >= limit:
            break
        parts.append(bare_code(path.read_text(encoding="ascii", errors="ignore")))
        size += len(parts[-1])
    if not parts:
        raise UserError("this Python comes without its library's source; give a text of your own with --text FILE")
    return "".join(parts)[:limit]


def bare_code(source: str) -> str:
    """Python source without comments, docstrings and blank lines, indented by tabs: a small network does not count
    dozens of spaces.
    """
    source = re.sub(r'^ *[rR]?"""(?:.|\n)*?"""|^ *#.*|\s+$', "", source, flags=re.MULTILINE)
    source = re.sub(r"\n{2,}", "\n", source).replace("    ", "\t")
    source = re.sub(r"(?<=\S)[ \t]+", " ", source)
    return re.sub(r"^(\t{6})\t+", r"\1", source, flags=re.MULTILINE) + "\n"


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


class Vocabulary:
    """Characters and their numbers."""

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self.unknown = characters.find(UNKNOWN)  # -1 if no character of the text was left out
        self._number_of = np.full(sys.maxunicode + 1, self.unknown, np.int32)
        self._number_of[_code_points(characters)] = np.arange(len(characters))

    @classmethod
    def of(cls, text: str, limit: int) -> Vocabulary:
        """The characters of `text`; of more than `limit`, the most frequent ones and the symbol for all others."""
        counts = collections.Counter(text)
        if len(counts) <= limit:
            return cls("".join(sorted(counts)))
        del counts[UNKNOWN]
        by_count = sorted(counts, key=lambda character: (-counts[character], character))
        return cls("".join(sorted(by_count[: max(1, limit - 1)])) + UNKNOWN)

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: str) -> bool:
        return character != UNKNOWN and character in self.characters

    def encode(self, text: str) -> np.ndarray:
        """Character numbers, int32 (len(text),), that of the unknown for characters not in the vocabulary."""
        return self._number_of[_code_points(text)]


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _text(code_points: np.ndarray) -> str:
    return code_points.astype("<u4").tobytes().decode("utf-32-le")


def unigram_entropy(numbers: np.ndarray) -> float:
    """Nats per character that remain for someone who knows only how frequent each character is."""
    p = np.bincount(numbers) / len(numbers)
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


# --- the network -----------------------------------------------------------------------------------------------------


class TextModel:
    """Embedding, recurrent layer and dense layer.

    `parameters` holds all weights, those of the recurrent layer under "layer." and their own name: embedding (V, 64),
    dense_weight (V, 128), dense_bias (V,).
    """

    def __init__(self, cell: str, vocabulary_size: int, seed: int = 0, backend: Any = fastrnn) -> None:
        random = np.random.default_rng(seed)
        self.cell = cell
        self.layer = getattr(backend, CELLS[cell])(EMBEDDING_SIZE, HIDDEN_SIZE, dtype="float32", seed=seed)
        self.parameters: dict[str, np.ndarray] = {
            "embedding": random.uniform(-0.5, 0.5, (vocabulary_size, EMBEDDING_SIZE)).astype(np.float32),
            "dense_weight": random.uniform(-0.05, 0.05, (vocabulary_size, HIDDEN_SIZE)).astype(np.float32),
            "dense_bias": np.zeros(vocabulary_size, np.float32),
        }
        self.parameters.update({f"layer.{name}": value for name, value in self.layer.parameters.items()})

    def set_parameters(self, values: dict[str, np.ndarray]) -> None:
        """Copy `values` into the weights, which the recurrent layer sees at its next call."""
        for name, value in self.parameters.items():
            value[...] = values[name]

    def embed(self, numbers: np.ndarray) -> np.ndarray:
        """(T, B) character numbers -> (T, B, 64)."""
        return self.parameters["embedding"][numbers]

    def logits(self, y: np.ndarray) -> np.ndarray:
        """(..., 128) -> (..., V), the logarithm of each next character's likelihood, up to a constant."""
        return y @ self.parameters["dense_weight"].T + self.parameters["dense_bias"]

    def loss(self, inputs: np.ndarray, targets: np.ndarray, state: Any = None) -> tuple[float, Any]:
        """Mean nats per character of `targets` (T, B) after `inputs` (T, B), and the state at the end."""
        y, state = self.layer(self.embed(inputs), state)
        return softmax_loss(self.logits(y), targets)[0], state

    def gradients(
        self, inputs: np.ndarray, targets: np.ndarray, state: Any = None
    ) -> tuple[float, Any, dict[str, np.ndarray]]:
        """As `loss`, and the loss's gradient with respect to each of `parameters`."""
        y, state, tape = self.layer.forward(self.embed(inputs), state)
        loss, dlogits = softmax_loss(self.logits(y), targets)
        dy = dlogits @ self.parameters["dense_weight"]
        grads = self.layer.backward(tape, dy)

        dlogits = dlogits.reshape(-1, dlogits.shape[-1])
        dembedded = grads.x.reshape(-1, EMBEDDING_SIZE)
        gradients = {
            "embedding": sum_rows_by_number(dembedded, inputs.ravel(), len(self.parameters["embedding"])),
            "dense_weight": dlogits.T @ y.reshape(-1, HIDDEN_SIZE),
            "dense_bias": dlogits.sum(axis=0),
        }
        gradients.update({f"layer.{name}": value for name, value in grads.parameters.items()})
        return loss, state, gradients

    def save(self, path: Path, vocabulary: Vocabulary, seed_text: str) -> None:
        texts = {"characters": _code_points(vocabulary.characters), "seed_text": _code_points(seed_text)}
        with path.open("wb") as file:
            np.savez(file, cell=self.cell, **texts, **self.parameters)

    @classmethod
    def load(cls, path: Path) -> tuple[TextModel, Vocabulary, str]:
        """The model, its vocabulary, and what the text that it writes begins with by default."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                vocabulary = Vocabulary(_text(arrays["characters"]))
                model = cls(str(arrays["cell"]), len(vocabulary))
                model.set_parameters(dict(arrays))
                return model, vocabulary, _text(arrays["seed_text"])
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
        except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
            raise UserError(f"{path} is not a model saved by this program") from None


def softmax_loss(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of `targets` (...); its gradient with respect to `logits` (..., V), which is overwritten."""
    z = logits.reshape(-1, logits.shape[-1])
    rows = np.arange(len(z))
    z -= z.max(axis=1, keepdims=True)
    of_targets = z[rows, targets.ravel()]
    np.exp(z, out=z)
    totals = z.sum(axis=1, keepdims=True)
    loss = np.log(totals[:, 0]).mean() - of_targets.mean()
    z /= totals * len(z)
    z[rows, targets.ravel()] -= np.float32(1 / len(z))
    return float(loss), z.reshape(logits.shape)


def sum_rows_by_number(rows: np.ndarray, numbers: np.ndarray, count: int) -> np.ndarray:
    """The sum of those of `rows` (N, K) with each of `numbers` (N,): (count, K)."""
    order = np.argsort(numbers, kind="stable")
    present, starts = np.unique(numbers[order], return_index=True)
    sums = np.zeros((count, rows.shape[1]), rows.dtype)
    sums[present] = np.add.reduceat(rows[order], starts)
    return sums


# --- training --------------------------------------------------------------------------------------------------------


class Adam:
    """Kingma & Ba, 2015, updating `parameters` in place."""

    def __init__(self, parameters: dict[str, np.ndarray], beta1: float = 0.9, beta2: float = 0.99) -> None:
        self.parameters = parameters
        self.beta1, self.beta2 = beta1, beta2
        self.mean = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.square = {name: np.zeros_like(value) for name, value in parameters.items()}
        self.step = 0

    def update(self, gradients: dict[str, np.ndarray], rate: float) -> None:
        self.step += 1
        rate *= np.sqrt(1 - self.beta2**self.step) / (1 - self.beta1**self.step)
        for name, parameter in self.parameters.items():
            mean, square, gradient = self.mean[name], self.square[name], gradients[name]
            mean += (1 - self.beta1) * (gradient - mean)
            square += (1 - self.beta2) * (gradient * gradient - square)
            parameter -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(1e-8))


def clip_by_norm(gradients: dict[str, np.ndarray], limit: float) -> None:
    """Scale all gradients together so that their common norm is at most `limit`."""
    norm = np.sqrt(sum(float(np.vdot(gradient, gradient)) for gradient in gradients.values()))
    if norm > limit:
        for gradient in gradients.values():
            gradient *= np.float32(limit / norm)


def side_by_side(numbers: np.ndarray, batch: int) -> np.ndarray:
    """Cut a text into `batch` streams of equal length: (length, batch), each column one stretch of the text."""
    length = len(numbers) // batch
    return np.ascontiguousarray(numbers[: length * batch].reshape(batch, length).T)


def chunks(streams: np.ndarray, steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets, (T, B) each, T <= `steps`, in the order of the text: targets are the inputs' successors."""
    for start in range(0, len(streams) - 1, steps):
        end = min(start + steps, len(streams) - 1)
        yield streams[start:end], streams[start + 1 : end + 1]


def evaluate(model: TextModel, streams: np.ndarray, steps: int = 256) -> float:
    """Mean nats per character over all of `streams` (length, B)."""
    state, total = None, 0.0
    for inputs, targets in chunks(streams, steps):
        loss, state = model.loss(inputs, targets, state)
        total += loss * inputs.size
    return total / streams[1:].size


@dataclasses.dataclass
class History:
    """What `train` saw: characters read so far beside nats per character."""

    training: list[tuple[int, float]] = dataclasses.field(default_factory=list)
    validation: list[tuple[int, float]] = dataclasses.field(default_factory=list)


class Budget:
    """How much of the training is done: of a number of updates if given, else of a number of seconds."""

    def __init__(self, seconds: float, updates: int | None) -> None:
        self.seconds, self.updates = seconds, updates
        self.start = time.perf_counter()
        self.done = 0

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.start

    @property
    def fraction(self) -> float:
        if self.updates or not self.done:  # at least one update
            return self.done / (self.updates or 1)
        return min(self.elapsed / self.seconds, 1.0)


def train(model: TextModel, training: np.ndarray, validation: np.ndarray, options: argparse.Namespace) -> History:
    """Read the streams `training` (length, B) over and over until the budget is used up.

    Truncated back-propagation through time: gradients reach back to the start of a chunk of `options.steps`
    characters, while the state is carried on from chunk to chunk.
    """
    adam, history, progress = Adam(model.parameters), History(), Progress()
    budget = Budget(options.seconds, options.updates)
    state, source, read = None, chunks(training, options.steps), 0
    recent: collections.deque[float] = collections.deque(maxlen=50)
    while (fraction := budget.fraction) < 1:
        chunk = next(source, None)
        if chunk is None:  # the text's end: begin again, with an empty mind
            state, source = None, chunks(training, options.steps)
            continue
        loss, state, gradients = model.gradients(*chunk, state)
        clip_by_norm(gradients, limit=1.0)
        adam.update(gradients, options.learning_rate * (1 - 0.95 * fraction))

        read += chunk[0].size
        budget.done += 1
        recent.append(loss)
        history.training.append((read, loss))
        if 10 * fraction >= len(history.validation):
            history.validation.append((read, evaluate(model, validation)))
        progress.show(fraction, budget.elapsed, statistics.fmean(recent), read)
    progress.show(1.0, budget.elapsed, statistics.fmean(recent), read)
    history.validation.append((read, evaluate(model, validation)))
    return history


class Progress:
    """A bar that is redrawn in place on a terminal, and written as a line now and then elsewhere."""

    WIDTH = 24

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.shown = -1.0
        self.interval = 0.1 if self.terminal else 5.0

    def show(self, fraction: float, elapsed: float, loss: float, read: int) -> None:
        if fraction < 1 and elapsed < self.shown + self.interval:
            return
        self.shown = elapsed
        bar = ("#" * int(self.WIDTH * fraction)).ljust(self.WIDTH, ".")
        eta = f"{elapsed / fraction - elapsed:3.0f} s left" if fraction else ""
        line = (
            f"[{bar}] {fraction:4.0%}  loss {loss:.3f} ({loss * BITS:.2f} bits/char)  "
            f"{read / max(elapsed, 1e-9):9,.0f} chars/s  {eta}"
        )
        if self.terminal:
            print(f"\r{line}\x1b[K", end="" if fraction < 1 else "\n", flush=True)
        else:
            print(line, flush=True)


# --- writing ---------------------------------------------------------------------------------------------------------


def generate(
    model: TextModel, vocabulary: Vocabulary, seed_text: str, length: int, temperature: float, seed: int
) -> Iterator[str]:
    """`length` characters that follow `seed_text`, one at a time, the state carried on from each to the next."""
    random = np.random.default_rng(seed)
    step = model.layer.prepare()  # packs the weights once: one-step calls are then as cheap as they can be
    y, state = step(model.embed(vocabulary.encode(seed_text)[:, None]), None)
    for _ in range(length):
        logits = model.logits(y[-1, 0])
        if vocabulary.unknown >= 0:
            logits[vocabulary.unknown] = -np.inf
        number = sample(logits, temperature, random)
        yield vocabulary.characters[number]
        y, state = step(model.embed(np.array([[number]])), state)


def sample(logits: np.ndarray, temperature: float, random: np.random.Generator) -> int:
    """A character's number: the likeliest at temperature 0, by the model's own odds at 1, ever wilder above."""
    if temperature == 0:
        return int(logits.argmax())
    odds = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    return int(random.choice(len(odds), p=odds / odds.sum()))


def print_stream(characters: Iterable[str]) -> None:
    """Write characters as they come, control characters (which could confuse a terminal) as a symbol."""
    for character in characters:
        shown = character if character.isprintable() or character == "\n" else UNKNOWN
        print("    " if character == "\t" else shown, end="", flush=True)
    print()


# --- beside the reference --------------------------------------------------------------------------------------------


def compare_with_reference(
    model: TextModel, inputs: np.ndarray, targets: np.ndarray, seconds: float
) -> tuple[float, float]:
    """Characters per second in the same training step with `fastrnn` and with `fastrnn.reference`, whose loss and
    gradients are first checked to agree.
    """
    reference = TextModel(model.cell, len(model.parameters["embedding"]), backend=fastrnn.reference)
    reference.set_parameters(model.parameters)
    check_agreement(model.gradients(inputs, targets), reference.gradients(inputs, targets))

    times: dict[TextModel, list[float]] = {model: [], reference: []}
    end = time.perf_counter() + seconds
    while len(times[model]) < 3 or time.perf_counter() < end:
        for each, measured in times.items():  # in turn, so that both meet the same conditions
            start = time.perf_counter()
            each.gradients(inputs, targets)
            measured.append(time.perf_counter() - start)
    return inputs.size / statistics.median(times[model]), inputs.size / statistics.median(times[reference])


def check_agreement(
    result: tuple[float, Any, dict], expected: tuple[float, Any, dict], tolerance: float = 1e-4
) -> None:
    """Raise AssertionError unless both losses, and all gradients, have a relative distance below `tolerance`."""
    values = {"loss": (result[0], expected[0])}
    values |= {name: (gradient, expected[2][name]) for name, gradient in result[2].items()}
    for name, (a, b) in values.items():
        error = np.linalg.norm(np.subtract(a, b)) / np.linalg.norm(b)
        assert error < tolerance, f"{name} differs from the reference by {error:.1e}"


def draw(path: Path, history: History, entropy: float, speeds: tuple[float, float], cell: str) -> None:
    """The loss curve beside the two speeds, of fastrnn and of the reference."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(2, 1), layout="constrained")
    read, loss = np.array(history.training).T
    window = max(1, len(loss) // 100)
    smooth = np.convolve(loss, np.ones(window) / window, mode="valid") * BITS
    left.plot(read[window - 1 :] / 1e6, smooth, label="training")
    read, loss = np.array(history.validation).T
    left.plot(read / 1e6, loss * BITS, "o", label="validation")
    left.axhline(entropy * BITS, color="gray", linestyle=":", label="letter frequencies alone")
    left.set(title="Learning", xlabel="million characters read", ylabel="bits per character", ylim=(0, None))
    left.legend()

    bars = right.bar(["fastrnn", "NumPy reference"], speeds, color=["tab:blue", "gray"])
    right.bar_label(bars, fmt="{:,.0f}")
    right.set(
        title=f"Training step ({CELLS[cell]}): {speeds[0] / speeds[1]:.1f} times as fast",
        ylabel="characters per second",
    )
    right.margins(y=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# --- the program -----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a character-level text generator, then let it write.")
    add = parser.add_argument
    add("--text", type=Path, metavar="FILE", help="UTF-8 text to learn (source of Python's own library)")
    add("--cell", choices=CELLS, default="gru", help="kind of recurrent layer (%(default)s)")
    add("--seconds", type=positive(float), default=40.0, help="time for training (%(default)s)")
    add("--updates", type=positive(int), help="train for so many updates instead, the same on any machine")
    add("--batch", type=positive(int), default=16, help="streams of text read side by side (%(default)s)")
    add("--steps", type=positive(int), default=64, help="characters that a gradient reaches back (%(default)s)")
    add("--learning-rate", type=positive(float), default=4e-3, help="Adam's step at the start (%(default)s)")
    add("--vocabulary", type=positive(int), default=2500, help="most characters to tell apart (%(default)s)")
    add("--seed-text", metavar="TEXT", help="what the written text begins with (what the learned text begins with)")
    add("--length", type=positive(int, zero=True), default=800, help="characters to write (%(default)s)")
    add(
        "--temperature", type=positive(float, zero=True), default=0.6, help="0: the likeliest, 1: by odds (%(default)s)"
    )
    add("--seed", type=positive(int, zero=True), default=0, help="of all random numbers (%(default)s)")
    save_help = "the model's file, for this program's --load alone (%(default)s)"
    add("--save", type=Path, default=Path("text_generation.npz"), metavar="FILE", help=save_help)
    add("--load", type=Path, metavar="FILE", help="write with a saved model, without training")
    add("--picture", type=Path, default=Path("text_generation.png"), metavar="FILE", help="its file (%(default)s)")
    return parser.parse_args(arguments)


def positive(kind: type, zero: bool = False) -> Any:
    """An argparse type for numbers above (or from) 0."""

    def parse(text: str) -> Any:
        value = kind(text)
        if not 0 <= value < float("inf") or (value == 0 and not zero):
            raise ValueError
        return value

    parse.__name__ = f"{'non-negative' if zero else 'positive'} {kind.__name__}"  # for argparse's message
    return parse


def prepare_text(options: argparse.Namespace) -> tuple[Vocabulary, str, np.ndarray, np.ndarray]:
    """The vocabulary, a text to begin with, and as streams (length, B) the text for training and for validation."""
    text = read_text(options.text) if options.text else standard_library_text()
    if not text:
        raise UserError(f"{options.text} is empty")
    vocabulary = Vocabulary.of(text, options.vocabulary)
    print(f"{len(text):,} characters of text, {len(vocabulary):,} different ones")
    seed_text = first_words(text, vocabulary) if options.text else "def "

    numbers = vocabulary.encode(text)
    cut = len(numbers) - len(numbers) // 20
    training = side_by_side(numbers[:cut], options.batch)
    validation = side_by_side(numbers[cut:][:32_000], min(options.batch, 32))
    if len(training) < 2 or len(validation) < 2:
        raise UserError(f"{len(text):,} characters are too few for --batch {options.batch}; give a longer text")
    return vocabulary, seed_text, training, validation


def first_words(text: str, vocabulary: Vocabulary, length: int = 24) -> str:
    """What the text itself begins with: the known characters of its first line that is not blank."""
    line = text.lstrip().partition("\n")[0]
    return "".join(character for character in line[:length] if character in vocabulary) or vocabulary.characters[0]


def choose_seed_text(options: argparse.Namespace, vocabulary: Vocabulary, default: str) -> str:
    missing = sorted({character for character in options.seed_text or "" if character not in vocabulary})
    if missing:
        raise UserError(f"--seed-text: the text that was learned has no {' '.join(missing)!r} (or hardly any)")
    return options.seed_text or default


def train_and_save(options: argparse.Namespace) -> tuple[TextModel, Vocabulary, str]:
    """Learn the text, save the model, and show how well and how fast that went."""
    check_writable(options.save)  # now rather than after the training
    vocabulary, seed_text, training, validation = prepare_text(options)
    choose_seed_text(options, vocabulary, seed_text)
    model = TextModel(options.cell, len(vocabulary), options.seed)
    entropy = unigram_entropy(training.ravel())
    print(f"{CELLS[options.cell]}, {sum(value.size for value in model.parameters.values()):,} parameters")
    print(f"knowing only how frequent each character is would cost {entropy * BITS:.2f} bits/char\n")

    history = train(model, training, validation, options)
    loss = history.validation[-1][1]
    print(f"\ntext not seen in training: loss {loss:.3f} ({loss * BITS:.2f} bits/char)")
    model.save(options.save, vocabulary, seed_text)
    print(f"model saved in {options.save}")
    show_speed(model, training, history, entropy, options)
    return model, vocabulary, seed_text


def check_writable(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}")


def show_speed(
    model: TextModel, training: np.ndarray, history: History, entropy: float, options: argparse.Namespace
) -> None:
    fused, reference = compare_with_reference(model, *next(chunks(training, options.steps)), options.seconds / 10)
    print(
        f"a training step: {fused:,.0f} chars/s, {fused / reference:.1f} times the NumPy reference's {reference:,.0f} "
        "(with the same loss and gradients)"
    )
    try:
        draw(options.picture, history, entropy, (fused, reference), options.cell)
        print(f"picture saved in {options.picture}")
    except ImportError:
        print("no picture: matplotlib is not installed")


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a character must not end the program
    try:
        model, vocabulary, seed_text = TextModel.load(options.load) if options.load else train_and_save(options)
        seed_text = choose_seed_text(options, vocabulary, seed_text)
        print(f"\nfrom here on the model writes, at temperature {options.temperature}:\n{RULE}")
        written = generate(model, vocabulary, seed_text, options.length, options.temperature, options.seed)
        print_stream(itertools.chain(seed_text, written))
        print(RULE, flush=True)
    except BrokenPipeError:  # whoever read the output, such as head, has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's own flush at the end
        sys.exit(1)
    except (UserError, OSError) as error:
        sys.exit(f"text_generation: {error}")
    except KeyboardInterrupt:
        sys.exit("\ntext_generation: stopped")


if __name__ == "__main__":
    main()

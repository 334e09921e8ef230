"""Train a character-level text generator in Keras, then let it write.

Each character becomes a vector (embedding), a simple recurrent layer reads the vectors one by one, and a dense layer
with softmax says how likely each character is to come next.

    characters (B, T) -> Embedding (B, T, 64) -> SimpleRNN (B, T, 128) -> Dense, softmax (B, T, V)

The text is cut into B streams that are read side by side, T characters in each step of training. The layer is stateful:
it goes on where the step before ended, while gradients reach back to the step's beginning (truncated backpropagation
through time). Gradients whose norm is above 1 are scaled down to it, and dropout keeps the layer from relying on single
numbers of the embedding. The program is the same with fastrnn's layer and with Keras'. Try

    python examples/keras_text_generation.py
    python examples/keras_text_generation.py --backend stock --epochs 1
    python examples/keras_text_generation.py --text novel.txt --epochs 20 --seed-text "The "
"""

from __future__ import annotations

import argparse
import collections
import math
import os
import sys
import sysconfig
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")  # tensorflow and jax do as well

import numpy as np

try:
    import keras
    from keras import layers
except ModuleNotFoundError as error:
    sys.exit(f"keras_text_generation: {error.name} is not installed: pip install keras {os.environ['KERAS_BACKEND']}")

import fastrnn.keras

BACKENDS = {"fastrnn": fastrnn.keras.SimpleRNN, "stock": layers.SimpleRNN}
UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for characters too rare to be in the vocabulary


class UserError(Exception):
    """Something the user can mend; its message is all they need to see."""


# --- text ------------------------------------------------------------------------------------------------------------


def standard_library_text() -> str:
    """The source of Python's own top-level modules, in alphabetical order."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    if not paths:
        raise UserError("this Python comes without its library's source; give a text of your own with --text FILE")
    return "".join(path.read_text("ascii", errors="ignore") for path in paths)


def read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


class Vocabulary:
    """The most frequent characters of a text and their numbers; number 0 is for all others."""

    def __init__(self, text: str, limit: int) -> None:
        frequent = [c for c, _ in collections.Counter(text).most_common(limit) if c != UNKNOWN]
        self.characters = [UNKNOWN, *sorted(frequent)]
        self._number_of = {c: number for number, c in enumerate(self.characters)}

    def encode(self, text: str) -> np.ndarray:
        return np.array([self._number_of.get(c, 0) for c in text], np.int32)


def streams(numbers: np.ndarray, batch: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets, (steps of training * B, T) each: rows k*B to k*B + B - 1 are the k-th step's.

    Stream b is the b-th of B equal parts of the text, and row k*B + b is its k-th piece: so the state that the layer
    keeps for row b of a batch is that of the same stream in the batch before. Targets are the inputs' successors.
    """
    count = (len(numbers) - 1) // (batch * steps)

    def pieces(part: np.ndarray) -> np.ndarray:
        return part.reshape(batch, count, steps).swapaxes(0, 1).reshape(count * batch, steps)

    size = batch * count * steps
    return pieces(numbers[:size]), pieces(numbers[1 : size + 1])


# --- the network -----------------------------------------------------------------------------------------------------


def make_model(backend: str, characters: int, batch: int, steps: int | None, dropout: float) -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input(batch_shape=(batch, steps), dtype="int32"),
            layers.Embedding(characters, 64),
            BACKENDS[backend](128, return_sequences=True, stateful=True, dropout=dropout),
            layers.Dense(characters, activation="softmax"),
        ]
    )


class EmptyMind(keras.callbacks.Callback):
    """Each time that a text is read begins without a state."""

    def __init__(self, layer: layers.SimpleRNN) -> None:
        super().__init__()
        self.layer = layer

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.layer.reset_state()

    def on_test_begin(self, logs: dict | None = None) -> None:
        self.layer.reset_state()


def write(model: keras.Sequential, vocabulary: Vocabulary, options: argparse.Namespace) -> str:
    """Draw one character after the other, each from what the model makes of those before."""
    writer = make_model(options.backend, len(vocabulary.characters), 1, None, 0.0)
    writer.set_weights(model.get_weights())
    random = np.random.default_rng(options.seed)
    written, given = options.seed_text, options.seed_text
    for _ in range(options.length):
        likely = np.asarray(writer.predict_on_batch(vocabulary.encode(given)[None]))[0, -1].astype("float64")
        likely[0] = 0  # no symbol for unknown characters
        likely = (likely / likely.max()) ** (1 / options.temperature)
        given = vocabulary.characters[random.choice(len(likely), p=likely / likely.sum())]
        written += given
    return written


# --- what came of it -------------------------------------------------------------------------------------------------


def unigram_bits(numbers: np.ndarray) -> float:
    """Bits per character that remain for someone who knows only how frequent each character is."""
    p = np.bincount(numbers) / len(numbers)
    p = p[p > 0]
    return float(-(p * np.log2(p)).sum())


def draw(path: Path, history: dict[str, list[float]], unigram: float, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    epochs = range(1, len(history["loss"]) + 1)
    axes.plot(epochs, np.array(history["loss"]) / math.log(2), "o-", label="in training (with dropout)")
    axes.plot(epochs, np.array(history["val_loss"]) / math.log(2), "o-", label="text not seen in training")
    axes.axhline(unigram, color="gray", linestyle=":", label="knowing only how frequent characters are")
    axes.set(title=title, xlabel="epoch", ylabel="bits per character", ylim=(0, None))
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# --- the program -----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a character-level text generator.")
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="fastrnn", help="whose recurrent layer (%(default)s)")
    add("--text", type=Path, metavar="FILE", help="UTF-8 text to learn (the source of Python's library)")
    add("--most", type=positive, default=1_000_000, help="characters of it (%(default)s)")
    add("--characters", type=positive, default=3000, help="different ones that are known (%(default)s)")
    add("--epochs", type=positive, default=3, help="times that the text is read (%(default)s)")
    add("--batch", type=positive, default=64, help="streams that are read side by side (%(default)s)")
    add("--steps", type=positive, default=64, help="characters that gradients reach back (%(default)s)")
    add("--dropout", type=float, default=0.1, help="share of the embedding that is left out (%(default)s)")
    add("--learning-rate", type=float, default=3e-3, help="Adam's step (%(default)s)")
    add("--length", type=int, default=300, help="characters to write (%(default)s)")
    add("--seed-text", metavar="TEXT", help="what the text that it writes begins with (what the text begins with)")
    add("--temperature", type=float, default=0.7, help="below 1: fewer surprises, above: more (%(default)s)")
    add("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    picture = Path("keras_text_generation.png")
    add("--picture", type=Path, default=picture, metavar="FILE", help="its file (%(default)s)")
    options = parser.parse_args(arguments)
    if not 0 <= options.dropout < 1:
        parser.error(f"--dropout must be from 0 to below 1, got {options.dropout}")
    if not options.temperature > 0:
        parser.error(f"--temperature must be above 0, got {options.temperature}")
    return options


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        keras.utils.set_random_seed(options.seed)
        text = (read_text(options.text) if options.text else standard_library_text())[: options.most]
        cut = len(text) * 9 // 10
        needed = options.batch * options.steps
        if len(text) - cut <= needed:
            too_few = f"{len(text):,} characters are too few for {options.batch} streams of {options.steps}"
            raise UserError(f"{too_few}: a tenth, which is held out, must be more than {needed:,}")
        options.seed_text = options.seed_text or text[:10]
        vocabulary = Vocabulary(text[:cut], options.characters)
        numbers = vocabulary.encode(text)
        training, held_out = (streams(n, options.batch, options.steps) for n in (numbers[:cut], numbers[cut:]))
        print(f"{cut:,} characters to learn, {len(text) - cut:,} held out; {len(vocabulary.characters)} different ones")

        model = make_model(options.backend, len(vocabulary.characters), options.batch, options.steps, options.dropout)
        optimizer = keras.optimizers.Adam(options.learning_rate, clipnorm=1.0)
        model.compile(optimizer, "sparse_categorical_crossentropy")
        history = model.fit(
            *training,
            batch_size=options.batch,
            epochs=options.epochs,
            shuffle=False,  # the streams go on from step to step
            validation_data=held_out,
            validation_batch_size=options.batch,
            callbacks=[EmptyMind(model.layers[1])],
        ).history

        unigram = unigram_bits(numbers[:cut])
        print(
            f"text not seen in training: {history['val_loss'][-1] / math.log(2):.2f} bits per character "
            f"({unigram:.2f} knowing only how frequent characters are)"
        )
        print("-" * 80, write(model, vocabulary, options), "-" * 80, sep="\n")
        try:
            draw(options.picture, history, unigram, f"SimpleRNN, {options.backend}")
            print(f"picture saved in {options.picture}")
        except ImportError:
            print("no picture: matplotlib is not installed")
    except UserError as error:
        sys.exit(f"keras_text_generation: {error}")
    except KeyboardInterrupt:
        sys.exit("\nkeras_text_generation: stopped")


if __name__ == "__main__":
    main()

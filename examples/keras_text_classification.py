"""Classify texts in Keras with each of the three recurrent layers, and compare them.

    words (B, T), 0 being padding -> Embedding with mask (B, T, 128) -> SimpleRNN, LSTM or GRU (B, 128)
        -> Dense, softmax (B, categories)

Texts differ in length. They are padded on the right, to the length of the longest in their batch or cut off at
`--longest`; the embedding tells by a mask where padding is, and the recurrent layer stops at each text's own end.

The texts are those of 20 Newsgroups, if scikit-learn has them on this machine (`fetch_20newsgroups()` puts them there;
this program does not download anything). Without them they are functions from packages of Python's standard library:
which package does this piece of source come from? The program is the same with fastrnn's layers and with Keras'. Try

    python examples/keras_text_classification.py
    python examples/keras_text_classification.py --backend stock --cell gru --epochs 1
"""

from __future__ import annotations

import argparse
import ast
import collections
import os
import re
import sys
import sysconfig
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")  # tensorflow and jax do as well

import numpy as np

try:
    import keras
    from keras import layers
except ModuleNotFoundError as error:
    sys.exit(
        f"keras_text_classification: {error.name} is not installed: pip install keras {os.environ['KERAS_BACKEND']}"
    )

import fastrnn.keras

BACKENDS = {"fastrnn": fastrnn.keras, "stock": layers}
CELLS = ("SimpleRNN", "LSTM", "GRU")
PACKAGES = ("asyncio", "ctypes", "email", "http", "importlib", "multiprocessing", "tkinter", "unittest", "xml")


class UserError(Exception):
    """Something the user can mend; its message is all they need to see."""


# --- texts -----------------------------------------------------------------------------------------------------------

Text = tuple[str, str]  # a text and its category


def newsgroups() -> list[Text] | None:
    """What scikit-learn has downloaded before, without the headers, quotes and footers that give the answer away."""
    try:
        from sklearn.datasets import fetch_20newsgroups

        found = fetch_20newsgroups(subset="all", remove=("headers", "footers", "quotes"), download_if_missing=False)
    except (ModuleNotFoundError, OSError):  # not installed, or not on disk
        return None
    return [(text, found.target_names[k]) for text, k in zip(found.data, found.target, strict=True)]


def standard_library() -> list[Text]:
    """The source of each function and method, and its package."""
    pieces = []
    for package in PACKAGES:
        for path in sorted(Path(sysconfig.get_path("stdlib"), package).rglob("*.py")):
            if "test" in path.parts or "tests" in path.parts:
                continue
            source = path.read_text("utf-8")
            lines = source.split("\n")
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    pieces.append(("\n".join(lines[node.lineno - 1 : node.end_lineno]), package))
    if not pieces:
        raise UserError("this Python comes without its library's source")
    return pieces


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+|\d+|[^\w\s]", text.lower())


class Numbers:
    """The most frequent words of some texts and their numbers: 0 is padding, 1 is for all others."""

    def __init__(self, texts: list[list[str]], limit: int) -> None:
        counts = collections.Counter(word for text in texts for word in text)
        self._number_of = {word: k for k, (word, _) in enumerate(counts.most_common(limit), start=2)}
        self.count = len(self._number_of) + 2

    def encode(self, texts: list[list[str]], longest: int) -> np.ndarray:
        """(N, T), padded on the right."""
        rows = [[self._number_of.get(word, 1) for word in text] for text in texts]
        return keras.utils.pad_sequences(rows, maxlen=longest, padding="post", truncating="post")


class Batches(keras.utils.PyDataset):
    """Texts of about the same length side by side, so that there is little padding; batches in random order.

    Their lengths are rounded up to whole twenties: some backends compile a program for each length.
    """

    def __init__(self, words: np.ndarray, labels: np.ndarray, size: int, seed: int) -> None:
        super().__init__()
        lengths = (words != 0).sum(1)
        order = np.argsort(lengths, kind="stable")
        parts = [order[k : k + size] for k in range(0, len(order), size)]
        self._batches = [(words[part, : -(-max(lengths[part].max(), 1) // 20) * 20], labels[part]) for part in parts]
        self._random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self._batches[k]

    def on_epoch_end(self) -> None:
        self._random.shuffle(self._batches)


# --- the network -----------------------------------------------------------------------------------------------------


def make_model(backend: str, cell: str, words: int, categories: int) -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(words, 128, mask_zero=True),
            getattr(BACKENDS[backend], cell)(128, dropout=0.2),
            layers.Dense(categories, activation="softmax"),
        ]
    )


# --- what came of it -------------------------------------------------------------------------------------------------


def draw(path: Path, results: dict[str, tuple[float, float]], guess: float, title: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5), layout="constrained")
    left.bar(list(results), [accuracy for accuracy, _ in results.values()])
    left.axhline(guess, color="gray", linestyle=":", label="always the commonest")
    left.set(title="Accuracy on texts not seen in training", ylim=(0, 1))
    left.legend()
    right.bar(list(results), [seconds for _, seconds in results.values()])
    right.set(title=f"Time of training, {title}", ylabel="s")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# --- the program -----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Classify texts with each of the three recurrent layers.")
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="fastrnn", help="whose recurrent layers (%(default)s)")
    add("--cell", action="append", choices=CELLS, help="one of the layers; can be given again (all three)")
    add("--epochs", type=positive, default=5, help="times that all texts are read (%(default)s)")
    add("--batch", type=positive, default=32, help="texts that are read side by side (%(default)s)")
    add("--longest", type=positive, default=200, help="words after which a text is cut off (%(default)s)")
    add("--most", type=positive, default=8000, help="texts (%(default)s)")
    add("--words", type=positive, default=8000, help="words that are known (%(default)s)")
    add("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    picture = Path("keras_text_classification.png")
    add("--picture", type=Path, default=picture, metavar="FILE", help="its file (%(default)s)")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        found = newsgroups()
        print("20 Newsgroups" if found else "20 Newsgroups are not on this machine: Python's standard library instead")
        pieces = [piece for piece in found or standard_library() if piece[0].strip()]
        order = np.random.default_rng(options.seed).permutation(len(pieces))[: options.most]
        texts = [(words_of(pieces[k][0]), pieces[k][1]) for k in order]
        categories = sorted({category for _, category in texts})
        labels = np.array([categories.index(category) for _, category in texts])
        cut = len(texts) * 4 // 5
        numbers = Numbers([words for words, _ in texts[:cut]], options.words)
        rows = numbers.encode([words for words, _ in texts], options.longest)
        training = Batches(rows[:cut], labels[:cut], options.batch, options.seed)
        held_out = Batches(rows[cut:], labels[cut:], options.batch, options.seed)
        guess = float(np.mean(labels[cut:] == np.bincount(labels[:cut]).argmax()))
        print(f"{cut:,} texts of {len(categories)} categories to learn, {len(texts) - cut:,} held out")

        results = {}
        for cell in options.cell or CELLS:
            print(f"\n{cell}")
            keras.utils.set_random_seed(options.seed)
            model = make_model(options.backend, cell, numbers.count, len(categories))
            optimizer = keras.optimizers.Adam(1e-3, clipnorm=1.0)
            model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
            start = time.perf_counter()
            model.fit(training, epochs=options.epochs)
            seconds = time.perf_counter() - start
            results[cell] = (model.evaluate(held_out, verbose=0)[1], seconds)

        print(f"\ntexts not seen in training (always the commonest category: {guess:.1%})")
        for cell, (accuracy, seconds) in results.items():
            print(f"{cell:<10} accuracy {accuracy:.1%}  training {seconds:.1f} s")
        try:
            draw(options.picture, results, guess, options.backend)
            print(f"picture saved in {options.picture}")
        except ImportError:
            print("no picture: matplotlib is not installed")
    except UserError as error:
        sys.exit(f"keras_text_classification: {error}")
    except KeyboardInterrupt:
        sys.exit("\nkeras_text_classification: stopped")


if __name__ == "__main__":
    main()

"""Train a character-level classifier of names in PyTorch: is it a woman's, a man's or a family's?

The network is the classic tutorial's: a letter, as one number in V, goes through a linear layer into the hidden layer
(input to hidden), a recurrent layer reads letter after letter, and a linear layer with log-softmax (to output) says how
likely each category is after the last one.

    letters (T, B, V) -> i2h (T, B, H) -> RNN, LSTM or GRU -> its last state (B, H) -> i2o -> log-softmax (B, 3)

The program is the same with fastrnn's layers and with torch.nn's; only the class of the recurrent layer differs. Names
are those of the United States' census of 1990, in the package `names` (pip install names). Try

    python examples/torch_names.py
    python examples/torch_names.py --backend stock
    python examples/torch_names.py --cell lstm --epochs 10 --name Ada --name Turing
"""

from __future__ import annotations

import argparse
import random
import string
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import fastrnn.torch

BACKENDS = {"fastrnn": fastrnn.torch, "stock": nn}
CATEGORIES = ("female", "male", "last")
LETTERS = string.ascii_lowercase


class UserError(Exception):
    """Something the user can mend; its message is all they need to see."""


# --- names -----------------------------------------------------------------------------------------------------------


def read_names(most: int) -> dict[str, list[str]]:
    """Up to `most` of the commonest names of each category that are in no other."""
    try:
        import names
    except ModuleNotFoundError:
        raise UserError("the names are in the package 'names': pip install names") from None
    files = {"female": "first:female", "male": "first:male", "last": "last"}
    lists = {}
    for category in CATEGORIES:
        lines = Path(names.FILES[files[category]]).read_text("ascii").split("\n")
        lists[category] = [line.split()[0].lower() for line in lines if line.strip()]
    common = {category: set(found[:5000]) for category, found in lists.items()}
    chosen = {}
    for category in CATEGORIES:
        others = set().union(*(common[other] for other in CATEGORIES if other != category))
        chosen[category] = [name for name in lists[category] if name not in others][:most]
    return chosen


Example = tuple[str, int]  # a name and the number of its category


def split(chosen: dict[str, list[str]], seed: int) -> tuple[list[Example], list[Example]]:
    """Nine tenths to learn from, and the rest to be asked about, both in random order."""
    examples = [(name, k) for k, category in enumerate(CATEGORIES) for name in chosen[category]]
    random.Random(seed).shuffle(examples)
    cut = len(examples) // 10
    return examples[cut:], examples[:cut]


def encode(batch: list[str]) -> PackedSequence:
    """Names as rows of letters, each one number 1 in V."""
    rows = [nn.functional.one_hot(torch.tensor([LETTERS.index(c) for c in name]), len(LETTERS)) for name in batch]
    return pack_sequence([row.float() for row in rows], enforce_sorted=False)


# --- the network -----------------------------------------------------------------------------------------------------


class NameClassifier(nn.Module):
    def __init__(self, backend: str, cell: str, hidden_size: int) -> None:
        super().__init__()
        self.i2h = nn.Linear(len(LETTERS), hidden_size)
        self.recurrent = getattr(BACKENDS[backend], cell.upper())(hidden_size, hidden_size)
        self.i2o = nn.Linear(hidden_size, len(CATEGORIES))

    def forward(self, letters: PackedSequence) -> Tensor:
        """The logarithms of the categories' probabilities, (B, 3)."""
        _, state = self.recurrent(letters._replace(data=self.i2h(letters.data)))
        h_n = state[0] if isinstance(state, tuple) else state
        return self.i2o(h_n[-1]).log_softmax(-1)


def balance(examples: list[Example]) -> Tensor:
    """Weights of the categories in the loss: there are fewer men's names than others."""
    counts = torch.bincount(torch.tensor([k for _, k in examples]), minlength=len(CATEGORIES))
    return len(examples) / (len(CATEGORIES) * counts.clamp(min=1))


def confusion(model: NameClassifier, examples: list[Example]) -> Tensor:
    """How many names of each category (row) were taken for each (column)."""
    table = torch.zeros(len(CATEGORIES), len(CATEGORIES), dtype=torch.long)
    with torch.inference_mode():
        guesses = model(encode([name for name, _ in examples])).argmax(-1)
    for (_, category), guess in zip(examples, guesses.tolist(), strict=True):
        table[category, guess] += 1
    return table


def accuracy(table: Tensor) -> float:
    """The mean of the categories' own: to answer always the same would give a third."""
    return float((table.diag() / table.sum(1).clamp(min=1)).mean())


def train(model: NameClassifier, training: list[Example], held_out: list[Example], options: argparse.Namespace) -> list:
    """(loss, accuracy on names not seen in training) of each epoch."""
    batches = [training[k : k + options.batch] for k in range(0, len(training), options.batch)]
    data = [(encode([name for name, _ in b]), torch.tensor([k for _, k in b])) for b in batches]
    optimizer = torch.optim.Adam(model.parameters(), options.learning_rate)
    criterion = nn.NLLLoss(weight=balance(training))
    history, start = [], time.perf_counter()
    for epoch in range(options.epochs):
        total = 0.0
        random.Random(epoch).shuffle(data)
        for letters, category in data:
            optimizer.zero_grad()
            loss = criterion(model(letters), category)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        history.append((total / len(data), accuracy(confusion(model, held_out))))
        done, elapsed = epoch + 1, time.perf_counter() - start
        bar = ("#" * (24 * done // options.epochs)).ljust(24, ".")
        print(
            f"[{bar}] epoch {done:>3}  loss {history[-1][0]:.3f}  accuracy {history[-1][1]:.1%}  "
            f"{done * len(training) / elapsed:,.0f} names/s",
            flush=True,
        )
    return history


# --- what came of it -------------------------------------------------------------------------------------------------


def draw(path: Path, history: list, table: Tensor, title: str) -> None:
    """The course of training, and which category was taken for which."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    epochs = range(1, len(history) + 1)
    left.plot(epochs, [loss for loss, _ in history], label="loss in training")
    left.plot(epochs, [share for _, share in history], label="accuracy on other names")
    left.axhline(1 / len(CATEGORIES), color="gray", linestyle=":", label="guessing")
    left.set(title=title, xlabel="epoch", ylim=(0, None))
    left.legend()
    shares = table / table.sum(1, keepdim=True).clamp(min=1)
    right.imshow(shares.tolist(), cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(shares.tolist()):
        for column, share in enumerate(line):
            right.text(column, row, f"{share:.0%}", ha="center", va="center", color="white" if share > 0.5 else "black")
    ticks = range(len(CATEGORIES))
    right.set(title="Names not seen in training", xlabel="taken for", ylabel="is", xticks=ticks, yticks=ticks)
    right.set_xticklabels(CATEGORIES)
    right.set_yticklabels(CATEGORIES)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def describe(model: NameClassifier, name: str) -> str:
    with torch.inference_mode():
        odds = model(encode([name.lower()]))[0].exp().tolist()
    return f"{name}: " + ", ".join(f"{c} {o:.0%}" for c, o in zip(CATEGORIES, odds, strict=True))


# --- the program -----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a character-level classifier of names.")
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="fastrnn", help="whose recurrent layer (%(default)s)")
    add("--cell", choices=("rnn", "lstm", "gru"), default="rnn", help="kind of recurrent layer (%(default)s)")
    add("--epochs", type=positive, default=12, help="times that all names are read (%(default)s)")
    add("--batch", type=positive, default=32, help="names that are read side by side (%(default)s)")
    add("--hidden", type=positive, default=128, help="hidden units (%(default)s)")
    add("--learning-rate", type=float, default=2e-3, help="Adam's step (%(default)s)")
    add("--most", type=positive, default=4000, help="names of each category (%(default)s)")
    add("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    add("--name", action="append", default=[], metavar="NAME", help="a name to be asked about; can be given again")
    add("--picture", type=Path, default=Path("torch_names.png"), metavar="FILE", help="its file (%(default)s)")
    options = parser.parse_args(arguments)
    for name in options.name:
        if not name or set(name.lower()) - set(LETTERS):
            parser.error(f"--name: the network knows the letters a to z alone, got {name!r}")
    return options


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        torch.manual_seed(options.seed)
        training, held_out = split(read_names(options.most), options.seed)
        model = NameClassifier(options.backend, options.cell, options.hidden)
        print(f"{len(training):,} names to learn, {len(held_out):,} to be asked about")
        print(model)
        history = train(model, training, held_out, options)
        table = confusion(model, held_out)
        print(f"accuracy on names not seen in training: {accuracy(table):.1%}")
        for name in options.name or ["Ada", "Alan", "Turing"]:
            print(describe(model, name))
        try:
            draw(options.picture, history, table, f"{options.cell.upper()}, {options.backend}")
            print(f"picture saved in {options.picture}")
        except ImportError:
            print("no picture: matplotlib is not installed")
    except UserError as error:
        sys.exit(f"torch_names: {error}")
    except KeyboardInterrupt:
        sys.exit("\ntorch_names: stopped")


if __name__ == "__main__":
    main()

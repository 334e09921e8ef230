"""Train a character-level model of names in JAX and Equinox, and let it write new ones.

    letters (B, T) -> embedding (B, T, E) -> GRU or LSTM (B, T, H) -> linear layer (B, T, 27) -> the next letter

The layer's parameters are those of Equinox' own cell. With `--backend stock` that cell runs in `lax.scan`, as Equinox'
documentation has it; with `--backend fastrnn` a function of `fastrnn.jax` takes the same parameters through all steps
at once. The rest of the program (`jit`, gradients, optax' Adam, and the loop of single steps that writes names) does
not know which. Names are those of the United States' census of 1990, in the package `names`. Try

    python examples/jax_names.py
    python examples/jax_names.py --backend stock
    python examples/jax_names.py --list female --cell lstm --write 12
"""

from __future__ import annotations

import argparse
import math
import random
import string
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

try:
    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import optax
except ModuleNotFoundError as error:
    sys.exit(f"jax_names: {error.name} is not installed: pip install equinox jax optax")

import fastrnn.jax

BACKENDS = ("fastrnn", "stock")
CELLS = {"gru": eqx.nn.GRUCell, "lstm": eqx.nn.LSTMCell}
LISTS = {"last": "last", "female": "first:female", "male": "first:male"}
SYMBOLS = "." + string.ascii_lowercase  # a name begins after a point, and ends with one
PAD = -1

State = Any  # h (B, H), or (h, c) of an LSTM


class UserError(Exception):
    """Something the user can mend; its message is all they need to see."""


# --- names -----------------------------------------------------------------------------------------------------------


def read_names(which: str, most: int) -> list[str]:
    """Up to `most` of the commonest names of a list."""
    try:
        import names
    except ModuleNotFoundError:
        raise UserError("the names are in the package 'names': pip install names") from None
    lines = Path(names.FILES[LISTS[which]]).read_text("ascii").split("\n")
    return [line.split()[0].lower() for line in lines if line.strip()][:most]


def encode(names: list[str]) -> np.ndarray:
    """Names as rows of symbols' numbers, each between two points, (names, longest + 2); the rest is PAD."""
    table = np.full((len(names), max(map(len, names)) + 2), PAD, np.int32)
    for row, name in zip(table, names, strict=True):
        row[: len(name) + 2] = [SYMBOLS.index(symbol) for symbol in f".{name}."]
    return table


def bits_of_frequencies(training: list[str], held_out: list[str]) -> float:
    """Bits a symbol that a model needs which knows nothing but how common each symbol is."""
    counts = Counter("".join(f"{name}." for name in training))
    symbols = "".join(f"{name}." for name in held_out)
    return -sum(math.log2((counts[s] + 1) / (counts.total() + len(SYMBOLS))) for s in symbols) / len(symbols)


# --- the network -----------------------------------------------------------------------------------------------------


class Recurrent(eqx.Module):
    """Equinox' cell over a batch of sequences."""

    cell: Any
    backend: str = eqx.field(static=True)

    def __call__(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        """y (B, T, H) and the last state, from x (B, T, E) and a state."""
        return self._in_kernels(x, state) if self.backend == "fastrnn" else jax.vmap(self._in_scan)(x, state)

    def _in_scan(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        def step(state: State, x_t: jax.Array) -> tuple[State, jax.Array]:
            state = self.cell(x_t, state)
            return state, state[0] if isinstance(state, tuple) else state

        state, y = jax.lax.scan(step, state, x)
        return y, state

    def _in_kernels(self, x: jax.Array, state: State) -> tuple[jax.Array, State]:
        cell = self.cell
        second = jnp.zeros_like(cell.bias)  # fastrnn has two biases, as PyTorch; a GRU's differ in the new value
        if isinstance(cell, eqx.nn.GRUCell):
            second = second.at[2 * cell.hidden_size :].set(cell.bias_n)
        weights = [cell.weight_ih, cell.weight_hh, cell.bias, second]
        run = fastrnn.jax.lstm if isinstance(cell, eqx.nn.LSTMCell) else fastrnn.jax.gru
        y, state = run(x, weights, jax.tree.map(lambda s: s[None], state), batch_first=True)
        return y, jax.tree.map(lambda s: s[0], state)

    def zeros(self, rows: int) -> State:
        h = jnp.zeros((rows, self.cell.hidden_size))
        return (h, h) if isinstance(self.cell, eqx.nn.LSTMCell) else h


class NameModel(eqx.Module):
    embedding: eqx.nn.Embedding
    recurrent: Recurrent
    output: eqx.nn.Linear

    def __init__(self, backend: str, cell: str, hidden_size: int, key: jax.Array) -> None:
        keys = jax.random.split(key, 3)
        self.embedding = eqx.nn.Embedding(len(SYMBOLS), hidden_size // 4, key=keys[0])
        self.recurrent = Recurrent(CELLS[cell](hidden_size // 4, hidden_size, key=keys[1]), backend)
        self.output = eqx.nn.Linear(hidden_size, len(SYMBOLS), key=keys[2])

    def __call__(self, symbols: jax.Array, state: State) -> tuple[jax.Array, State]:
        """The logarithms of the next symbols' probabilities, (B, T, 27), and the state to go on from."""
        y, state = self.recurrent(self.embedding.weight[symbols], state)
        return jax.nn.log_softmax(y @ self.output.weight.T + self.output.bias), state


def loss_of(model: NameModel, names: jax.Array) -> jax.Array:
    """-log of the probability of a symbol, on average over all names (B, T)."""
    given, wanted = names[:, :-1], names[:, 1:]
    log_odds, _ = model(jnp.maximum(given, 0), model.recurrent.zeros(len(names)))
    own = jnp.take_along_axis(log_odds, jnp.maximum(wanted, 0)[..., None], -1)[..., 0]
    inside = wanted != PAD
    return -(own * inside).sum() / inside.sum()


@eqx.filter_jit
def bits(model: NameModel, names: jax.Array) -> jax.Array:
    return loss_of(model, names) / math.log(2)


def train(
    model: NameModel, training: np.ndarray, held_out: np.ndarray, options: argparse.Namespace
) -> tuple[NameModel, list[tuple[float, float]]]:
    """The trained model, and (bits in training, bits on names not seen in training) of each epoch."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(options.learning_rate))
    moments = optimizer.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit(donate="all-except-first")
    def step(names: jax.Array, model: NameModel, moments: Any) -> tuple[NameModel, Any, jax.Array]:
        loss, gradients = eqx.filter_value_and_grad(loss_of)(model, names)
        changes, moments = optimizer.update(gradients, moments)
        return eqx.apply_updates(model, changes), moments, loss / math.log(2)

    shuffle = np.random.default_rng(options.seed)
    batches = max(1, len(training) // options.batch)
    history, start = [], time.perf_counter()
    for epoch in range(options.epochs):
        losses = []
        for chosen in np.array_split(shuffle.permutation(len(training))[: batches * options.batch], batches):
            model, moments, loss = step(jnp.asarray(training[chosen]), model, moments)
            losses.append(loss)
        history.append((float(np.mean(losses)), float(bits(model, held_out))))
        done, elapsed = epoch + 1, time.perf_counter() - start
        bar = ("#" * (24 * done // options.epochs)).ljust(24, ".")
        print(
            f"[{bar}] epoch {done:>3}  bits a letter {history[-1][0]:.3f}  of other names {history[-1][1]:.3f}  "
            f"{done * batches * options.batch / elapsed:,.0f} names/s",
            flush=True,
        )
    return model, history


@eqx.filter_jit
def write(model: NameModel, key: jax.Array, count: int, longest: int = 12) -> jax.Array:
    """New names, letter by letter, `count` side by side: (longest, count) numbers of symbols."""

    def step(carried: tuple[jax.Array, State], key: jax.Array) -> tuple[tuple[jax.Array, State], jax.Array]:
        symbols, state = carried
        log_odds, state = model(symbols[:, None], state)
        symbols = jax.random.categorical(key, log_odds[:, 0])
        return (symbols, state), symbols

    start = jnp.zeros(count, jnp.int32), model.recurrent.zeros(count)
    return jax.lax.scan(step, start, jax.random.split(key, longest))[1]


def as_words(symbols: jax.Array) -> list[str]:
    return ["".join(SYMBOLS[s] for s in column).split(".")[0].capitalize() for column in np.asarray(symbols).T]


# --- what came of it -------------------------------------------------------------------------------------------------


def draw(path: Path, history: list, model: NameModel, name: str, baseline: float, title: str) -> None:
    """The course of training, and what the model expects while it reads a name that it did not learn."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    epochs = range(1, len(history) + 1)
    left.plot(epochs, [own for own, _ in history], label="names in training")
    left.plot(epochs, [other for _, other in history], label="other names")
    left.axhline(baseline, color="gray", linestyle=":", label="letters' frequencies")
    left.set(title=title, xlabel="epoch", ylabel="bits a letter")
    left.legend()
    symbols = encode([name])
    log_odds, _ = model(symbols[:, :-1], model.recurrent.zeros(1))
    odds = np.exp(np.asarray(log_odds[0]))
    right.imshow(odds.T, cmap="Blues", vmin=0, aspect="auto")
    right.plot(range(len(odds)), symbols[0, 1:], "o", color="tab:orange", markersize=4, label="what comes")
    title = f"What comes next in {name.capitalize()}?"
    right.set(title=title, xlabel="read so far", xticks=range(len(odds)), yticks=range(len(SYMBOLS)))
    right.set_xticklabels(list(f".{name}"))
    right.set_yticklabels(list(SYMBOLS), fontsize=7)
    right.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# --- the program -----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a character-level model of names, and let it write new ones.")
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="fastrnn", help="what runs the recurrent layer (%(default)s)")
    add("--cell", choices=CELLS, default="gru", help="kind of recurrent layer (%(default)s)")
    add("--list", choices=LISTS, default="last", help="of names (%(default)s)")
    add("--most", type=positive, default=8000, help="names that are read (%(default)s)")
    add("--epochs", type=positive, default=6, help="times that all names are read (%(default)s)")
    add("--batch", type=positive, default=64, help="names side by side (%(default)s)")
    add("--hidden", type=positive, default=128, help="hidden units, in fours (%(default)s)")
    add("--learning-rate", type=float, default=4e-3, help="Adam's step (%(default)s)")
    add("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    add("--write", type=positive, default=8, help="new names (%(default)s)")
    add("--picture", type=Path, default=Path("jax_names.png"), metavar="FILE", help="its file (%(default)s)")
    options = parser.parse_args(arguments)
    if options.hidden % 4:
        parser.error(f"--hidden: must be a multiple of 4, got {options.hidden}")
    return options


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    try:
        names = read_names(options.list, options.most)
        random.Random(options.seed).shuffle(names)
        cut = max(1, len(names) // 10)
        held_out, training = names[:cut], names[cut:]
        if len(training) < options.batch:
            raise UserError(f"{len(training)} names are too few for batches of {options.batch}")
        table = encode(names)  # all of one width, so that programs are compiled once
        keys = jax.random.split(jax.random.key(options.seed))
        model = NameModel(options.backend, options.cell, options.hidden, keys[0])
        baseline = bits_of_frequencies(training, held_out)
        print(f"{len(training):,} names to learn, {len(held_out):,} others; {baseline:.3f} bits by frequencies alone")
        model, history = train(model, table[cut:], table[:cut], options)
        print(f"bits a letter of names not seen in training: {history[-1][1]:.3f}")
        print("new names:", ", ".join(as_words(write(model, keys[1], options.write))))
        try:
            draw(options.picture, history, model, held_out[0], baseline, f"{options.cell.upper()}, {options.backend}")
            print(f"picture saved in {options.picture}")
        except ImportError:
            print("no picture: matplotlib is not installed")
    except UserError as error:
        sys.exit(f"jax_names: {error}")
    except KeyboardInterrupt:
        sys.exit("\njax_names: stopped")


if __name__ == "__main__":
    main()

"""Train a network in PyTorch that tells, while it listens, who is speaking: a label for every frame of speech.

Nine men say two Japanese vowels, /ae/. Each frame is 12 coefficients of linear prediction, and an utterance has 7 to 29
of them: the data set Japanese Vowels (Kudo, Toyama & Shimbo, "Multidimensional curve classification using
passing-through regions", 1999), whose files are in the package `sktime` (pip install --no-deps sktime).

    frames (T, B, 12) -> LSTM (T, B, H) and its state -> linear layer (T, B, 9) -> log-softmax

Training goes through the utterances in chunks of some frames. The state at a chunk's end is where the next one starts,
but no gradient flows back over that border: backpropagation through time, truncated. What was trained on chunks then
listens in chunks, too, to speech that has not ended yet, and the program checks that it hears what it would have heard
of the whole utterance. It is the same with fastrnn's LSTM and with torch.nn's. Try

    python examples/torch_speech.py
    python examples/torch_speech.py --backend stock
    python examples/torch_speech.py --chunk 4 --hidden 128 --layers 3
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

import fastrnn.torch

BACKENDS = {"fastrnn": fastrnn.torch, "stock": nn}
COEFFICIENTS, SPEAKERS = 12, 9

State = tuple[Tensor, Tensor]  # h and c, (layers, B, H)


class UserError(Exception):
    """Something the user can mend; its message is all they need to see."""


# --- speech ----------------------------------------------------------------------------------------------------------


class Utterance(NamedTuple):
    frames: Tensor  # (T, 12)
    speaker: int


def read_speech(part: str) -> list[Utterance]:
    """The utterances of "TRAIN" or "TEST"."""
    package = importlib.util.find_spec("sktime")  # not imported: it would load much that is not needed
    if package is None or not package.submodule_search_locations:
        raise UserError("the recordings are in the package 'sktime': pip install --no-deps sktime")
    folder = Path(package.submodule_search_locations[0], "datasets", "data", "JapaneseVowels")
    path = folder / f"JapaneseVowels_{part}.ts"
    if not path.is_file():
        raise UserError(f"this version of sktime does not have {path.name}")
    utterances = []
    for line in path.read_text("ascii").splitlines():
        if not line or line[0] in "@#":
            continue
        *channels, speaker = line.split(":")
        values = [[float(value) for value in channel.split(",")] for channel in channels]
        utterances.append(Utterance(torch.tensor(values).T.contiguous(), int(speaker) - 1))
    return utterances


def normalized(utterances: list[Utterance], like: list[Utterance]) -> list[Utterance]:
    """Each coefficient with the mean and deviation of 0 and 1 that `like` gets so."""
    frames = torch.cat([u.frames for u in like])
    mean, deviation = frames.mean(0), frames.std(0)
    return [u._replace(frames=(u.frames - mean) / deviation) for u in utterances]


class Batch(NamedTuple):
    """Utterances side by side; what is past an utterance's end has the speaker -1."""

    frames: Tensor  # (T, B, 12)
    speakers: Tensor  # (T, B)


def batch_of(utterances: list[Utterance]) -> Batch:
    frames = pad_sequence([u.frames for u in utterances])
    speakers = pad_sequence([torch.full((len(u.frames),), u.speaker) for u in utterances], padding_value=-1)
    return Batch(frames, speakers)


# --- the network -----------------------------------------------------------------------------------------------------


class Listener(nn.Module):
    def __init__(self, backend: str, hidden_size: int, layers: int, dropout: float) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.recurrent = BACKENDS[backend].LSTM(COEFFICIENTS, hidden_size, layers, dropout=between)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, SPEAKERS)

    def forward(self, frames: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The logarithms of the speakers' probabilities at each frame, (T, B, 9), and the state to go on from."""
        heard, state = self.recurrent(frames, state)
        return self.output(self.dropout(heard)).log_softmax(-1), state


def train(
    model: Listener, training: list[Utterance], held_out: list[Utterance], options: argparse.Namespace
) -> list[tuple[float, float, float]]:
    """(loss, accuracy by frames, by utterances) of each epoch, the latter two on the other file."""
    optimizer = torch.optim.Adam(model.parameters(), options.learning_rate)
    criterion = nn.NLLLoss(ignore_index=-1, reduction="sum")
    shuffle, utterances = random.Random(options.seed), list(training)
    frames_in_all = sum(len(u.frames) for u in training)
    history, start = [], time.perf_counter()
    for epoch in range(options.epochs):
        model.train()
        shuffle.shuffle(utterances)
        total = 0.0
        for k in range(0, len(utterances), options.batch):
            batch = batch_of(utterances[k : k + options.batch])
            state = None
            for frames, speakers in zip(*(part.split(options.chunk) for part in batch), strict=True):
                optimizer.zero_grad()
                log_odds, state = model(frames, state)
                loss = criterion(log_odds.flatten(0, 1), speakers.flatten())
                (loss / (speakers >= 0).sum()).backward()
                nn.utils.clip_grad_norm_(model.parameters(), options.clip)
                optimizer.step()
                state = tuple(s.detach() for s in state)
                total += loss.item()
        history.append((total / frames_in_all, *accuracies(model, held_out)))
        done, elapsed = epoch + 1, time.perf_counter() - start
        bar = ("#" * (24 * done // options.epochs)).ljust(24, ".")
        print(
            f"[{bar}] epoch {done:>3}  loss {history[-1][0]:.3f}  frames {history[-1][1]:.1%}  "
            f"utterances {history[-1][2]:.1%}  {done * frames_in_all / elapsed:,.0f} frames/s",
            flush=True,
        )
    return history


# --- listening -------------------------------------------------------------------------------------------------------


def accuracies(model: Listener, utterances: list[Utterance]) -> tuple[float, float]:
    """How many frames were labelled right, and of how many utterances the sum over all frames says who it is."""
    model.eval()
    batch = batch_of(utterances)
    with torch.inference_mode():
        log_odds, _ = model(batch.frames)
    inside = batch.speakers >= 0
    frames = (log_odds.argmax(-1) == batch.speakers)[inside].double().mean().item()
    verdicts = (log_odds * inside.unsqueeze(-1)).sum(0).argmax(-1)
    return frames, (verdicts == batch.speakers[0]).double().mean().item()


def listen(model: Listener, frames: Tensor, chunk: int) -> Tensor:
    """The labels' log-probabilities of speech (T, B, 12) of which only some frames are there at a time."""
    model.eval()
    state, heard = None, []
    with torch.inference_mode():
        for piece in frames.split(chunk):
            log_odds, state = model(piece, state)
            heard.append(log_odds)
    return torch.cat(heard)


def check_stream(model: Listener, utterances: list[Utterance], chunk: int) -> None:
    """Raise an AssertionError unless chunk by chunk the model hears what it hears in whole utterances."""
    frames = batch_of(utterances).frames
    with torch.inference_mode():
        whole, _ = model.eval()(frames)
    for size in sorted({1, chunk}):
        torch.testing.assert_close(listen(model, frames, size), whole, rtol=1e-4, atol=1e-4)
        print(f"listening to {size} frame{'s' * (size > 1)} at a time gives the same labels as to all at once")


# --- what came of it -------------------------------------------------------------------------------------------------


def hardest(model: Listener, utterances: list[Utterance]) -> Utterance:
    """Of those that are told right in the end, the one whose speaker the model took for others for longest."""
    odds = listen(model, batch_of(utterances).frames, 1)

    def doubts(k: int) -> int:
        guesses = odds[: len(utterances[k].frames), k].argmax(-1)
        right = guesses == utterances[k].speaker
        return int((~right).sum()) if right[-1] else -1

    return utterances[max(range(len(utterances)), key=doubts)]


def draw(path: Path, history: list, model: Listener, utterance: Utterance, options: argparse.Namespace) -> None:
    """The course of training, and what the model thinks while it listens."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    epochs = range(1, len(history) + 1)
    for label, values in zip(
        ("loss in training", "frames labelled right", "utterances told right"), zip(*history, strict=True), strict=True
    ):
        left.plot(epochs, values, label=label)
    left.axhline(1 / SPEAKERS, color="gray", linestyle=":", label="guessing")
    left.set(title=f"LSTM, {options.backend}", xlabel="epoch", ylim=(0, 2))
    left.legend()
    odds = listen(model, utterance.frames.unsqueeze(1), options.chunk)[:, 0].exp()
    image = right.imshow(odds.T.tolist(), cmap="Blues", vmin=0, vmax=1, aspect="auto", origin="lower")
    for border in range(options.chunk, len(odds), options.chunk):
        right.axvline(border - 0.5, color="gray", linewidth=0.5)
    speakers = range(SPEAKERS)
    title = f"An utterance of speaker {utterance.speaker + 1}, heard in chunks"
    right.set(title=title, xlabel="frame", ylabel="speaker", yticks=speakers)
    right.set_yticklabels([str(k + 1) for k in speakers])
    figure.colorbar(image, label="probability")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


# --- the program -----------------------------------------------------------------------------------------------------


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a network that tells who is speaking while it listens.")
    add = parser.add_argument
    add("--backend", choices=BACKENDS, default="fastrnn", help="whose LSTM (%(default)s)")
    add("--epochs", type=positive, default=20, help="times that all utterances are heard (%(default)s)")
    add("--batch", type=positive, default=18, help="utterances side by side (%(default)s)")
    add("--chunk", type=positive, default=8, help="frames in a chunk (%(default)s)")
    add("--hidden", type=positive, default=64, help="units of a layer (%(default)s)")
    add("--layers", type=positive, default=2, help="layers of the LSTM (%(default)s)")
    add("--dropout", type=float, default=0.4, help="after each layer (%(default)s)")
    add("--clip", type=float, default=1.0, help="the gradients' largest norm (%(default)s)")
    add("--learning-rate", type=float, default=2e-3, help="Adam's step (%(default)s)")
    add("--seed", type=int, default=0, help="of all random numbers (%(default)s)")
    add("--picture", type=Path, default=Path("torch_speech.png"), metavar="FILE", help="its file (%(default)s)")
    options = parser.parse_args(arguments)
    if not 0 <= options.dropout < 1:
        parser.error(f"--dropout: must be from 0 to less than 1, got {options.dropout}")
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
        raw = read_speech("TRAIN")
        training, held_out = normalized(raw, like=raw), normalized(read_speech("TEST"), like=raw)
        model = Listener(options.backend, options.hidden, options.layers, options.dropout)
        print(f"{len(training)} utterances to learn, {len(held_out)} others to label")
        print(model)
        history = train(model, training, held_out, options)
        frames, whole = accuracies(model, held_out)
        print(f"accuracy on the others: {frames:.1%} of the frames, {whole:.1%} of the utterances")
        check_stream(model, held_out, options.chunk)
        try:
            draw(options.picture, history, model, hardest(model, held_out), options)
            print(f"picture saved in {options.picture}")
        except ImportError:
            print("no picture: matplotlib is not installed")
    except UserError as error:
        sys.exit(f"torch_speech: {error}")
    except KeyboardInterrupt:
        sys.exit("\ntorch_speech: stopped")


if __name__ == "__main__":
    main()

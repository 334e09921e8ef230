"""What fastrnn's times are to each other: what lengths save, what a second direction and a call cost, what turns with
PyTorch's operators do, and the shares of the peak with each instruction set and type.

    python bench/ratios.py

What is set against each other is measured in turns, as in compare.py, and figures are medians. Prints a table for a
README.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

import fastrnn
import machine
from fastrnn import _core
from grid import GATES, Case, Shape
from problem import layer
from report import CELL_LABELS
from roofline import meeting, peak
from timing import QUICK, Effort, Timed, measure

CELLS = ("lstm", "gru", "rnn_tanh")
STEPS = 100
Row = tuple[str, str, str]


def medians(effort: Effort, *calls: Callable[[], Any], dtype: str = "float32") -> list[float]:
    """Seconds a call of each, then the machine's peak."""
    functions = {str(index): Timed(call, nullcontext) for index, call in enumerate(calls)}
    peaks = measure(functions, effort, partial(peak, dtype, machine.cores(), effort))
    return [*(statistics.median(function.readings) for function in functions.values()), statistics.median(peaks)]


def normal(*shape: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def square(cell: str, batch: int, hidden: int, dtype: str = "float32") -> Case:
    return Case(cell, "inference", Shape(batch, hidden, hidden), STEPS, dtype)


def train(network: Any, x: Any, lengths: Any = None) -> None:
    network.backward(network.forward(x, lengths=lengths)[2], x)


def of_lengths(cell: str, batch: int, hidden: int, effort: Effort) -> Row:
    """Lengths uniform in 1 … T over full length, times mean(lengths) / T."""
    network, x = layer(square(cell, batch, hidden), seed=0), normal(STEPS, batch, hidden)
    fast, lengths = network.prepare(), np.random.default_rng(0).integers(1, STEPS, batch, endpoint=True)
    inference, shorter, training, shorter_training, _ = medians(
        effort,
        lambda: fast(x),
        lambda: fast(x, lengths=lengths),
        lambda: train(network, x),
        lambda: train(network, x, lengths),
    )
    share = lengths.mean() / STEPS
    title = f"{CELL_LABELS[cell]}, {batch}, {hidden}: lengths uniform in 1 … T, time over the share of full length"
    return title, f"{shorter / inference / share:.2f}", f"{shorter_training / training / share:.2f}"


def of_directions(cell: str, effort: Effort) -> Row:
    case, x = square(cell, 1, 128), normal(STEPS, 1, 128)
    single, double = layer(case, seed=0).prepare(), layer(case, seed=0, bidirectional=True).prepare()

    def on(threads: int, network: Any) -> None:
        fastrnn.set_num_threads(threads)
        network(x)

    one, two, _ = medians(effort, lambda: on(1, single), lambda: on(2, double))
    title = f"{CELL_LABELS[cell]}, 1, 128: both directions on two cores, time over that of one on one"
    return title, f"{two / one:.2f}", ""


def of_a_call(cell: str, effort: Effort) -> Row:
    fast, x = layer(square(cell, 1, 64), seed=0).prepare(), normal(101, 1, 64)
    short, long, _ = medians(effort, lambda: fast(x[:1]), lambda: fast(x))
    title = f"{CELL_LABELS[cell]}, 1, 64: a prepared call of one step, time over what a step more takes in a longer one"
    return title, f"{(short - (long - short) / 100) * 1e6:.1f} µs", ""


def of_turns(cell: str, batch: int, hidden: int, effort: Effort) -> Row:
    """fastrnn.torch in a program with other layers: two pools of threads may wait for each other."""
    import torch

    from peers.fastrnn_torch import FastrnnTorch

    torch.set_num_threads(machine.cores())
    network = FastrnnTorch.layers[cell](hidden, hidden)
    linear, x = torch.nn.Linear(hidden, hidden), torch.randn(STEPS, batch, hidden)
    y, dy = torch.randn_like(x).requires_grad_(), torch.ones_like(x)  # between the two
    own, others = list(network.parameters()), list(linear.parameters())

    def learn(call: Callable[[], Any], known: list[Any]) -> None:
        torch.autograd.grad(call(), known, dy)

    def both() -> Any:
        return linear(network(x)[0])

    with torch.inference_mode():
        one, other, turns, _ = medians(effort, lambda: network(x), lambda: linear(x), both)
    inference = turns / (one + other)
    one, other, turns, _ = medians(
        effort,
        lambda: learn(lambda: network(x)[0], own),
        lambda: learn(lambda: linear(y), [y, *others]),
        lambda: learn(both, own + others),
    )
    title = f"{CELL_LABELS[cell]}, {batch}, {hidden}: fastrnn.torch and a linear layer in turns, time over both alone"
    return title, f"{inference:.2f}", f"{turns / (one + other):.2f}"


def of_weights(cell: str, hidden: int, effort: Effort) -> Row:
    """Of one sequence, from what ten times as many steps take: with one input next to nothing but W_hh is read."""
    case = Case(cell, "inference", Shape(1, hidden, 1), STEPS, "float32")
    fast, x = layer(case, seed=0).prepare(), normal(10 * STEPS, 1, 1)
    threads, rows = machine.cores(), GATES[cell] * hidden
    rates: list[float] = []

    def alone() -> None:
        rates.append(_core.weight_rate("float32", rows, hidden, threads, 0.003))

    short, long, _, _ = medians(effort, lambda: fast(x[:STEPS]), lambda: fast(x), alone)
    step, best = (long - short) / (9 * STEPS), 4 * rows * hidden / statistics.median(rates)
    title = f"{CELL_LABELS[cell]}, 1, {hidden}: a step's reads of W_hh alone, over the time of a step"
    of = f"{best * 1e6:.2f} of {step * 1e6:.2f} µs; threads meet in {meeting(threads) * 1e6:.2f}"
    return title, f"{best / step:.0%} ({of})", ""


def of_the_peak(cell: str, isa: str, dtype: str, effort: Effort) -> Row:
    """Of the instruction set's own."""
    _core.set_isa(isa)
    case = square(cell, 64, 256, dtype)
    network, x = layer(case, seed=0), normal(STEPS, 64, 256, dtype=dtype)
    inference, training, ceiling = medians(effort, lambda: network(x), lambda: train(network, x), dtype=dtype)
    flops = case.flops(STEPS * 64)
    title = f"{CELL_LABELS[cell]}, 64, 256: share of the FMA peak, {isa}, {dtype}"
    return title, f"{flops / inference / ceiling:.0%}", f"{3 * flops / training / ceiling:.0%}"


def rows(effort: Effort) -> Iterator[Row]:
    threads = machine.cores()
    fastrnn.set_num_threads(threads)
    for shape in ((16, 128), (64, 256), (32, 512)):
        for cell in CELLS:
            yield of_lengths(cell, *shape, effort)
    for cell in CELLS:
        yield of_directions(cell, effort)
    fastrnn.set_num_threads(threads)
    for cell in CELLS:
        yield of_a_call(cell, effort)
    if importlib.util.find_spec("torch"):
        for shape in ((1, 128), (64, 256)):
            for cell in CELLS:
                yield of_turns(cell, *shape, effort)
    else:
        print("fastrnn.torch was left out, for want of torch; pip install torch", file=sys.stderr)
    for hidden in (128, 256, 512, 1024):
        for cell in CELLS:
            yield of_weights(cell, hidden, effort)
    for isa in reversed(_core.available_isas()):
        for dtype in ("float32", "float64"):
            for cell in CELLS:
                yield of_the_peak(cell, isa, dtype, effort)


def main() -> None:
    parser = argparse.ArgumentParser(description="Set fastrnn's times against each other.")
    parser.add_argument("--quick", action="store_true", help="measure briefly")
    effort = QUICK if parser.parse_args().quick else Effort()
    print("| cell, B, H | inference | training |\n|---|---|---|")
    for row in rows(effort):
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()

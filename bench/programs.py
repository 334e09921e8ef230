"""Times the programs in examples/ as their users run them: whole, in turns with fastrnn's layers and the stock ones.

    python bench/programs.py                                     all of them, in ten minutes or more
    python bench/programs.py torch_names torch_speech --rounds 5

A program's time has all of it: imports, data, compilation, training, the picture. Prints a table for
examples/README.md.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import machine

FOLDER = Path(__file__).parents[1] / "examples"
# What each prints of data that it has not learned from.
METRICS = {
    "keras_text_generation": r"not seen in training: (\S+ bits per character)",
    "keras_forecasting": r"not seen in training: (\S+ ppm)",
    "keras_text_classification": r"(\w+) +accuracy (\S+)",
    "torch_speech": r"accuracy on the others: (.*)",
    "torch_names": r"accuracy on names not seen in training: (.*)",
    "jax_names": r"(bits a letter) of names not seen in training: (.*)",
}
BACKENDS = ("fastrnn", "stock")


def run(program: str, backend: str, folder: str) -> tuple[float, str]:
    """Seconds that it took, and how good it became."""
    options = "--backend", backend, "--picture", f"{folder}/{program}.png"
    command = [sys.executable, str(FOLDER / f"{program}.py"), *options]
    variables = {"KERAS_BACKEND": "torch"} | os.environ
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=variables)
    seconds = time.perf_counter() - begin
    found = re.findall(METRICS[program], done.stdout)
    if done.returncode or not found:
        sys.exit(f"programs: {program} --backend {backend} failed:\n{done.stderr[-2000:]}")
    return seconds, ", ".join(" ".join(parts) if isinstance(parts, tuple) else parts for parts in found)


def row(program: str, rounds: int) -> str:
    readings: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    metrics: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for backend in BACKENDS[:: -1 if turn % 2 else 1]:
                print(f"{program}, {backend}: {turn + 1} of {rounds} ...", end=" ", file=sys.stderr, flush=True)
                seconds, metrics[backend] = run(program, backend, folder)
                readings[backend].append(seconds)
                print(f"{seconds:.1f} s, {metrics[backend]}", file=sys.stderr, flush=True)
    ours, stock = (statistics.median(readings[backend]) for backend in BACKENDS)
    times = f"{ours:.1f} s", f"{stock:.1f} s", f"{stock / ours:.2f}"
    cells = program, *(metrics[backend] for backend in BACKENDS), *times
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time the programs in examples/ with fastrnn's and with stock layers.")
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"{', '.join(METRICS)}; all if none is named")
    parser.add_argument("--rounds", type=int, default=1, help="runs of each, of which the median counts (%(default)s)")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.programs if name not in METRICS]:
        parser.error(f"{unknown[0]!r} is none of {', '.join(METRICS)}")
    if given.rounds < 1:
        parser.error("--rounds must be at least 1")
    print(f"{machine.describe()['cpu']}, {machine.cores()} cores", file=sys.stderr)
    rows = [row(program, given.rounds) for program in given.programs or METRICS]
    print("| program | fastrnn | stock | time, fastrnn | stock | times as fast |\n|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()

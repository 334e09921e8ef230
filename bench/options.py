"""The command line of compare.py. Loads none of the libraries, so that they can be told about threads before."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import machine
from grid import (
    CELLS,
    DEFAULT_CELLS,
    DEFAULT_MODES,
    DTYPES,
    FULL_GRID,
    GRID,
    MODES,
    QUICK_GRID,
    STEPS,
    Case,
    Shape,
    cases,
)
from peers import REGISTRY


@dataclass(frozen=True)
class Options:
    cases: list[Case]
    peers: list[str] | None  # None: all that are installed
    threads: int
    quick: bool
    output: Path | None  # of the results, without ending
    picture_only: list[Path] | None
    markdown_only: Path | None


def parse(arguments: Sequence[str] | None = None) -> Options:
    parser = argparse.ArgumentParser(description="Time fastrnn beside other libraries.")

    def choose(name: str, help: str, choices: Sequence[str], default: Sequence[str] | None = None) -> None:  # noqa: A002
        parser.add_argument(name, nargs="+", choices=choices, default=default, metavar=name[2:-1].upper(), help=help)

    parser.add_argument("--quick", action="store_true", help="measure briefly, and few shapes where none are given")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="also H = 1024")
    size.add_argument("--shapes", nargs="+", type=_shape, metavar="BxH", help="B rows, H units and inputs; or BxIxH")
    choose("--cells", ", ".join(CELLS), CELLS, DEFAULT_CELLS)
    choose("--modes", "; ".join(f"{name}: {what}" for name, what in MODES.items()), tuple(MODES), DEFAULT_MODES)
    choose("--peers", f"{', '.join(REGISTRY)}; fastrnn always is one", tuple(REGISTRY))
    parser.add_argument("--threads", type=_positive, default=machine.cores(), help="one a core, %(default)s here")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0])
    parser.add_argument("--steps", type=_positive, default=STEPS, help="T, %(default)s where not given")
    parser.add_argument("--output", type=Path, metavar="NAME", help="of the results, without ending")
    only = parser.add_mutually_exclusive_group()
    only.add_argument(
        "--picture-only", nargs="+", type=Path, metavar="FILE.json", help="draw the pictures of earlier results"
    )
    only.add_argument("--markdown-only", type=Path, metavar="FILE.json", help="print earlier results for a README")

    given = parser.parse_args(arguments)
    grid = given.shapes or (FULL_GRID if given.full else QUICK_GRID if given.quick else GRID)
    return Options(
        cases(given.cells, given.modes, grid, given.steps, given.dtype),
        given.peers,
        given.threads,
        given.quick,
        given.output,
        given.picture_only,
        given.markdown_only,
    )


def limit_threads(threads: int) -> None:
    """For libraries that ask the environment when they are loaded."""
    for library in ("OPENBLAS", "MKL", "OMP"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _shape(text: str) -> Shape:
    try:
        return Shape.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None

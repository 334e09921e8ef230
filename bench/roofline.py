"""The rate of multiply-adds that this machine reaches: the ceiling that no recurrent network gets through.

    python bench/roofline.py --threads 4

The native loop keeps all operands in registers and does nothing but multiply-adds, in the vectors of the instruction
set that fastrnn uses (FASTRNN_ISA chooses another). Each counts as two operations.
"""

from __future__ import annotations

import argparse

import fastrnn
import machine
from fastrnn import _core
from grid import DTYPES

SAMPLES = 5
SECONDS = 0.2  # each


def fma_rates(dtype: str, threads: int, samples: int = SAMPLES, seconds: float = SECONDS) -> list[float]:
    """Floating-point operations a second of all threads together, measured so many times."""
    return [_core.fma_rate(dtype, threads, seconds) for _ in range(samples)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the rate of multiply-adds that this machine reaches.")
    parser.add_argument("--threads", type=int, default=machine.cores(), help="default: one a core, %(default)s here")
    threads = parser.parse_args().threads
    if threads < 1:
        parser.error("--threads must be at least 1")
    fastrnn.set_num_threads(threads)
    print(f"{machine.describe()['cpu']}, {_core.isa()}")
    for dtype in DTYPES:
        for count in sorted({1, threads}):
            rates = fma_rates(dtype, count)
            print(
                f"{dtype}, {count} {'thread' if count == 1 else 'threads'}: {max(rates) / 1e9:.0f} GFLOP/s"
                f" ({SAMPLES} measurements from {min(rates) / 1e9:.0f})"
            )


if __name__ == "__main__":
    main()

"""The rate of multiply-adds that this machine reaches, the ceiling that no recurrent network gets through, and how long
its threads take to meet, which they have to at each step that they share.

    python bench/roofline.py --threads 4

The native loop keeps all operands in registers and does nothing but multiply-adds, in the vectors of the instruction
set that fastrnn uses (FASTRNN_ISA chooses another). Each counts as two operations.
"""

from __future__ import annotations

import argparse
import time

import fastrnn
import machine
from fastrnn import _core
from grid import DTYPES
from timing import Effort

SAMPLES = 5
SECONDS = 0.2  # each


def peak(dtype: str, threads: int, effort: Effort) -> float:
    """Floating-point operations a second of all threads together, in a block as those of the functions that are timed:
    it meets the machine in the same state.
    """
    time.sleep(effort.pause)
    if effort.awake_seconds:
        _core.fma_rate(dtype, threads, effort.awake_seconds)
    return _core.fma_rate(dtype, threads, effort.block_seconds)


def meeting(threads: int) -> float:
    """Seconds; of one thread 0. A virtual machine's processors may be moved to cores that are far from each other: then
    this is several times as long, while the peak is the same.
    """
    return 1 / _core.meeting_rate(threads, SECONDS / 50) if threads > 1 else 0.0


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
            rates = [_core.fma_rate(dtype, count, SECONDS) for _ in range(SAMPLES)]
            print(
                f"{dtype}, {count} {'thread' if count == 1 else 'threads'}: {max(rates) / 1e9:.0f} GFLOP/s"
                f" ({SAMPLES} measurements from {min(rates) / 1e9:.0f})"
            )
    print(f"{threads} threads meet in {min(meeting(threads) for _ in range(SAMPLES)) * 1e6:.2f} µs")


if __name__ == "__main__":
    main()

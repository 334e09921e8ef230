"""Times functions beside each other: short blocks of calls, in turns."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Effort:
    """How long to measure. A block is one reading: its time over its number of calls."""

    block_seconds: float = 0.04  # a block has as many calls as fill this time, at least one
    min_blocks: int = 5
    max_blocks: int = 11
    seconds: float = 1.0  # of all blocks of one function together, as far as the two limits allow
    pause: float = 0.08  # before each block: the time for the threads of the library before to fall asleep
    awake_seconds: float = 0.003  # untimed calls before each block, at least one: caches and clock rate recover
    steady: float = 0.9  # share of its best that the machine has to reach for a turn to count

    def plan(self, call_seconds: float, slow: bool) -> tuple[int, int]:
        """How many blocks of how many calls."""
        calls = max(1, math.ceil(self.block_seconds / call_seconds))
        blocks = round(self.seconds / (calls * call_seconds))
        return min(max(blocks, 3 if slow else self.min_blocks), self.max_blocks), calls


QUICK = Effort(block_seconds=0.02, max_blocks=5, seconds=0.1)


@dataclass
class Timed:
    """A function, what is to surround its blocks, and its readings in seconds a call."""

    call: Callable[[], Any]
    context: Callable[[], AbstractContextManager[Any]]
    slow: bool = False  # for orientation only: fewer readings, and no untimed call where that takes long
    call_seconds: float = 0.0  # roughly; of the first call, which may have taken longer than others will
    calls: int = 0  # in each block
    blocks: int = 0  # to be done
    readings: list[float] = field(default_factory=list)

    def estimate(self, effort: Effort) -> None:
        """Choose the numbers of blocks and calls."""
        if self.call_seconds < 10 * effort.block_seconds:
            with self.context():
                self.call_seconds = min(_seconds(self.call, 1) for _ in range(2))
        self.blocks, self.calls = effort.plan(self.call_seconds, self.slow)

    def block(self, effort: Effort) -> None:
        time.sleep(effort.pause)
        with self.context():
            if not (self.slow and self.call_seconds > 1):
                end = time.perf_counter() + effort.awake_seconds
                self.call()
                while time.perf_counter() < end:
                    self.call()
            self.readings.append(_seconds(self.call, self.calls) / self.calls)


def measure(
    functions: Mapping[str, Timed], effort: Effort, peak: Callable[[], float] | None = None, best: float = 0.0
) -> list[float]:
    """Fill in the readings of all functions: one block of each, then the next of each, in alternating order.

    Args:
        peak: what the machine can do now, read before and after each turn of all functions. A turn in which a reading
            is less than `effort.steady` of the best so far does not count and is repeated, as often as there are turns.
        best: what it could do before.

    Returns:
        The readings of `peak` of the turns that count.
    """
    for function in functions.values():
        function.estimate(effort)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        turns = max(function.blocks for function in functions.values())
        peaks: list[float] = []
        turn, repeats = 0, turns
        while turn < turns:
            order = [f for f in functions.values() if turn < f.blocks][:: -1 if turn % 2 else 1]
            before = peak() if peak else 0.0
            for function in order:
                function.block(effort)
            after = peak() if peak else 0.0
            best = max(best, before, after)
            if min(before, after) < effort.steady * best and repeats > 0:
                repeats -= 1
                for function in order:
                    function.readings.pop()
                continue
            peaks += [before, after]
            turn += 1
    finally:
        if collecting:
            gc.enable()
    return peaks


def _seconds(call: Callable[[], Any], times: int) -> float:
    repeat = range(times)
    start = time.perf_counter()
    for _ in repeat:
        call()
    return time.perf_counter() - start


def quartiles(readings: list[float]) -> tuple[float, float, float]:
    if len(readings) == 1:
        return readings[0], readings[0], readings[0]
    first, middle, third = statistics.quantiles(readings, n=4, method="inclusive")
    return first, middle, third

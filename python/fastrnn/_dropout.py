"""Dropout masks that depend on nothing but a seed and a position, so that every engine draws the same ones."""

from __future__ import annotations

import os
import threading

import numpy as np
from numpy.typing import NDArray

_BITS = 24  # of a random number that meet the threshold


def splitmix64(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The output function of SplitMix (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", 2014).

    All arithmetic is modulo 2^64, which is what unsigned arrays do.
    """
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return bits


def _hash(z: int) -> int:
    return int(splitmix64(np.array([z % 2**64], np.uint64))[0])


def kept(seed: int, layer: int, probability: float, shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    """Which elements of `layer`'s input, of shape (T, B, W), are kept when each is dropped with `probability`.

    The seed is hashed before the layer is added: else one seed's next layer would have the next seed's mask.
    """
    position = np.arange(np.prod(shape, dtype=np.int64), dtype=np.uint64).reshape(shape)
    random = splitmix64(position + np.uint64(_hash(_hash(seed) + layer))) >> np.uint64(64 - _BITS)
    keep: NDArray[np.bool_] = random >= np.uint64(int(probability * 2**_BITS))
    return keep


def scale(probability: float) -> float:
    """What kept elements are multiplied by, so that the expected input stays the same."""
    return 1 / (1 - probability) if probability < 1 else 0.0


_lock = threading.Lock()


def _unlock() -> None:
    """In a forked child: a thread that was drawing then is not there to let go."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)


class Seeds:
    """A layer's endless series of mask seeds. Safe to draw from in many threads; can be copied and pickled."""

    def __init__(self, base: int, calls: int = 0) -> None:
        self.base = base
        self.calls = calls

    def draw(self) -> int:
        with _lock:
            self.calls += 1
            position = self.calls
        return _hash(self.base + position)

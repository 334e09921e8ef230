"""What a peer has to offer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from grid import Case
from problem import Answer, Problem


class Peer(ABC):
    """A library. Its file imports it at the top; that fails with ModuleNotFoundError where it is not installed."""

    version: str

    slow = False
    """Whether it is there for orientation only, and is timed less often where it takes long."""

    packs = False
    """Whether it takes and returns PyTorch's PackedSequence."""

    @abstractmethod
    def __init__(self, threads: int) -> None:
        """Let the library use so many threads."""

    def details(self) -> dict[str, str]:
        """What else about the library matters to its speed, such as the libraries that it uses."""
        return {}

    @abstractmethod
    def supports(self, case: Case) -> bool:
        """Whether it has the cell, the mode and the dtype; only who `packs` is asked about packed rows."""

    @abstractmethod
    def prepare(self, problem: Problem) -> Callable[[], Any]:
        """What is timed: a function that does the work of the problem's mode once.

        Conversions of weights and data belong here, outside of it. What it takes and returns is what the library's
        users have: arrays or tensors of its own. In streaming, each call goes on from the state of the one before.
        """

    @abstractmethod
    def answer(self, problem: Problem, result: Any) -> Answer:
        """What such a call returned, as NumPy arrays."""

    def context(self, case: Case) -> AbstractContextManager[Any]:
        """What the library's users put around their calls, such as a switch for inference. It is not timed."""
        return nullcontext()

"""fastrnn itself: a layer, which reads its parameters anew in each call, and a prepared one, which has packed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastrnn
from grid import Case
from problem import Answer, Problem, answer, layer

from .base import Peer


class Layer(Peer):
    version = fastrnn.__version__
    module: Any = fastrnn

    def __init__(self, threads: int) -> None:
        fastrnn.set_num_threads(threads)

    def details(self) -> dict[str, str]:
        config = fastrnn.show_config("dict") or {}
        return {name: str(config[name]) for name in ("isa", "compiler")}

    def supports(self, case: Case) -> bool:
        return True

    def prepare(self, problem: Problem) -> Callable[[], Any]:
        network = self._network(problem)
        if not problem.case.training:
            return _inference(problem, network)

        x, dy, lengths = problem.x, problem.dy, problem.lengths
        dstate = problem.dstate if len(problem.dstate) > 1 else problem.dstate[0]

        def train() -> Any:
            y, state, tape = network.forward(x, lengths=lengths)
            return y, state, network.backward(tape, dy, dstate)

        return train

    def answer(self, problem: Problem, result: Any) -> Answer:
        y, state, *gradients = result
        if not gradients:
            return answer(y, state)
        return answer(y, state, gradients[0].x, gradients[0].parameters)

    def _network(self, problem: Problem) -> Any:
        network = layer(problem.case, self.module)
        network.parameters.update(problem.parameters)
        return network


class Prepared(Layer):
    def supports(self, case: Case) -> bool:
        return not case.training

    def prepare(self, problem: Problem) -> Callable[[], Any]:
        return _inference(problem, self._network(problem).prepare())


class Adapter(Peer):
    """fastrnn in a program of another library; to be named before that library's own peer, if it has one."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        fastrnn.set_num_threads(threads)

    def details(self) -> dict[str, str]:
        return {"isa": str((fastrnn.show_config("dict") or {})["isa"])}


def _inference(problem: Problem, network: Callable[..., Any]) -> Callable[[], Any]:
    x, lengths = problem.x, problem.lengths
    if not problem.case.streaming:
        return lambda: network(x, lengths=lengths)

    state = None

    def step() -> Any:
        nonlocal state
        y, state = network(x, state)
        return y, state

    return step

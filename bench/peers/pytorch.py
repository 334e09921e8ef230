"""PyTorch: nn.LSTM, nn.GRU and nn.RNN."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from grid import Case
from problem import Answer, Problem, answer

from .base import Peer


class PyTorch(Peer):
    version = torch.__version__
    layers: ClassVar[dict[str, Callable[..., Any]]] = {
        "lstm": torch.nn.LSTM,
        "gru": torch.nn.GRU,
        "rnn_tanh": torch.nn.RNN,
        "rnn_relu": lambda *sizes: torch.nn.RNN(*sizes, nonlinearity="relu"),
    }

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def details(self) -> dict[str, str]:
        build = torch.__config__.show()
        names = {"onednn": r"MKL-DNN (v[\d.]+)", "mkl": r"Math Kernel Library Version (\S+)"}
        found = {name: re.search(pattern, build) for name, pattern in names.items()}
        return {name: match[1] for name, match in found.items() if match} | {
            "isa": torch.backends.cpu.get_cpu_capability()
        }

    def supports(self, case: Case) -> bool:
        return case.cell in self.layers

    def context(self, case: Case) -> AbstractContextManager[Any]:
        return torch.inference_mode(not case.training)

    def prepare(self, problem: Problem) -> Callable[[], Any]:
        case = problem.case
        module = self.layers[case.cell](case.shape.input, case.shape.hidden).to(getattr(torch, case.dtype))
        with torch.no_grad():
            for name, array in problem.parameters.items():
                getattr(module, name).copy_(torch.from_numpy(array))
        x = torch.tensor(problem.x, requires_grad=case.training)
        run = module if problem.lengths is None else _packed(module, torch.from_numpy(problem.lengths))

        if case.streaming:
            state = None

            def step() -> Any:
                nonlocal state
                y, state = run(x, state)
                return y, state

            return step

        if case.training:
            dy = torch.from_numpy(problem.dy)
            dstate = [torch.from_numpy(array) for array in problem.dstate]
            sources = [x, *(getattr(module, name) for name in problem.parameters)]

            def train() -> Any:
                y, state = run(x)
                finals = state if isinstance(state, tuple) else (state,)
                return y, state, torch.autograd.grad([y, *finals], sources, [dy, *dstate])

            return train

        return lambda: run(x)

    def answer(self, problem: Problem, result: Any) -> Answer:
        y, state, *gradients = _arrays(result)
        if not gradients:
            return answer(y, state)
        dx, *dparameters = gradients[0]
        return answer(y, state, dx, dict(zip(problem.parameters, dparameters, strict=True)))


def _packed(module: Callable[..., Any], lengths: torch.Tensor) -> Callable[..., Any]:
    """As users with padded sequences have it: to PyTorch's own format and back in each call."""

    def run(x: torch.Tensor) -> Any:
        packed, state = module(pack_padded_sequence(x, lengths, enforce_sorted=False))
        y, _ = pad_packed_sequence(packed, total_length=len(x))
        return y, state

    return run


def _arrays(result: Any) -> Any:
    """Nested tuples of tensors as tuples of arrays."""
    return tuple(map(_arrays, result)) if isinstance(result, tuple) else result.detach().numpy()

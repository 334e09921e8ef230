"""PyTorch: nn.LSTM, nn.GRU and nn.RNN."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from grid import Case
from problem import Answer, Array, Problem, answer

from .base import Peer


class PyTorch(Peer):
    version = torch.__version__
    packs = True
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
        x, dy = torch.tensor(problem.x), torch.from_numpy(problem.dy)
        run = module
        if case.packed:
            packed = _pack(problem, x)
            x, dy = packed.data, _pack(problem, dy).data
            run = _on_data(module, packed)
        elif case.varied_lengths:
            run = _on_padded(module, problem)
        x.requires_grad_(case.training)

        if case.streaming:
            state = None

            def step() -> Any:
                nonlocal state
                y, state = run(x, state)
                return y, state

            return step

        if case.training:
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
            return answer(_padded(problem, y), state)
        dx, *dparameters = gradients[0]
        dparameters = dict(zip(problem.parameters, dparameters, strict=True))
        return answer(_padded(problem, y), state, _padded(problem, dx), dparameters)


def _pack(problem: Problem, x: torch.Tensor) -> PackedSequence:
    return pack_padded_sequence(x, torch.from_numpy(problem.lengths), enforce_sorted=False)


def _padded(problem: Problem, array: Array) -> Array:
    """y or dx in the problem's layout."""
    if not problem.case.packed:
        return array
    packed = _pack(problem, torch.from_numpy(problem.x))._replace(data=torch.from_numpy(array))
    return pad_packed_sequence(packed, total_length=problem.case.steps)[0].numpy()


def _on_padded(module: Callable[..., Any], problem: Problem) -> Callable[..., Any]:
    """As users with padded sequences have it: to PyTorch's own format and back in each call."""

    def run(x: torch.Tensor) -> Any:
        packed, state = module(_pack(problem, x))
        y, _ = pad_packed_sequence(packed, total_length=len(x))
        return y, state

    return run


def _on_data(module: Callable[..., Any], packed: PackedSequence) -> Callable[..., Any]:
    """As users who keep to that format have it: from the data of a PackedSequence to those of another."""

    def run(data: torch.Tensor) -> Any:
        y, state = module(packed._replace(data=data))
        return y.data, state

    return run


def _arrays(result: Any) -> Any:
    """Nested tuples of tensors as tuples of arrays."""
    return tuple(map(_arrays, result)) if isinstance(result, tuple) else result.detach().numpy()

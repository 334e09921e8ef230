"""ONNX Runtime: its operators LSTM, GRU and RNN, bound to arrays once, which is faster than `run`."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import onnxruntime as ort

from grid import Case
from problem import Answer, Array, Problem

from . import onnx_graph
from .base import Peer


class OnnxRuntime(Peer):
    version = ort.__version__
    session: Any = ort.InferenceSession

    def __init__(self, threads: int) -> None:
        self._options = ort.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        self._options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL

    def supports(self, case: Case) -> bool:
        return not case.training and case.dtype == "float32"  # its kernels know no other dtype

    def prepare(self, problem: Problem) -> Callable[[], Any]:
        session = self.session(onnx_graph.model(problem), self._options, providers=["CPUExecutionProvider"])
        turns = cycle([(_bind(session, *turn), turn) for turn in onnx_graph.turns(problem)])  # keeps the arrays

        def run() -> Any:
            binding, (_, returned) = next(turns)
            session.run_with_iobinding(binding)
            return returned

        return run

    def answer(self, problem: Problem, result: Any) -> Answer:
        return onnx_graph.answer_of(result)


def _bind(session: Any, taken: dict[str, Array], returned: dict[str, Array]) -> Any:
    """By addresses: the arrays have to outlive it."""
    binding = session.io_binding()
    for name, array in taken.items():
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    for name, array in returned.items():
        binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    return binding

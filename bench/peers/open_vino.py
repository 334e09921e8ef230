"""OpenVINO: the models of `onnx_graph`, compiled for the CPU, on tensors that share memory with arrays."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import openvino

from grid import Case
from problem import Answer, Array, Problem

from . import onnx_graph
from .base import Peer


class OpenVINO(Peer):
    version = openvino.__version__.split("-")[0]

    def __init__(self, threads: int) -> None:
        self._core = openvino.Core()
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }

    def supports(self, case: Case) -> bool:
        return not case.training and case.dtype == "float32"  # float64 would be computed in float32

    def prepare(self, problem: Problem) -> Callable[[], Any]:
        model = self._core.compile_model(self._core.read_model(onnx_graph.model(problem)), "CPU", self._options)
        turns = cycle([(_request(model, *turn), turn) for turn in onnx_graph.turns(problem)])  # keeps the arrays

        def run() -> Any:
            request, (_, returned) = next(turns)
            request.infer(share_inputs=True, share_outputs=True)
            return returned

        return run

    def answer(self, problem: Problem, result: Any) -> Answer:
        return onnx_graph.answer_of(result)


def _request(model: Any, taken: dict[str, Array], returned: dict[str, Array]) -> Any:
    request = model.create_infer_request()
    for name, array in (taken | returned).items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    return request

"""A case's network as an ONNX model: one operator, with its weights as initializers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from fastrnn import weights
from problem import Answer, Array, Problem, answer

OPERATORS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {"linear_before_reset": 1}),
    "gru_reset_before": ("GRU", {"linear_before_reset": 0}),
    "rnn_tanh": ("RNN", {"activations": ["Tanh"]}),
    "rnn_relu": ("RNN", {"activations": ["Relu"]}),
    "rnn_sigmoid": ("RNN", {"activations": ["Sigmoid"]}),
}
OPSET, IR = 14, 8  # not the newest, which the runtimes may not know yet; the operators are the same


def turns(problem: Problem) -> list[tuple[dict[str, Array], dict[str, Array]]]:
    """Inputs and room for outputs of the calls, by name, on the same memory each time.

    In streaming two sets take turns: the last states of each are the initial ones of the other.
    """
    case = problem.case
    taken: dict[str, Array] = {"X": problem.x}
    if problem.lengths is not None:
        taken["sequence_lens"] = problem.lengths.astype(np.int32)
    states = ["h", "c"] if case.cell == "lstm" else ["h"]
    returned = [
        {"Y": np.zeros((case.steps, 1, case.shape.batch, case.shape.hidden), case.dtype)}
        | {f"Y_{state}": np.zeros((1, case.shape.batch, case.shape.hidden), case.dtype) for state in states}
        for _ in range(2)
    ]
    if not case.streaming:
        return [(taken, returned[0])]
    initial = [taken | {f"initial_{state}": last[f"Y_{state}"] for state in states} for last in returned]
    return [(initial[0], returned[1]), (initial[1], returned[0])]


def model(problem: Problem) -> bytes:
    operator, attributes = OPERATORS[problem.case.cell]
    parameters = weights.to_onnx(operator.lower(), problem.parameters)
    takes, returns = turns(problem)[0]
    names = ["X", "W", "R", "B", "sequence_lens", *(name for name in takes if name.startswith("initial_"))]
    node = onnx.helper.make_node(
        operator,
        [name if name in takes or name in parameters else "" for name in names],
        list(returns),
        hidden_size=problem.case.shape.hidden,
        **attributes,
    )
    graph = onnx.helper.make_graph(
        [node],
        problem.case.cell,
        [_describe(name, array) for name, array in takes.items()],
        [_describe(name, array) for name, array in returns.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in parameters.items()],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=IR)
    onnx.checker.check_model(made)
    serialized: bytes = made.SerializeToString()
    return serialized


def answer_of(result: dict[str, Array]) -> Answer:
    """The answer from what a call returned, by name."""
    y, *state = result.values()
    return answer(y[:, 0], tuple(state))


def _describe(name: str, array: Array) -> Any:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

"""Turning the RNN, LSTM and GRU nodes of a model into fastrnn's operators for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx
import onnx.inliner
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto

from .._options import check_options
from . import _attributes

DOMAIN = "fastrnn"  # csrc/onnxruntime_operators.cpp registers the operators there
OPERATORS = ("RNN", "LSTM", "GRU")
FIRST_OPSET = 7  # before it the operators had other attributes and inputs; ONNX Runtime does not know those either
FIRST_WITH_CONSTANTS = 4  # version of ONNX' format: before it each initializer of a graph had to be an input too
ONNX_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUR_INPUTS = {  # sequence_lens comes last
    "RNN": ("X", "W", "R", "B", "initial_h"),
    "LSTM": ("X", "W", "R", "B", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "initial_h"),
}
_WEIGHTS = (1, 2, 3, 6)  # where W, R, B and P are among our inputs
BITS = ("X", "W", "R", "B", "initial_h", "initial_c", "P", "sequence_lens")  # of the attribute `present`


@dataclass(frozen=True)
class Replaced:
    """What runs in fastrnn. A node has its name here, or that of its first output where it has none.

    Attributes:
        swapped: nodes that do, name -> operator.
        left: RNN, LSTM and GRU nodes that ONNX Runtime runs, name -> why.
    """

    swapped: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        def listed(nodes: dict[str, str]) -> str:
            return ", ".join(f"{name}: {what}" for name, what in nodes.items()) or "nothing"

        left = f"; left to ONNX Runtime {listed(self.left)}" if self.left else ""
        return f"swapped {listed(self.swapped)}{left}"


def rewrite(model: ModelProto, threads: int) -> tuple[ModelProto, Replaced]:
    """The model, changed or another, with fastrnn's operators; they use at most so many threads, 0 being all."""
    if any(_recurrent(node) for function in model.functions for node in _nodes(function)):
        model = _inlined(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    replaced = Replaced()
    for node in _nodes(model.graph):
        if _recurrent(node):
            name, operator = _name(node), node.op_type
            if name in replaced.swapped or name in replaced.left:  # as nodes of two bodies may share
                name = f"{name} ({', '.join(filter(None, node.output))})"
            try:
                if opset < FIRST_OPSET:
                    raise ValueError(f"it is of opset {opset}, before {FIRST_OPSET}")
                _rewrite_node(node, opset, threads)
            except (TypeError, ValueError) as error:
                replaced.left[name] = str(error)
            else:
                replaced.swapped[name] = operator
    for function in model.functions:
        for node in _nodes(function):
            if _recurrent(node):
                replaced.left[_name(node)] = f"it is in the function {function.name}"
    if replaced.swapped:
        if model.ir_version >= FIRST_WITH_CONSTANTS:
            _bring_in(model.graph, {})
            _drop_unused(model.graph)
        if all(entry.domain != DOMAIN for entry in model.opset_import):
            model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))
    return model, replaced


def _inlined(model: ModelProto) -> ModelProto:
    """The model without functions of its own; as it is where the inliner would change what they compute. It forgets the
    defaults of their attributes: calls get them first, but for those that a function around hands on and may not have.
    """
    functions = {(function.domain, function.name, function.overload): function for function in model.functions}
    for graph in (model.graph, *model.functions):
        settled = {attribute.name for attribute in getattr(graph, "attribute_proto", ())}
        for node in _nodes(graph):
            function = functions.get((node.domain, node.op_type, node.overload))
            given = {attribute.name: attribute.ref_attr_name for attribute in node.attribute}
            for default in () if function is None else function.attribute_proto:
                if default.name not in given:
                    node.attribute.append(default)
                elif given[default.name] and given[default.name] not in settled:
                    return model
    return onnx.inliner.inline_local_functions(model)


def _recurrent(node: NodeProto) -> bool:
    return node.op_type in OPERATORS and node.domain in ("", "ai.onnx")


def _name(node: NodeProto) -> str:
    return node.name or next(filter(None, node.output), "?")


def graphs(graph: Any) -> Iterator[Any]:
    """The graph, or function, and the bodies of its If, Loop and Scan nodes, theirs included."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.type == AttributeProto.GRAPH else attribute.graphs


def _nodes(graph: GraphProto | FunctionProto) -> list[NodeProto]:
    return [node for inner in graphs(graph) for node in inner.node]


def _rewrite_node(node: NodeProto, opset: int, threads: int) -> None:
    given = {attribute.name: _value(attribute) for attribute in node.attribute}
    if unknown := given.keys() - onnx.defs.get_schema(node.op_type, opset).attributes.keys():
        raise ValueError(f"it has an attribute {min(unknown)}")
    attributes = _attributes.read(node.op_type, **given)
    inputs = {name: tensor for name, tensor in zip(ONNX_INPUTS, node.input, strict=False) if tensor}
    if missing := [name for name in ("X", "W", "R") if name not in inputs]:
        raise ValueError(f"it lacks the input {missing[0]}")
    if unknown := [name for name in inputs if name not in (*OUR_INPUTS[node.op_type], "sequence_lens")]:
        raise ValueError(f"it has an input {unknown[0]}")
    own_cell, written = attributes.network(peephole="P" in inputs)
    cell, options = check_options(own_cell, 1 + attributes.bidirectional, written)
    values: dict[str, Any] = {
        "cell": cell,
        "bidirectional": int(attributes.bidirectional),
        "reverse": int(attributes.reverse),
        "batch_first": int(attributes.batch_first),
        "hidden_size": attributes.hidden_size,
        "present": sum(1 << BITS.index(name) for name in inputs),
        "outputs": len(node.output),
        "threads": threads,
        "options": int(options is not None),
    }
    if options is not None:
        values |= {
            "activations": " ".join(f"{name} {alpha!r} {beta!r}" for name, alpha, beta in options.activations or ()),
            "clip": options.clip or 0.0,
            "coupled": int(options.coupled_input_forget),
        }
    # ONNX Runtime does not infer types where an input in between is absent: W holds its place.
    node.input[:] = [inputs.get(name, inputs["W"]) for name in OUR_INPUTS[node.op_type]]
    if "sequence_lens" in inputs:
        node.input.append(inputs["sequence_lens"])
    node.domain = DOMAIN
    del node.attribute[:]
    node.attribute.extend(onnx.helper.make_attribute(name, value) for name, value in values.items())


def _bring_in(graph: GraphProto, outer: dict[str, TensorProto]) -> None:
    """Put constants of the graphs around into the bodies where our operators take their weights from them: ONNX Runtime
    tells a node's kernel only of constants of its own graph, and weights shall be packed once."""
    copies: dict[str, str] = {}
    computed = {value.name for value in graph.input} | {name for node in graph.node for name in node.output}
    outer = {name: tensor for name, tensor in outer.items() if name not in computed | _initializers(graph)}
    for node in graph.node if outer else ():
        if node.domain == DOMAIN:
            for place in _WEIGHTS:
                name = node.input[place] if place < len(node.input) else ""
                if name in outer:
                    if name not in copies:
                        copies[name] = f"{name}/fastrnn/{graph.name}/{_name(node)}"
                        graph.initializer.add().CopyFrom(outer[name])
                        graph.initializer[-1].name = copies[name]
                    node.input[place] = copies[name]
    constants = outer | {tensor.name: tensor for tensor in graph.initializer if tensor.name not in computed}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in graph.node
        if node.op_type == "Constant" and [attribute.name for attribute in node.attribute] == ["value"]
    }
    for node in graph.node:
        for body in bodies(node):
            _bring_in(body, constants)


def _initializers(graph: GraphProto) -> set[str]:
    sparse = {tensor.values.name for tensor in graph.sparse_initializer}
    return sparse | {tensor.name for tensor in graph.initializer}


def _drop_unused(graph: GraphProto) -> None:
    """Constants of the outermost graph that no node takes any more: ONNX Runtime would warn of them."""
    taken = {name for node in _nodes(graph) for name in node.input}
    taken |= {value.name for inner in graphs(graph) for value in (*inner.input, *inner.output)}
    for k in reversed(range(len(graph.initializer))):
        if graph.initializer[k].name not in taken:
            del graph.initializer[k]
    for k in reversed(range(len(graph.node))):
        if graph.node[k].op_type == "Constant" and taken.isdisjoint(graph.node[k].output):
            del graph.node[k]


def _value(attribute: AttributeProto) -> Any:
    if attribute.ref_attr_name:
        raise ValueError(f"its attribute {attribute.name} is one of a function")
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.STRING:
        return value.decode("utf-8", "replace")
    if attribute.type == AttributeProto.STRINGS:
        return [name.decode("utf-8", "replace") for name in value]
    return list(value) if attribute.type in (AttributeProto.FLOATS, AttributeProto.INTS) else value

"""fastrnn and ONNX Runtime as a backend of `onnx.backend`.

    import fastrnn.onnx.backend as backend
    outputs = backend.prepare(model, "CPU").run(inputs)

RNN, LSTM and GRU nodes run in fastrnn's kernels, all else in ONNX Runtime: see `fastrnn.onnx.InferenceSession`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.backend.base
import onnxruntime
from onnx import ModelProto, NodeProto

from .._checks import check_int, got
from ._session import InferenceSession

__all__ = ["Backend", "BackendRep", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class BackendRep(onnx.backend.base.BackendRep):
    """A model that is ready to run; its session is `session`."""

    def __init__(self, session: InferenceSession) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs for `inputs`: an array of a model with one input, all arrays in a sequence, or by name.

        Returns a tuple that also takes the outputs' names for indices.
        Raises TypeError or ValueError for inputs that are not as many, else what ONNX Runtime raises.
        """
        names = [value.name for value in self.session.get_inputs()]
        feed = _by_name(names, inputs)
        outputs = [value.name for value in self.session.get_outputs()]
        results: tuple[Any, ...] = onnx.backend.base.namedtupledict("Outputs", outputs)(*self.session.run(None, feed))
        return results


class Backend(onnx.backend.base.Backend):
    """The class that `onnx.backend.test.BackendTest` takes."""

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU, the one device that there is."""
        return str(device).partition(":")[0] == "CPU"

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether it is a model that the checker of ONNX accepts, for a device that there is."""
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError:
            return False
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> BackendRep:
        """A model, checked and loaded.

        Args:
            model: an `onnx.ModelProto`.
            device: "CPU".
            kwargs: attributes of `onnxruntime.SessionOptions`, such as `intra_op_num_threads`.

        Raises:
            TypeError, ValueError: another type, device or attribute.
            onnx.checker.ValidationError: it is no valid model.
        """
        if not isinstance(model, ModelProto):
            raise TypeError(f"model must be an onnx.ModelProto, {got(model)}")
        if not cls.supports_device(device):
            raise ValueError(f"device must be 'CPU', {got(device)}")
        onnx.checker.check_model(model)
        options = onnxruntime.SessionOptions()
        for name, value in kwargs.items():
            if not hasattr(options, name):
                raise ValueError(f"onnxruntime.SessionOptions has no attribute {name!r}")
            setattr(options, name, value)
        return BackendRep(InferenceSession(model, options, providers=["CPUExecutionProvider"]))

    @classmethod
    def run_node(
        cls,
        node: NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[Any, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """The outputs of one node.

        Args:
            node: of any operator.
            inputs: an array for each input that the node has, absent ones left out; or by name.
            device: "CPU".
            outputs_info: dtype and shape of each output; None infers the types, as ONNX can for its own operators.
            kwargs: `opset_version` of the operator's domain, by default the newest that ONNX Runtime knows, and 1 in a
                domain that is not ONNX' own; attributes as in `prepare`.

        Raises:
            TypeError, ValueError: an argument has a wrong type or value; the inputs are not as many.
            onnx.checker.ValidationError: it is no valid node.
        """
        if not isinstance(node, NodeProto):
            raise TypeError(f"node must be an onnx.NodeProto, {got(node)}")
        own = node.domain in ("", "ai.onnx")
        opset = check_int("opset_version", kwargs.pop("opset_version", NEWEST_OPSET if own else 1), 1)
        feed = _by_name(list(dict.fromkeys(filter(None, node.input))), inputs)
        for name, array in feed.items():
            if not isinstance(array, (np.ndarray, np.generic)):
                raise TypeError(f"inputs: {name} must be a NumPy array, {got(array)}")
        feed = {name: np.asarray(array) for name, array in feed.items()}
        outputs = list(filter(None, node.output))
        types: Sequence[Any] = [(None, ())] * len(outputs) if outputs_info is None else outputs_info
        if len(types) != len(outputs):
            raise ValueError(f"outputs_info must have {len(outputs)} pairs ({', '.join(outputs)}), got {len(types)}")
        graph = onnx.helper.make_graph(
            [node],
            node.op_type,
            [_describe(name, array.dtype, array.shape) for name, array in feed.items()],
            [_describe(name, dtype, [None] * len(shape)) for name, (dtype, shape) in zip(outputs, types, strict=True)],
        )
        imports = [onnx.helper.make_opsetid(node.domain, opset)]
        if not own:
            imports.append(onnx.helper.make_opsetid("", NEWEST_OPSET))
        version = onnx.helper.find_min_ir_version_for(imports, ignore_unknown=not own)
        model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=version)
        return cls.prepare(onnx.shape_inference.infer_shapes(model), device, **kwargs).run(feed)


# The newest opset that ONNX and ONNX Runtime both know well enough not to warn about it.
NEWEST_OPSET = 22


def _by_name(names: list[str], inputs: Any) -> dict[str, Any]:
    """Of one array, a sequence of as many as there are names, or a mapping."""
    if isinstance(inputs, Mapping):
        return dict(inputs)
    arrays = [inputs] if isinstance(inputs, np.ndarray) else inputs
    if not isinstance(arrays, Sequence) or isinstance(arrays, (str, bytes)):
        raise TypeError(f"inputs must be an array, a sequence of arrays or a mapping, {got(inputs)}")
    if len(arrays) != len(names):
        raise ValueError(f"inputs must be {len(names)} arrays ({', '.join(names)}), got {len(arrays)}")
    return dict(zip(names, arrays, strict=True))


def _describe(name: str, dtype: Any, shape: Any) -> Any:
    if dtype is None:
        return onnx.ValueInfoProto(name=name)
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


is_compatible = Backend.is_compatible
prepare = Backend.prepare
run_model = Backend.run_model
run_node = Backend.run_node
supports_device = Backend.supports_device

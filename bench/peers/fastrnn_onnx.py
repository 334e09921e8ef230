"""fastrnn.onnx: the same programs as ONNX Runtime's, with fastrnn's session."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

import fastrnn
import fastrnn.onnx
from grid import Case

from .fastrnn import Adapter
from .onnx_runtime import OnnxRuntime


class FastrnnOnnx(Adapter, OnnxRuntime):
    version = f"{fastrnn.__version__} on ONNX Runtime {ort.__version__}"
    session: Any = fastrnn.onnx.InferenceSession

    def supports(self, case: Case) -> bool:
        return not case.training

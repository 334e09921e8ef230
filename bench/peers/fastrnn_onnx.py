"""fastrnn.onnx: the same programs as ONNX Runtime's, with fastrnn's session."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

import fastrnn
import fastrnn.onnx
from grid import Case

from .onnx_runtime import OnnxRuntime


class FastrnnOnnx(OnnxRuntime):
    version = f"{fastrnn.__version__} on ONNX Runtime {ort.__version__}"
    session: Any = fastrnn.onnx.InferenceSession

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        fastrnn.set_num_threads(threads)

    def details(self) -> dict[str, str]:
        return {"isa": str((fastrnn.show_config("dict") or {})["isa"])}

    def supports(self, case: Case) -> bool:
        return not case.training

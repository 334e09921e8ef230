"""ONNX models on fastrnn's kernels, beside ONNX Runtime, which runs the rest of them.

    fastrnn.onnx.InferenceSession(model)    in place of onnxruntime.InferenceSession
    fastrnn.onnx.rnn, lstm, gru             the operators RNN, LSTM and GRU on NumPy arrays
    fastrnn.onnx.backend                    the same for programs written against onnx.backend

Sources: the operators' specification (https://onnx.ai/onnx/operators/), and ONNX Runtime where that is silent. As
everywhere in fastrnn, the kernels count denormal numbers as zero.
"""

try:
    import onnx as _onnx
    import onnxruntime as _onnxruntime
except ModuleNotFoundError as error:
    if error.name not in ("onnx", "onnxruntime"):
        raise
    raise ModuleNotFoundError(
        f"fastrnn.onnx needs the package {error.name}: pip install 'fastrnn[onnx]'", name=error.name
    ) from error

from . import backend
from ._operators import gru, lstm, rnn
from ._rewrite import Replaced
from ._session import InferenceSession

del _onnx, _onnxruntime

for _public in (InferenceSession, Replaced, gru, lstm, rnn):
    _public.__module__ = __name__  # where users find them

__all__ = ["InferenceSession", "Replaced", "backend", "gru", "lstm", "rnn"]

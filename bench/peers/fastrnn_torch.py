"""fastrnn.torch: the same programs as PyTorch's, with fastrnn's classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import fastrnn
import fastrnn.torch

from .fastrnn import Adapter
from .pytorch import PyTorch


class FastrnnTorch(Adapter, PyTorch):
    version = f"{fastrnn.__version__} on PyTorch {PyTorch.version}"
    layers: ClassVar[dict[str, Callable[..., Any]]] = {
        "lstm": fastrnn.torch.LSTM,
        "gru": fastrnn.torch.GRU,
        "gru_reset_before": lambda *sizes: fastrnn.torch.GRU(*sizes, reset_after=False),
        "rnn_tanh": fastrnn.torch.RNN,
        "rnn_relu": lambda *sizes: fastrnn.torch.RNN(*sizes, nonlinearity="relu"),
        "rnn_sigmoid": lambda *sizes: fastrnn.torch.RNN(*sizes, nonlinearity="sigmoid"),
    }

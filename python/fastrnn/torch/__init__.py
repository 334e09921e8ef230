"""`torch.nn.RNN`, `LSTM` and `GRU` on fastrnn's kernels: change one line, and all else stays as it is.

    from fastrnn.torch import LSTM          the class, with torch.nn's arguments, parameters and results
    fastrnn.torch.replace_(model)           every RNN, LSTM and GRU of a model, in place
    with fastrnn.torch.patch(): ...         what a program makes inside that cannot be edited
    lstm.prepare()                          for streams: the weights packed once

Gradients of any order, `torch.compile`, `torch.export` and `torch.func` work; CPU tensors of float32 and float64 run in
the kernels, on `torch.get_num_threads()` threads at most, and everything else in PyTorch's own operators. As everywhere
in fastrnn, the kernels count denormal numbers as zero. Built with CUDA, fastrnn has kernels for CUDA tensors, too.
"""

try:
    import torch as _torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError("fastrnn.torch needs PyTorch: pip install 'fastrnn[torch]'", name="torch") from error

from ._modules import GRU, LSTM, RNN, Prepared
from ._swap import Replaced, patch, replace_
from ._threads import share as _share

del _torch
_share()

for _public in (GRU, LSTM, RNN, Prepared, Replaced, patch, replace_):
    _public.__module__ = __name__  # where users find them; pickles say so

__all__ = ["GRU", "LSTM", "RNN", "Prepared", "Replaced", "patch", "replace_"]

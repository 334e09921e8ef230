"""RNN, LSTM and GRU on JAX arrays: functions that run in fastrnn's kernels under `jit`, `grad`, `vmap` and `scan`.

    y, (h_n, c_n) = fastrnn.jax.lstm(x, weights)        as `fastrnn.functional.lstm`, in float32 and float64
    fastrnn.jax.gru, fastrnn.jax.rnn

`weights` have PyTorch's names: `fastrnn.LSTM(input_size, hidden_size, seed=0).parameters` is a dict of new ones, and
`fastrnn.weights` converts those of other libraries. `help(fastrnn.jax.rnn)` tells what all three take.

They are pure functions, differentiable once in reverse mode (`jax.custom_vjp`), and calls of XLA's foreign function
interface inside: on the CPU, where, as everywhere in fastrnn, the kernels count denormal numbers as zero; and in builds
with `FASTRNN_CUDA` on a GPU, there in float16 and bfloat16, too, and without the variants of the cells (`peephole`,
`coupled_input_forget`, `clip`, `activations`).
"""

try:
    import jax as _jax
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    from .._core import xla_handlers as _handlers

    # A build that was made without JAX would but ask for another.
    _how = "pip install 'fastrnn[jax]'" if _handlers() else "in fastrnn's folder, FASTRNN_JAX=ON pip install '.[jax]'"
    _kernels = "" if _handlers() else " and kernels for it, which this build lacks"
    raise ModuleNotFoundError(f"fastrnn.jax needs JAX{_kernels}: {_how}", name="jax") from error

if _jax.__version_info__ < (0, 6, 2):
    raise ImportError(f"fastrnn.jax needs JAX 0.6.2 or newer, got {_jax.__version__}: pip install -U 'fastrnn[jax]'")

from ._functions import gru, lstm, rnn
from ._register import register as _register

_register()

for _public in (gru, lstm, rnn):
    _public.__module__ = __name__  # where users find them

del _jax, _public

__all__ = ["gru", "lstm", "rnn"]

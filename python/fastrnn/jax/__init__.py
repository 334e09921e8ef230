"""RNN, LSTM and GRU on JAX arrays: functions that run in fastrnn's kernels under `jit`, `grad`, `vmap` and `scan`.

    y, (h_n, c_n) = fastrnn.jax.lstm(x, weights)        as `fastrnn.functional.lstm`, on the CPU, in float32 and float64
    fastrnn.jax.gru, fastrnn.jax.rnn

They are pure functions, differentiable once in reverse mode (`jax.custom_vjp`), and calls of XLA's foreign function
interface inside. As everywhere in fastrnn, the kernels count denormal numbers as zero.
"""

from importlib.metadata import version as _version

try:
    import jax.ffi as _ffi
except ModuleNotFoundError as error:
    if error.name != "jax":
        raise
    raise ModuleNotFoundError("fastrnn.jax needs JAX: pip install 'fastrnn[jax]'", name="jax") from error

from .. import _core

_handlers = _core.xla_handlers()
if not _handlers:
    raise ImportError(
        "this build of fastrnn has no kernels for JAX: it was made without jaxlib's headers. Build it again where "
        "jaxlib is installed, with `pip install --no-build-isolation`, or with FASTRNN_JAX=ON in the environment"
    )
for _name, _handler in _handlers.items():
    try:
        _ffi.register_ffi_target(_name, _handler, platform="cpu")
    except Exception as error:
        raise ImportError(
            f"jaxlib {_version('jaxlib')} does not take the kernels of this build of fastrnn, which was made with "
            "another version's headers: build it again where this one is installed, with "
            "`pip install --no-build-isolation`"
        ) from error

from ._functions import gru, lstm, rnn  # noqa: E402

for _public in (gru, lstm, rnn):
    _public.__module__ = __name__  # where users find them

del _ffi, _handler, _handlers, _name, _public, _version

__all__ = ["gru", "lstm", "rnn"]

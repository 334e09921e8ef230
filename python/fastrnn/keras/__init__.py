"""`keras.layers.LSTM`, `GRU` and `SimpleRNN` on fastrnn's kernels, for Keras 3 on PyTorch, TensorFlow and JAX.

    from fastrnn.keras import LSTM          the class, with Keras' arguments, weights, masks and results
    fastrnn.keras.enable()                  the kernels under Keras' own layers, for what cannot be edited
    with fastrnn.keras.enable(): ...        the same for a while

Layers of float32 and float64 on the CPU run in the kernels, with any mask, either direction, states and dropout, and as
activations tanh, sigmoid, relu, linear, elu, softplus, softsign, hard_sigmoid and, on JAX, leaky_relu. Everything else
runs in Keras' own loop, and one warning says why. As everywhere in fastrnn, the kernels count denormal numbers as zero.
"""

try:
    import keras as _keras
except ModuleNotFoundError as error:
    if error.name != "keras":
        raise
    raise ModuleNotFoundError("fastrnn.keras needs Keras 3: pip install 'fastrnn[keras]'", name="keras") from error

if int(_keras.__version__.partition(".")[0]) < 3:
    raise ImportError(f"fastrnn.keras needs Keras 3, got {_keras.__version__}: pip install 'fastrnn[keras]'")

from ._layers import GRU, LSTM, SimpleRNN
from ._switch import disable, enable

del _keras

for _public in (GRU, LSTM, SimpleRNN, disable, enable):
    _public.__module__ = __name__  # where users find them; files of models say so

__all__ = ["GRU", "LSTM", "SimpleRNN", "disable", "enable"]

"""The kernels under Keras' own layers."""

from __future__ import annotations

from typing import Any

from ._layers import STOCK, SupportsJit, looper

# What the classes have themselves: SimpleRNN's loop is that of the class above it.
_OWN = {kind: {name: value for name, value in vars(kind).items() if name == "inner_loop"} for kind in STOCK}


def _is_on() -> bool:
    return all("supports_jit" in vars(kind) for kind in STOCK)


def _put(on: bool) -> None:
    if on == _is_on():
        return
    for kind in STOCK:
        if on:
            kind.inner_loop = looper(kind)
            kind.supports_jit = SupportsJit()
        else:
            del kind.inner_loop, kind.supports_jit
            for name, value in _OWN[kind].items():
                setattr(kind, name, value)


class Switch:
    """What `enable` and `disable` return: with `with`, things are in the end as they were before."""

    def __init__(self, on: bool) -> None:
        self._before = _is_on()
        _put(on)

    def __enter__(self) -> None:
        """There is nothing to be done: the call was it."""

    def __exit__(self, *exception: Any) -> None:
        _put(self._before)


def enable() -> Switch:
    """Put the kernels under `keras.layers.LSTM`, `GRU` and `SimpleRNN`: for a program that cannot be edited.

    Layers that exist already have them, too, and so have subclasses that keep Keras' cells and `inner_loop`. Functions
    that Keras compiled before, as in `fit` and `predict`, stay as they are until `compile` is called again.

    The classes are the process's: other threads see it, too.

    Returns:
        A context manager, at whose end all is as before the call; without `with`, it lasts until `disable`.
    """
    return Switch(True)


def disable() -> Switch:
    """Put Keras' own loops back. `fastrnn.keras.LSTM`, `GRU` and `SimpleRNN` keep the kernels.

    Returns:
        A context manager, at whose end all is as before the call.
    """
    return Switch(False)

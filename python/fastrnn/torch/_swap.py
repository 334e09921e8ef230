"""Putting the classes into programs that were written for `torch.nn`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Module

from ._modules import GRU, LSTM, RNN, STOCK

_OURS = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
_HOMES = (torch.nn, torch.nn.modules, torch.nn.modules.rnn)  # modules that have the names


@dataclass(frozen=True)
class Replaced:
    """What `replace_` did. Names are those of `model.named_modules()`; the model itself has the name "".

    Attributes:
        swapped: those that are fastrnn's now, name -> class name.
        left: recurrent modules of subclasses, which may do something else, name -> class name.
    """

    swapped: dict[str, str]
    left: dict[str, str]

    def __str__(self) -> str:
        def listed(modules: dict[str, str]) -> str:
            return ", ".join(f"{name or '(the model itself)'}: {kind}" for name, kind in modules.items()) or "nothing"

        left = f"; left as they are, being subclasses: {listed(self.left)}" if self.left else ""
        return f"swapped {listed(self.swapped)}{left}"


def replace_(model: Module) -> Replaced:
    """Turn every `torch.nn.RNN`, `LSTM` and `GRU` in a model, at any depth, into fastrnn's, in place.

    The objects stay the same and only change their class: parameters (so optimizers, tied weights, `requires_grad`),
    names in `state_dict`, hooks, `training` and every reference to them are as before. The model itself may be one of
    them. Subclasses, which may do something else, are left, parametrized modules among them.

    Args:
        model: any module.

    Returns:
        What was swapped and what was left; print it, or look at its attributes.

    Raises:
        TypeError: `model` is no module.
    """
    if not isinstance(model, Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    swapped, left = {}, {}
    kinds = {stock: _OURS[name] for name, stock in STOCK.items()}
    for name, module in model.named_modules():
        kind = type(module)
        if kind in kinds:
            module.__class__ = kinds[kind]
            swapped[name] = kind.__name__
        elif isinstance(module, tuple(kinds)):
            left[name] = kind.__name__
    return Replaced(swapped, left)


class _StandIn(type(Module)):  # type: ignore[misc]
    """The class of what the names mean inside `patch`: calls make fastrnn's objects, and objects of both kinds are
    instances."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        ours = cls.__dict__.get("_ours")
        return ours(*args, **kwargs) if ours else super().__call__(*args, **kwargs)

    def __instancecheck__(cls, instance: object) -> bool:
        both = cls.__dict__.get("_both")
        return isinstance(instance, both) if both else super().__instancecheck__(instance)

    def __subclasscheck__(cls, subclass: type) -> bool:
        both = cls.__dict__.get("_both")
        return issubclass(subclass, both) if both else super().__subclasscheck__(subclass)


def _stand_in(name: str) -> type:
    ours = _OURS[name]
    space = {"_ours": ours, "_both": (ours, STOCK[name]), "__doc__": ours.__doc__, "__module__": ours.__module__}
    return _StandIn(name, (ours,), space)


@contextmanager
def patch() -> Iterator[None]:
    """While it lasts, `torch.nn.RNN`, `LSTM` and `GRU` make fastrnn's modules: for a program that cannot be edited.

    Modules that are made inside stay fastrnn's. `isinstance(module, torch.nn.LSTM)` holds for both kinds inside.
    Names that a program imported before, by `from torch.nn import LSTM`, are not reached: import it inside, or use
    `replace_` on its model. The names are the process's: other threads see them, too. `torch.compile` breaks a graph at
    what is an instance of `torch.nn.LSTM`: programs that it compiles inside are in pieces.
    """
    stands = {name: _stand_in(name) for name in _OURS}
    before = [(home, name, getattr(home, name)) for home in _HOMES for name in stands]
    for home, name, _ in before:
        setattr(home, name, stands[name])
    try:
        yield
    finally:
        for home, name, kind in before:
            setattr(home, name, kind)

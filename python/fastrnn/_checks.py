"""Checks of what a caller gave: each returns the value in one type, or raises an error that names the argument."""

from __future__ import annotations

import math
import numbers
import reprlib
import sys
import warnings
from collections.abc import Iterable, Sequence

import numpy as np


def got(value: object) -> str:
    """How an error message shows an unwelcome argument."""
    try:
        shown = reprlib.repr(value)
    except ValueError:  # an int of more digits than Python is willing to write
        shown = "one that is too long to show"
    return f"got {shown} ({type(value).__name__})"


def warn_caller(message: str, *packages: str) -> None:
    """Warn of the line, somewhere up the stack, that called into these packages from outside."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in packages:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_unmasked(name: str, value: object) -> None:
    """Refuse an array of numpy.ma, whose mask would be overlooked."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be masked, {got(value)}")


def check_int(name: str, value: object, low: int, high: int = 2**31 - 1) -> int:
    """An integer in low…high. A bool is not an integer here: it is nearly always a misplaced argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, {got(value)}")
    integer = int(value)
    if not low <= integer <= high:
        raise ValueError(f"{name} must be an int from {low} to {high}, {got(value)}")
    return integer


def check_bool(name: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False, {got(value)}")
    return bool(value)


def check_choice(name: str, value: object, choices: Iterable[str]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, {got(value)}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {reprlib.repr(value)}")
    return value


def check_number(name: str, value: object) -> float:
    number = _number(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, {got(value)}")
    return number


def check_probability(name: str, value: object) -> float:
    probability = _number(name, value)
    if not 0 <= probability <= 1:  # nor NaN
        raise ValueError(f"{name} must be a probability from 0 to 1, {got(value)}")
    return probability


def _number(name: str, value: object) -> float:
    """Infinity for what is too large."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, {got(value)}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_dtype(name: str, value: object, others: str = "") -> str:
    """`others` are types for a message, which the caller has looked for."""
    try:
        dtype = None if value is None else np.dtype(value)  # type: ignore[call-overload]
    except Exception:  # TypeError, and for what looks like a dtype ValueError, MemoryError, SyntaxError, …
        dtype = None
    if dtype is None:
        raise TypeError(f"{name} must be {others}float32 or float64, {got(value)}")
    if dtype not in (np.dtype("float32"), np.dtype("float64")):
        raise ValueError(f"{name} must be {others}float32 or float64, got {dtype}")
    return str(dtype.name)


def listed(names: Sequence[str], most: int = 6) -> str:
    """The names for a message, which stays short however many and however long they are."""
    shown = [name if len(name) <= 80 else f"{name[:60]}…" for name in names[:most]]
    if len(names) > most:
        shown.append(f"… ({len(names)} in all)")
    return ", ".join(shown)


def check_names(what: str, given: Iterable[str], expected: Iterable[str]) -> None:
    """Raise a ValueError that names what is missing and what nobody expects."""
    given, expected = dict.fromkeys(given), dict.fromkeys(expected)
    if given.keys() != expected.keys():
        faults = {
            "missing": [name for name in expected if name not in given],
            "unexpected": [str(name) for name in given if name not in expected],
        }
        raise ValueError(
            f"{what}: " + "; ".join(f"{fault} {listed(names)}" for fault, names in faults.items() if names)
        )

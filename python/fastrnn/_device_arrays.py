"""Arrays in a GPU's memory: this package's own, and those of other libraries, by DLPack with the array API's rules
(https://data-apis.org/array-api/latest/design_topics/data_interchange.html) or by `__cuda_array_interface__`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from . import _device
from ._checks import got
from ._spec import Array as NumPyArray

LEGACY_STREAM = 1  # as both protocols call it: all work on the arrays of this module is queued there
_ON_CUDA, _CUDA_MANAGED = 2, 13  # device types of DLPack

# By NumPy's names, and ml_dtypes' for the one that NumPy lacks: DLPack's code, and bytes.
_TYPES = {
    "float32": (2, 4),
    "float64": (2, 8),
    "float16": (2, 2),
    "bfloat16": (4, 2),
    "int64": (0, 8),
    "uint8": (1, 1),
}


class Array:
    """A C-contiguous array in a GPU's memory: what calls return. `of` copies one there, `numpy` brings one back. Other
    libraries take it without a copy: by `__dlpack__`, as in `torch.from_dlpack(y)` and `jax.numpy.from_dlpack(y)`, or,
    but in bfloat16, by `__cuda_array_interface__`.

    Attributes:
        shape: a size for each axis.
        dtype: its name, as "float32" or "bfloat16".
        device: the number of the GPU.

    Raises:
        RuntimeError: the build has no CUDA, or the GPU has no memory for it.
    """

    def __init__(self, shape: Sequence[int], dtype: str) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.device = int(_device.required().current_device())
        self._memory = _device.required().Memory(self.nbytes)

    @property
    def nbytes(self) -> int:
        """Its size."""
        return prod(self.shape) * _TYPES[self.dtype][1]

    @property
    def address(self) -> int:
        """Where it lies."""
        return int(self._memory.address)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For other libraries: version 3 of the protocol."""
        if self.dtype == "bfloat16":
            raise AttributeError("__cuda_array_interface__ has no bfloat16")
        return {
            "shape": self.shape,
            "typestr": np.dtype(self.dtype).str,
            "data": (self.address if self.nbytes else 0, False),
            "strides": None,
            "version": 3,
            "stream": LEGACY_STREAM,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's number of CUDA, and the GPU's."""
        return _ON_CUDA, self.device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """The memory in a capsule, for other libraries.

        Args:
            stream: where the taker will use it: what is queued there from now on finds it written. None is the legacy
                default stream, -1 asks for no order.
            max_version: the newest version of DLPack that the taker knows; None is one before 1.
            dl_device, copy: nothing but where it is, and without a copy.

        Raises:
            BufferError: it is wanted on another device, or as a copy.
            ValueError: `stream` is 0, which is ambiguous.
        """
        if stream == 0:
            raise ValueError(
                "stream must not be 0, which may mean either default stream: 1 is the legacy one, 2 the other"
            )
        if dl_device is not None and tuple(dl_device) != self.__dlpack_device__():
            raise BufferError(f"the array is on device {self.__dlpack_device__()}, and not on {tuple(dl_device)}")
        if copy:
            raise BufferError("the array is given as it is, and not as a copy")
        if stream not in (None, -1, LEGACY_STREAM):
            _device.required().order_streams(LEGACY_STREAM, stream)
        code, size = _TYPES[self.dtype]
        address = self.address if self.nbytes else 0
        versioned = max_version is not None and max_version[0] >= 1
        return _device.required().lend(self._memory, address, self.shape, code, 8 * size, self.device, versioned)

    @classmethod
    def of(cls, array: NumPyArray, dtype: str) -> Array:
        """A copy of a NumPy array, of numbers rounded to this type."""
        new = cls(array.shape, dtype)
        if array.dtype.name != dtype:
            array = _bfloat16(array) if dtype == "bfloat16" else array.astype(dtype)
        new._memory.upload(array.tobytes())
        return new

    def numpy(self) -> NumPyArray:
        """A copy in NumPy, when the GPU has done what it was given; bfloat16 as float32, which has all its values."""
        data = self._memory.download()
        if self.dtype == "bfloat16":
            wide: NumPyArray = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
            return wide.reshape(self.shape)
        copy: NumPyArray = np.frombuffer(data, self.dtype).reshape(self.shape).copy()
        return copy


def _bfloat16(array: NumPyArray) -> NumPyArray:
    """The bits of the nearest, ties to even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(array), bits >> 16 | 0x40, nearest).astype(np.uint16)  # a NaN stays one


@dataclass(frozen=True)
class View:
    """An array in the GPU's memory; strides in elements."""

    owner: Any  # as it was given, or its copy in the GPU's memory
    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    loan: Any = None  # of DLPack: it holds the memory

    def expand(self, axis: int) -> View:
        """With an axis of one."""
        shape, strides = list(self.shape), list(self.strides)
        shape.insert(axis, 1)
        strides.insert(axis, 0)
        return View(self.owner, self.address, tuple(shape), tuple(strides), self.loan)


def view(name: str, value: Any, dtype: str, shape: tuple[int, ...] | None = None, contiguous: bool = True) -> View:
    """Raises TypeError or ValueError unless it is an array of this dtype, and shape if one is given.

    What is queued on the legacy default stream from now on finds it written.
    """
    if isinstance(value, np.ndarray) and value.dtype.name == dtype and value.dtype.isnative:
        value = Array.of(value, dtype)
    if isinstance(value, np.ndarray):
        seen = None
    elif hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
        seen = _by_dlpack(name, value, dtype)
    else:
        seen = _by_interface(name, value, dtype)
    if seen is None:
        libraries = "NumPy or of a library that has __dlpack__ or __cuda_array_interface__"
        raise TypeError(f"{name} must be a {dtype} array of {libraries}, {got(value)}")
    if shape is not None and seen.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {seen.shape}")
    gaps = any(n > 1 and s != d for n, s, d in zip(seen.shape, seen.strides, _dense(seen.shape), strict=True))
    if contiguous and gaps and 0 not in seen.shape:
        raise ValueError(f"{name} must be C-contiguous")
    if seen.address % _TYPES[dtype][1]:
        raise ValueError(f"{name} must lie at a multiple of its elements' size, got address {seen.address:#x}")
    return seen


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides of a C-contiguous array."""
    return tuple(int(prod(shape[i + 1 :])) for i in range(len(shape)))


def _by_dlpack(name: str, value: Any, dtype: str) -> View:
    kind, number = value.__dlpack_device__()
    if kind not in (_ON_CUDA, _CUDA_MANAGED):
        raise TypeError(f"{name} must be in a GPU's memory, or NumPy's, got one on DLPack's device type {int(kind)}")
    _check_device(name, number)
    try:
        try:
            capsule = value.__dlpack__(stream=LEGACY_STREAM, max_version=(1, 0))
        except TypeError:  # a library of before that version
            capsule = value.__dlpack__(stream=LEGACY_STREAM)
        loan = _device.required().Borrowed(capsule)
    except BufferError as error:
        raise TypeError(f"{name}: its library does not give it: {error}") from error
    code, size = _TYPES[dtype]
    if loan.type != (code, 8 * size, 1):
        names = {(code, 8 * size, 1): other for other, (code, size) in _TYPES.items()}
        raise TypeError(f"{name} must have dtype {dtype}, got {names.get(loan.type, f'DLPack type {loan.type}')}")
    return View(value, loan.address, tuple(loan.shape), tuple(loan.strides), loan)


def _check_device(name: str, number: int) -> None:
    current = _device.required().current_device()
    if number != current:
        raise ValueError(f"{name} must be on the current GPU, {current}, got one on GPU {number}")


def _by_interface(name: str, value: Any, dtype: str) -> View | None:
    interface = getattr(value, "__cuda_array_interface__", None)
    if interface is None:
        return None
    given = np.dtype(interface["typestr"])
    if given.name != dtype or not given.isnative:
        raise TypeError(f"{name} must have dtype {dtype}, got {given}")
    if interface.get("mask") is not None:
        raise TypeError(f"{name} must not be masked")
    shape = tuple(interface["shape"])
    strides = _dense(shape)
    if interface.get("strides") is not None:
        if any(s % given.itemsize for s in interface["strides"]):
            raise ValueError(f"{name}: its strides are not whole elements")
        strides = tuple(s // given.itemsize for s in interface["strides"])
    address = interface["data"][0]
    _check_device(name, _device.required().device_of(address))
    if interface.get("stream") is not None:
        _device.required().order_streams(interface["stream"], LEGACY_STREAM)
    return View(value, address, shape, strides)

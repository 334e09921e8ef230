"""Networks in files: named arrays and a configuration, in NumPy's .npz or in .safetensors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ._checks import check_choice
from ._spec import Array

_CONFIG = "config"  # the name under which a file keeps its configuration, as JSON


def write(path: str | os.PathLike[str], config: dict[str, Any], arrays: dict[str, Array]) -> None:
    suffix = _suffix(path)
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    if suffix == ".npz":
        contents: dict[str, Any] = arrays | {_CONFIG: np.array(json.dumps(config))}
        with Path(path).open("wb") as file:  # given a name, savez would lengthen one in capitals
            np.savez(file, **contents)
    else:
        _safetensors().numpy.save_file(arrays, path, metadata={_CONFIG: json.dumps(config)})


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    read_as = {".npz": _read_npz, ".safetensors": _read_safetensors}[_suffix(path)]
    try:
        config, arrays = read_as(path)
        if not isinstance(config, dict):
            raise ValueError("the configuration is not an object")
    except (OSError, ImportError):
        raise
    # A broken file shows in a dozen ways: BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, TokenError,
    # zipfile's NotImplementedError and RuntimeError, MemoryError from a shape that no array can have, …
    except Exception as error:
        why = str(error) or type(error).__name__
        raise ValueError(f"path: {os.fspath(path)!r} is not a network that fastrnn saved ({why})") from error
    return config, arrays


def _read_npz(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Array]]:
    with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
        arrays = dict(archive)
    return json.loads(str(arrays.pop(_CONFIG))), arrays


def _read_safetensors(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Array]]:
    with _safetensors().safe_open(path, framework="numpy") as file:
        arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        return json.loads((file.metadata() or {})[_CONFIG]), arrays


def _suffix(path: str | os.PathLike[str]) -> str:
    return check_choice("path's suffix", Path(path).suffix.lower(), (".npz", ".safetensors"))


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "files of type .safetensors need the package safetensors (pip install safetensors); .npz needs nothing more"
        ) from error
    return safetensors

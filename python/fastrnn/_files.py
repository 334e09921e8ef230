"""Networks in files: named arrays and a configuration, in NumPy's .npz or in .safetensors."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from ._spec import Array, check_choice

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
    suffix = _suffix(path)
    try:
        if suffix == ".npz":
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = dict(archive)
            config = json.loads(str(arrays.pop(_CONFIG)))
        else:
            library = _safetensors()
            try:
                with library.safe_open(path, framework="numpy") as file:
                    config = json.loads((file.metadata() or {})[_CONFIG])
                    arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
            except library.SafetensorError as error:
                raise ValueError(str(error)) from error
        if not isinstance(config, dict):
            raise ValueError("the configuration is not an object")
    except (ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise ValueError(f"path: {os.fspath(path)!r} is not a network that fastrnn saved ({error})") from error
    return config, arrays


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

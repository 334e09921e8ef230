"""Networks in files: named arrays and a configuration, in NumPy's .npz or in .safetensors."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from ._checks import check_choice, got
from ._spec import Array

_CONFIG = "config"  # the name under which a file keeps its configuration, as JSON


def write(path: str | os.PathLike[str], config: dict[str, Any], arrays: dict[str, Array]) -> None:
    """Replace the file at `path`, or leave it as it was if anything fails."""
    suffix = _suffix(path)
    safetensors = _safetensors() if suffix == ".safetensors" else None
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with _replacing(path) as file:
        if safetensors:
            file.write(safetensors.numpy.save(arrays, metadata={_CONFIG: json.dumps(config)}))
        else:
            contents: dict[str, Any] = arrays | {_CONFIG: np.array(json.dumps(config))}
            np.savez(file, **contents)


@contextmanager
def _replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A file to write to, which takes the place of the one at `path` when all is written."""
    target = Path(os.path.realpath(path))  # what a link leads to, which stays a link
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
    beside = target.with_name(f".fastrnn-{secrets.token_hex(8)}.tmp")
    try:
        try:
            with beside.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, beside)
            beside.replace(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:  # of the file that the caller knows
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    read_as = {".npz": _read_npz, ".safetensors": _read_safetensors}[_suffix(path)]
    with Path(path).open("rb"):  # an OSError that says why it cannot be opened, whatever reads it then
        pass
    try:
        config, arrays = read_as(path)
        if not isinstance(config, dict):
            raise ValueError("the configuration is not an object")
    # A broken file shows in a dozen ways: BadZipFile, zlib.error, lzma.LZMAError, EOFError, KeyError, TokenError,
    # zipfile's NotImplementedError and RuntimeError, MemoryError from a shape that no array can have, bz2's OSError
    # without a number, EINVAL for a place before the file's beginning, …
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise OSError(error.errno, error.strerror, os.fspath(path)) from error  # the file cannot be read
        if isinstance(error, ImportError):
            raise
        why = str(error) or type(error).__name__
        raise ValueError(f"path: {os.fspath(path)!r} is not a network that fastrnn saved ({why})") from error
    return config, arrays


def _read_npz(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Array]]:
    with Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is no .npz archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    return _config({name: str(arrays.pop(name)) for name in (_CONFIG,) if name in arrays}), arrays


def _read_safetensors(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Array]]:
    with _safetensors().safe_open(path, framework="numpy") as file:
        arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
        return _config(file.metadata() or {}), arrays


def _config(texts: dict[str, str]) -> Any:
    if _CONFIG not in texts:
        raise ValueError(f"it has no entry {_CONFIG!r}")
    return json.loads(texts[_CONFIG])


def _suffix(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(f"path must be a str or an os.PathLike[str], {got(path)}")
    if "\0" in os.fspath(path):
        raise ValueError(f"path must have no null character, {got(path)}")
    return check_choice("path's suffix", Path(path).suffix.lower(), (".npz", ".safetensors"))


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "files of type .safetensors need the package safetensors (pip install safetensors); .npz needs nothing more"
        ) from error
    return safetensors

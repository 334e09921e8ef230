"""The kernels, made known to XLA."""

from __future__ import annotations

import re
from pathlib import Path

import jax.ffi

from .. import _core, _device


def platforms() -> tuple[str, ...]:
    """Where this build has kernels, by JAX's names, of which a GPU has had two."""
    return ("cpu", "cuda", "gpu") if _device.cuda() else ("cpu",)


def register() -> None:
    """Raises ImportError if this build has no kernels for JAX, or none for the jaxlib that is installed."""
    handlers = _core.xla_handlers()
    again = (
        "Build fastrnn again, in its folder: FASTRNN_JAX=ON pip install . (with --no-build-isolation for the very "
        "jaxlib that is installed)"
    )
    if not handlers:
        raise ImportError(
            f"this build of fastrnn has no kernels for JAX: it was made without the headers of jaxlib. {again}"
        )
    # XLA takes what was made for its own version or an older one. It would refuse the rest when its first program is
    # compiled, and with it all other programs.
    (major, minor), own = _core.xla_version(), _installed_version()
    if major != own[0] or minor > own[1]:
        raise ImportError(
            f"this build of fastrnn has kernels for version {major}.{minor} of XLA's foreign function interface, and "
            f"the jaxlib that is installed has {own[0]}.{own[1]}. {again}"
        )
    for name, handler in handlers.items():
        jax.ffi.register_ffi_target(name, handler, platform="cpu")
    if module := _device.cuda():
        for name, handler in _core.xla_device_handlers(module.device()).items():
            jax.ffi.register_ffi_target(name, handler, platform="CUDA")


def _installed_version() -> tuple[int, int]:
    header = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h").read_text("utf-8")
    major, minor = (re.search(rf"#define XLA_FFI_API_{part} (\d+)", header) for part in ("MAJOR", "MINOR"))
    if not major or not minor:
        raise ImportError("the jaxlib that is installed does not tell which version of XLA's interface it has")
    return int(major[1]), int(minor[1])

"""`fastrnn.jax` on a GPU, with the emulator in place of one, in a process of its own: XLA keeps what it is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cuda_runner
from fastrnn import _core

pytest.importorskip("jax")


def test_on_cuda():
    folder = cuda_runner.build()
    if isinstance(folder, str):
        pytest.skip(folder)
    if not _core.xla_handlers() or not list(folder.glob("libxla_on_host.*")):
        pytest.skip("this build of fastrnn, or of the emulator, was made without the headers of jaxlib")
    file = Path(__file__).with_name("jax_cuda_checks.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=300", file]
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

"""Every Python example in the README runs, and prints what its comments say."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import fastrnn

README = Path(__file__).parents[1] / "README.md"
HEADING_OR_CODE = re.compile(r"^#+ ([^\n]+)$|^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def examples():
    """(the heading above, the code) of each Python block."""
    heading = ""
    for match in HEADING_OR_CODE.finditer(README.read_text("utf-8")):
        if match[1]:
            heading = match[1]
        else:
            yield pytest.param(match[2], id=heading)


def promised_output(code):
    """The comments behind print calls."""
    return re.findall(r"^print\(.*\)  # (.+)$", code, re.MULTILINE)


@pytest.mark.parametrize("code", list(examples()))
def test_example(code, tmp_path, monkeypatch, capsys):
    if "import keras" in code:  # in a process of its own, which then has one of Keras' backends for good
        for package in ("keras", "torch"):
            if find_spec(package) is None:
                pytest.skip(f"could not import {package!r}")
        environment = os.environ | {"KERAS_BACKEND": "torch"}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=120, check=True)
        return
    for framework in ("torch", "jax", "onnx"):
        if f"import {framework}" in code:
            pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)
    threads = fastrnn.get_num_threads()
    try:
        exec(compile(code, README.name, "exec"), {"__name__": "__main__"})
    finally:
        fastrnn.set_num_threads(threads)
    if promised := promised_output(code):
        assert capsys.readouterr().out.splitlines() == promised


def test_there_are_examples():
    assert len(list(examples())) >= 8

"""Rules of the house that a machine can check."""

import ast
import inspect
import pydoc
import re
import shutil
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import fastrnn
from cases import CELLS, Native
from fastrnn import _core, config, functional, layers, reference, weights

ROOT = Path(__file__).parents[1]
PACKAGE = Path(fastrnn.__file__).parent
CLASSES = {layers.RNN, layers.LSTM, layers.GRU}
SOURCES = sorted(path for kind in ("h", "cpp", "cuh", "cu") for path in ROOT.glob(f"c*/**/*.{kind}"))


def code(path):
    """A C++ file without its comments."""
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text("utf-8"), flags=re.DOTALL)


def files_with(pattern, files):
    return [str(path.relative_to(ROOT)) for path in files if re.search(pattern, code(path), re.MULTILINE)]


# ------------------------------------------------------------------------------------------------------------ sources


def test_there_are_sources():
    assert {path.name for path in SOURCES} >= {"fastrnn.h", "bindings.cpp", "lstm.h"}


def test_the_bindings_alone_know_python():
    knowing = files_with(r"^\s*#\s*include\s*[<\"](pybind11/|Python\.h|numpy/|bindings\.h)", SOURCES)
    assert knowing
    assert knowing == [str(path.relative_to(ROOT)) for path in SOURCES if path.stem.startswith("bindings")]


def test_no_file_of_the_core_knows_a_framework():
    assert not files_with(r"^\s*#\s*include\s*[<\"](torch|ATen|c10|omp\.h|mkl|cblas|tbb)", SOURCES)


def test_floating_point_is_as_written():
    builds = [ROOT / "CMakeLists.txt", *SOURCES]
    text = {str(path.relative_to(ROOT)): re.sub(r"^\s*#(?!pragma).*", "", code(path), flags=re.M) for path in builds}
    forbidden = r"fast-math|-Ofast|associative-math|finite-math|pragma\s+omp|float_control|optimize\s*\("
    assert not [name for name, body in text.items() if re.search(forbidden, body)]
    assert "-ffp-contract=off" in text["CMakeLists.txt"]


def test_cells_are_pointwise():
    """They know no loops, no memory and no threads."""
    cells = sorted((ROOT / "csrc" / "cells").glob("*.h"))
    assert len(cells) >= 3
    assert not files_with(r"\b(for|while|do|goto|new|malloc|std::\w+)\b", cells)


def test_headers_are_included_once():
    for path in SOURCES:
        if path.suffix in (".h", ".cuh"):
            assert path.read_text("utf-8").count("#pragma once") == 1, path.name


def test_the_module_shows_the_linker_nothing_of_its_own():
    """Else two of its kind in one process could mix their functions."""
    if not shutil.which("nm"):
        pytest.skip("needs nm, of binutils")
    command = ["nm", "--dynamic", "--defined-only", _core.__file__]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [line.split()[-1] for line in symbols.splitlines()]
    assert "PyInit__core" in names
    assert not [name for name in names if "fastrnn" in name]


# ----------------------------------------------------------------------------------------------------------- registries


def test_every_cell_is_everywhere():
    listed = re.findall(r"CELL\((\w+), \w+\)", (ROOT / "csrc" / "cells" / "list.h").read_text("utf-8"))
    assert listed == list(reference.CELLS)
    assert {cell for kind in CLASSES for cell in kind._cells} == set(reference.CELLS)
    assert {kind for kind in vars(fastrnn).values() if isinstance(kind, type) and hasattr(kind, "_cells")} == CLASSES
    for cell in CELLS:
        assert Native(cell, 3, 4)(np.zeros((2, 1, 3), np.float32))[0].shape[:2] == (2, 1)


def test_every_instruction_set_has_a_name():
    header = (ROOT / "csrc" / "fastrnn.h").read_text("utf-8")
    listed = re.search(r"enum class Isa \{([^}]*)\}", header)[1]
    assert set(_core.available_isas()) <= {name.strip() for name in listed.split(",")}
    assert _core.available_isas()
    assert _core.isa() in _core.available_isas()


# --------------------------------------------------------------------------------------------------------------- Python


def public(names):
    return {name for name in names if not name.startswith("_")}


def stub():
    return ast.parse((PACKAGE / "_core.pyi").read_text("utf-8")).body


def test_the_stub_names_what_is_in_the_module():
    named = [node for node in stub() if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    definitions = [node for node in named if not node.name.startswith("_")]  # a protocol is the stub's own
    assert {node.name for node in definitions} == public(vars(_core))
    for node in definitions:
        if isinstance(node, ast.ClassDef):
            members = public(item.name for item in node.body if isinstance(item, ast.FunctionDef))
            assert members == public(vars(getattr(_core, node.name))), node.name


def test_the_stub_has_the_parameters_of_the_module():
    for node in stub():
        if not isinstance(node, ast.FunctionDef):
            continue
        # One signature, or a numbered one of each overload.
        pattern = rf"^(?:\d+\. )?{node.name}\((.*)\) ->"
        signatures = re.findall(pattern, getattr(_core, node.name).__doc__, re.MULTILINE)
        assert signatures, node.name
        for signature in signatures:
            names = re.findall(r"(?:^|, )(\w+): ", re.sub(r"\[[^\]]*\]", "", signature))
            assert names == [argument.arg for argument in node.args.args], node.name


def modules():
    """(path, syntax tree) of the package's modules."""
    return [(path, ast.parse(path.read_text("utf-8"))) for path in sorted(PACKAGE.glob("**/*.py"))]


def test_docstrings():
    """Of each module, and of each public class and function in a public one."""
    missing = []
    for path, tree in modules():
        if not ast.get_docstring(tree):
            missing.append(path.name)
        if path.stem.startswith("_") and path.stem != "__init__":
            continue
        for node in tree.body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                missing += [] if ast.get_docstring(node) else [f"{path.name}: {node.name}"]
    assert not missing


def test_docstrings_of_methods():
    for kind in CLASSES:
        for name, member in inspect.getmembers(kind, lambda m: isinstance(m, (types.FunctionType, types.MethodType))):
            if not name.startswith("_") or name == "__call__":
                assert inspect.getdoc(member), f"{kind.__name__}.{name}"


def test_docstrings_of_classes():
    """They tell of each argument and of each attribute."""
    for kind in CLASSES:
        text = inspect.getdoc(kind)
        arguments, attributes = re.search(r"^Args:\n(.*)^Attributes:\n(.*)^Raises:", text, re.DOTALL | re.M).groups()
        for name in inspect.signature(kind).parameters:
            assert re.search(rf"^    {name}: ", arguments, re.M), f"{kind.__name__}: {name}"
        for name, member in inspect.getmembers(kind, lambda m: isinstance(m, property)):
            assert re.search(rf"\b{name}\b", attributes), f"{kind.__name__}.{name}"
            assert inspect.getdoc(member), f"{kind.__name__}.{name}"
            assert inspect.signature(member.fget).return_annotation is not inspect.Signature.empty
        for stem in {name.rpartition("_l")[0] for name in kind(3, 4).parameters}:
            assert stem in attributes
        assert "attrgetter" not in pydoc.render_doc(kind)


def test_docstrings_of_the_native_classes():
    for kind in (_core.Prepared, _core.Tape):
        assert inspect.getdoc(kind)
        for name, member in vars(kind).items():
            if not name.startswith("_") or name == "__call__":
                text = inspect.getdoc(member).strip()
                assert re.search(r"^[A-Z].*\.$", text, re.M | re.DOTALL), f"{kind.__name__}.{name}: {text}"


def documented(function):
    """A function's docstring, with those of the functions that it refers to for the rest of its arguments."""
    text = inspect.getdoc(function)
    (*others,) = re.findall(r"^    others: as in `(\w+)`", text, re.MULTILINE)
    return text + "".join(documented(inspect.getmodule(function).__dict__[name]) for name in others)


def test_docstrings_of_functions():
    """They tell of each argument, and of the errors."""
    checked = 0
    for module in (functional, weights, config):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("_") or function.__module__ != module.__name__:
                continue
            parameters = inspect.signature(function).parameters
            assert all(re.search(rf"\b{p}\b", documented(function)) for p in parameters), name
            assert not parameters or "Raises" in documented(function), name
            checked += 1
    assert checked >= 17


def test_import_needs_numpy_alone():
    program = """
import sys
import numpy
before = {name.partition(".")[0] for name in sys.modules}
import fastrnn
after = {name.partition(".")[0] for name in sys.modules}
print(*sorted(after - before - sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["fastrnn"]


def test_one_version():
    (written,) = re.findall(r'^version = "([^"]+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert fastrnn.__version__ == metadata.version("fastrnn") == written

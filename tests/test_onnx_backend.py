"""ONNX' own tests of the recurrent operators, by way of its backend interface."""

import unittest
import warnings

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import fastrnn  # noqa: E402
from fastrnn.onnx import backend  # noqa: E402
from onnx_cases import expected, feed, make_call, node, single  # noqa: E402


class Counting(backend.Backend):
    """A backend whose models each make calls of the kernels."""

    @classmethod
    def prepare(cls, model, device="CPU", **kwargs):
        made = super().prepare(model, device, **kwargs)
        run = made.run

        def counted(*arguments, **options):
            calls = fastrnn.native_calls()
            outputs = run(*arguments, **options)
            assert fastrnn.native_calls() == calls + 1
            return outputs

        made.run = counted
        return made


def recurrent_tests():
    """name -> test, of ONNX' node tests."""
    with warnings.catch_warnings():  # other operators' tests overflow while they are made
        warnings.simplefilter("ignore")
        from onnx.backend.test import BackendTest

        runner = BackendTest(Counting, __name__)
    runner.include(r"^test_(simple_)?(rnn|lstm|gru)_.*_cpu$")
    tests = runner.test_cases["OnnxBackendNodeModelTest"]
    return {
        name: tests(name)
        for name in unittest.TestLoader().getTestCaseNames(tests)
        if not getattr(getattr(tests, name), "__unittest_skip__", False)
    }


TESTS = recurrent_tests()


def test_there_are_tests():
    assert len(TESTS) >= 18
    assert {name.split("_")[1] for name in TESTS} == {"rnn", "simple", "lstm", "gru"}


@pytest.mark.parametrize("name", TESTS)
def test_of_onnx(name):
    result = unittest.TestResult()
    TESTS[name].run(result)
    assert result.testsRun == 1
    assert not result.skipped
    assert result.wasSuccessful(), result.failures + result.errors


@pytest.mark.parametrize("operator", ["RNN", "LSTM", "GRU"])
def test_models_and_nodes(operator):
    call = make_call(operator, direction="bidirectional", lengths=True)
    exact = expected(call)
    inputs = list(feed(call).values())
    found = {
        "prepare": backend.prepare(single(call), "CPU").run(inputs),
        "by name": backend.prepare(single(call), intra_op_num_threads=1).run(feed(call)),
        "run_model": backend.run_model(single(call), inputs),
        "run_node": backend.run_node(node(call), list(call.inputs.values())),
        "a node by name": backend.run_node(node(call), call.inputs),
        "an old node": backend.run_node(
            node(call), list(call.inputs.values()), outputs_info=[(np.float32, a.shape) for a in exact.values()],
            opset_version=14,
        ),
    }  # fmt: skip
    for how, outputs in found.items():
        assert len(outputs) == len(exact), how
        for name, array in exact.items():
            np.testing.assert_allclose(outputs[name], array, rtol=1e-4, atol=1e-5, err_msg=how)


def test_other_nodes():
    add = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    (c,) = backend.run_node(add, [np.float32([1, 2]), np.float32([3, 4])])
    assert c.tolist() == [4, 6]
    double = onnx.helper.make_node("Add", ["a", "a"], ["c"])
    assert backend.run_node(double, np.float32([1, 2]))[0].tolist() == [2, 4]
    assert backend.run_node(double, [np.float32(3)])[0] == 6
    gelu = onnx.helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft", alpha=1.0)
    x = np.float32([-1, 0, 2])
    (y,) = backend.run_node(gelu, x, outputs_info=[(np.float32, (3,))])
    np.testing.assert_allclose(y, x / (1 + np.exp(-x)), rtol=1e-6)


def test_devices():
    assert backend.supports_device("CPU")
    assert backend.supports_device("CPU:0")
    assert not backend.supports_device("CUDA")
    model = single(make_call("GRU"))
    assert backend.is_compatible(model)
    assert not backend.is_compatible(model, "CUDA")
    assert not backend.is_compatible(onnx.ModelProto())
    with pytest.raises(ValueError, match="device must be 'CPU', got 'CUDA'"):
        backend.prepare(model, "CUDA")


def test_errors():
    model, call = single(make_call("GRU", initial=False)), make_call("GRU")
    with pytest.raises(TypeError, match=r"model must be an onnx\.ModelProto"):
        backend.prepare(b"model")
    with pytest.raises(ValueError, match="no attribute 'threads'"):
        backend.prepare(model, threads=1)
    with pytest.raises(onnx.checker.ValidationError):
        backend.prepare(onnx.ModelProto())
    with pytest.raises(TypeError, match=r"node must be an onnx\.NodeProto"):
        backend.run_node("GRU", [])
    with pytest.raises(ValueError, match=r"inputs must be 5 arrays \(X, W, R, B, initial_h\), got 1"):
        backend.run_node(node(call), [call.inputs["X"]])
    for inputs in (None, "XWRBh", 3):
        with pytest.raises(TypeError, match="inputs must be an array"):
            backend.run_node(node(call), inputs)
    with pytest.raises(TypeError, match="inputs: W must be a NumPy array, got"):
        backend.run_node(node(call), [a.tolist() if n == "W" else a for n, a in call.inputs.items()])
    for version, error in (("14", TypeError), (0, ValueError)):
        with pytest.raises(error, match="opset_version must be an int"):
            backend.run_node(node(call), list(call.inputs.values()), opset_version=version)
    with pytest.raises(ValueError, match=r"outputs_info must have 2 pairs \(Y, Y_h\), got 1"):
        backend.run_node(node(call), list(call.inputs.values()), outputs_info=[(np.float32, (5, 1, 3, 6))])
    ready = backend.prepare(model)
    with pytest.raises(ValueError, match=r"inputs must be 1 arrays \(X\), got 2"):
        ready.run([call.inputs["X"]] * 2)
    with pytest.raises(TypeError, match="inputs must be an array"):
        ready.run(3)

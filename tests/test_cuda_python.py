"""The CUDA kernels from Python, in the emulator, whose device's memory is the host's: `fastrnn.cuda` on arrays of other
libraries, the plan, the configuration.
"""

import numpy as np
import pytest

import fastrnn
import fastrnn.cuda
from cases import PROJECTED, Case, Native, Reference, as_arrays, as_state, named
from conftest import TOLERANCES, relative_error
from fastrnn import _device
from fastrnn.reference import CELLS

KINDS = {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU"}


class Foreign:
    """An array of another library's, in the emulated device's memory."""

    def __init__(self, array, stream=None):
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": array.strides,
            "version": 3,
            "stream": stream,
        }


def foreign(value):
    if isinstance(value, tuple):
        return tuple(foreign(v) for v in value)
    return None if value is None else Foreign(value)


class OnDevice(Native):
    """Any cell."""

    _engine = fastrnn.cuda


def host(array):
    """What another library sees of a result."""
    interface = array.__cuda_array_interface__
    assert interface["strides"] is None
    assert interface["stream"] == 1
    return array.numpy()


def check(results, expected, which, case):
    bound = TOLERANCES["float64"][which](case.hidden + case.inputs, case.steps)
    for got, wanted in zip(results, expected, strict=True):
        assert relative_error(host(got), wanted) <= bound


def test_variants_of_the_cells_are_refused(cuda):
    layer = fastrnn.cuda.LSTM(2, 3, peephole=True)
    with pytest.raises(ValueError, match="CUDA has no peephole"):
        layer(np.ones((4, 1, 2), np.float32))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", [*CELLS, PROJECTED])
def test_a_network_gives_what_the_reference_gives(cuda, cell, batch_first):
    case = Case(cell, 8, 3, 5, 6, 2, bidirectional=True, batch_first=batch_first, dropout=0.3, ragged=True)
    reference, ours = case.network(Reference, "float64"), case.network(OnDevice, "float64")
    data = case.data(reference)
    wide = np.full((*data.x.shape[:2], 7), np.nan)
    wide[..., 1::2] = data.x  # with strides
    x, state = Foreign(wide[..., 1::2]), as_state(foreign(data.state))
    given = data.x, as_state(data.state)
    y, final = ours(x, state, lengths=data.lengths)
    y_wanted, final_wanted = reference(*given, lengths=data.lengths)
    check([y, *as_arrays(final)], [y_wanted, *as_arrays(final_wanted)], "forward", case)
    y, final, tape = ours.forward(x, state, lengths=data.lengths, dropout_seed=5)
    y_wanted, final_wanted, tape_wanted = reference.forward(*given, lengths=data.lengths, dropout_seed=5)
    check([y, *as_arrays(final)], [y_wanted, *as_arrays(final_wanted)], "forward", case)
    assert tape.nbytes > y.nbytes
    assert tape.x is x
    wanted = named(reference.backward(tape_wanted, data.dy, as_state(data.dstate)))
    for _ in range(2):
        gradients = named(ours.backward(tape, foreign(data.dy), as_state(foreign(data.dstate))))
        assert gradients.keys() == wanted.keys()
        check(gradients.values(), wanted.values(), "backward", case)


@pytest.mark.parametrize("kind", KINDS.values())
def test_one_sequence_numpy_arrays_and_prepare(cuda, kind):
    ours = getattr(fastrnn.cuda, kind)(3, 4, dtype="float64", seed=1)
    theirs = getattr(fastrnn.reference, kind)(3, 4, dtype="float64", seed=1)
    x = np.random.default_rng(0).standard_normal((5, 3))
    y, final = ours(x, lengths=4)
    expected, final_expected = theirs(x, lengths=4)
    np.testing.assert_allclose(host(y), expected, rtol=1e-12)
    for got, wanted in zip(as_arrays(final), as_arrays(final_expected), strict=True):
        np.testing.assert_allclose(host(got), wanted, rtol=1e-12)
    fast = ours.prepare()
    assert fast.nbytes == 8 * ours.num_parameters
    y, _ = fast(Foreign(x, stream=7))
    np.testing.assert_allclose(host(y), theirs(x)[0], rtol=1e-12)
    _, _, tape = ours.forward(x)
    gradients = ours.backward(tape)  # of nothing
    assert not host(gradients.x).any()


def test_a_wrong_argument_is_refused(cuda):
    lstm = fastrnn.cuda.LSTM(3, 4)
    x = np.zeros((5, 2, 3), np.float32)
    for wrong, error, message in (
        ([0.0], TypeError, "x must be a float32 array of NumPy or with __cuda_array_interface__"),
        (x.astype("f8"), TypeError, "x must be a float32 array"),
        (Foreign(x.astype("f8")), TypeError, "x must have dtype float32, got float64"),
        (x[..., :2], ValueError, r"x must have shape \(T, B, 3\) or \(T, 3\), got \(5, 2, 2\)"),
        (x[None], ValueError, "x must have shape"),
    ):
        with pytest.raises(error, match=message):
            lstm(wrong)
    state = np.zeros((1, 2, 4), np.float32)
    for wrong, error, message in (
        ((state,), ValueError, r"state must be a tuple \(h0, c0\)"),
        ((state, state[:, :1]), ValueError, r"c0 must have shape \(1, 2, 4\), got \(1, 1, 4\)"),
        ((Foreign(np.zeros((1, 4, 2), np.float32).transpose(0, 2, 1)), None), ValueError, "h0 must be C-contiguous"),
    ):
        with pytest.raises(error, match=message):
            lstm(x, wrong)
    for lengths, error, message in (
        ([1], ValueError, r"lengths must have shape \(2,\)"),
        ([1, 6], ValueError, "lengths must be from 0 to 5"),
        ([1.0, 2.0], TypeError, "lengths must be integers"),
    ):
        with pytest.raises(error, match=message):
            lstm(x, lengths=lengths)
    _, _, tape = lstm.forward(x)
    with pytest.raises(ValueError, match="dy must have shape"):
        lstm.backward(tape, x)
    with pytest.raises(TypeError, match="tape must be what forward returned"):
        lstm.backward(fastrnn.LSTM(3, 4).forward(x)[2])


def test_a_build_without_cuda_says_so(monkeypatch):
    monkeypatch.setattr(_device, "cuda", lambda: None)
    with pytest.raises(RuntimeError, match="this build has no CUDA kernels"):
        fastrnn.cuda.LSTM(3, 4)(np.zeros((5, 2, 3), np.float32))
    assert fastrnn.show_config("dict")["cuda"] == "not in this build"


def test_the_configuration_tells_of_the_device(cuda):
    text = fastrnn.show_config("dict")["cuda"]
    assert text == "emulator with 8 SMs; step by step, one SM, cluster of up to 4 blocks, grid"


def test_the_plan_can_be_read_and_overridden(cuda):
    network = cuda.Network("lstm", 64, 64, 1, True, False, 0.0, False, 0, "float16")
    lines = cuda.explain_plan(network, 100, 16, True).splitlines()
    assert {line.split(", ")[1].split("  ")[0].strip() for line in lines} == {
        "step by step",
        "one SM",
        "cluster",
        "grid",
    }
    times = [float(line.split(" us a step")[0].split()[-1]) for line in lines]
    assert times == sorted(times)
    lstm, x = fastrnn.cuda.LSTM(3, 8, dtype="float64", seed=0), np.ones((4, 2, 3))
    runs = []
    for way in ("step_by_step", "one_sm", "cluster", "grid"):
        cuda.set_way(way)
        runs.append(host(lstm(x)[0]))
    np.testing.assert_allclose(runs, [runs[0]] * 4, rtol=1e-12)
    with pytest.raises(ValueError, match="way: expected one of automatic, step_by_step, one_sm, cluster, grid"):
        cuda.set_way("none")
    cuda.set_way("cluster")
    large = fastrnn.cuda.LSTM(3, 600, dtype="float64")
    with pytest.raises(RuntimeError, match="cluster: this way does not serve these sizes here"):
        large(x)

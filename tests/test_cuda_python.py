"""The CUDA kernels from Python, in the emulator, whose device's memory is the host's: `fastrnn.cuda` on arrays of other
libraries, the plan, the configuration.
"""

import copy
import ctypes
import gc
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastrnn
import fastrnn.cuda
from cases import PROJECTED, Case, Native, Reference, as_arrays, as_state, named
from conftest import TOLERANCES, relative_error
from cuda_runner import encode, rounded
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


CPU, CUDA = (1, 0), (2, 0)  # DLPack's devices


def relabelled(capsule, device):
    """The capsule of an array on the CPU or on CUDA, which now says that it is on that device."""
    api = ctypes.pythonapi
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = api.PyCapsule_IsValid.argtypes = ctypes.py_object, ctypes.c_char_p
    versioned = api.PyCapsule_IsValid(capsule, b"dltensor_versioned")
    address = api.PyCapsule_GetPointer(capsule, b"dltensor_versioned" if versioned else b"dltensor")
    place = address + (40 if versioned else 8)  # behind version, context, deleter, flags and data; behind data
    (ctypes.c_int32 * 2).from_address(place)[:] = device
    return capsule


class Lent:
    """An array of another library's, in the emulated device's memory, given by DLPack."""

    def __init__(self, array, device=CUDA):
        self.array, self.device, self.asked = array, device, []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream, max_version):
        self.asked.append((stream, max_version))
        try:
            return relabelled(self.array.__dlpack__(max_version=max_version), self.device)
        except TypeError:  # a library of before version 1
            return relabelled(self.array.__dlpack__(), self.device)


class LentOfOld(Lent):
    """The same by a library of before DLPack's version 1."""

    def __dlpack__(self, *, stream):
        self.asked.append((stream, None))
        return relabelled(self.array.__dlpack__(), self.device)


class OnHost:
    """One of our results, which says that it is on the CPU: in the emulator it is."""

    def __init__(self, array, versioned):
        self.array, self.versioned = array, versioned

    def __dlpack_device__(self):
        return CPU

    def __dlpack__(self, **_):
        version = (1, 0) if self.versioned else None
        return relabelled(self.array.__dlpack__(stream=2, max_version=version), CPU)


def foreign(value):
    if isinstance(value, tuple):
        return tuple(foreign(v) for v in value)
    return None if value is None else Foreign(value)


class OnDevice(fastrnn.cuda._OnDevice, Native):
    """Any cell."""

    def __init__(self, *sizes, dtype, **options):
        super().__init__(*sizes, dtype=self._parameter_dtype(dtype), **options)


def host(array):
    """What another library sees of a result."""
    if array.dtype != "bfloat16":
        interface = array.__cuda_array_interface__
        assert interface["strides"] is None
        assert interface["stream"] == 1
        np.testing.assert_array_equal(np.from_dlpack(OnHost(array, versioned=False)), array.numpy())
    return array.numpy()


def check(results, expected, which, case, dtype="float64"):
    bound = TOLERANCES[dtype][which](case.hidden + case.inputs, case.steps)
    for got, wanted in zip(results, expected, strict=True):
        assert relative_error(host(got), wanted) <= bound


@pytest.mark.parametrize("lend", [Lent, LentOfOld])
@pytest.mark.parametrize("library", ["numpy", "torch", "jax.numpy"])
def test_arrays_go_to_and_fro_by_dlpack(cuda, monkeypatch, library, lend):
    theirs = pytest.importorskip(library)
    ordered = []
    monkeypatch.setattr(cuda, "order_streams", lambda *streams: ordered.append(streams))
    lstm = fastrnn.cuda.LSTM(3, 4, seed=1)
    rng = np.random.default_rng(0)
    x, h0, c0, dy = (rng.standard_normal(s).astype("f4") for s in ((2, 5, 3), (1, 2, 4), (1, 2, 4), (5, 2, 4)))
    expected, (h_n, c_n), tape = fastrnn.LSTM(3, 4, seed=1).forward(x.swapaxes(0, 1), (h0, c0))
    gradients = fastrnn._core.backward(tape, dy, None)
    array = theirs.asarray(x).swapaxes(0, 1)
    references = sys.getrefcount(array)
    state = tuple(lend(theirs.asarray(a)) for a in (h0, c0))
    lent = lend(array)
    y, final, tape = lstm.forward(lent, state)
    assert lent.asked == [(1, (1, 0) if lend is Lent else None)]  # the legacy default stream
    assert tape.x is lent
    results = [y, *final, *lstm.backward(tape, lend(theirs.asarray(dy))).parameters.values()]
    for got, wanted in zip(results, [expected, h_n, c_n, *gradients[3]], strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-6)
    again, _ = lstm(fastrnn.cuda.Array.of(x.swapaxes(0, 1), "float32"), final)  # our own arrays, too
    assert ordered == []
    taken = [np.from_dlpack(OnHost(again, versioned)) for versioned in (False, True)]
    assert ordered == [(1, 2)] * 2  # what the taker's stream is given comes after our work
    wanted = again.numpy()
    del lent, tape, again, results, y, final
    gc.collect()
    assert sys.getrefcount(array) == references
    for one in taken:  # they keep the memory
        np.testing.assert_array_equal(one, wanted)


def test_what_dlpack_cannot_give_is_refused(cuda):
    lstm = fastrnn.cuda.LSTM(3, 4)
    x = np.zeros((5, 2, 3), np.float32)

    class Private(Lent):
        def __dlpack__(self, **_):
            raise BufferError("it is private")

    class Used(Lent):
        def __dlpack__(self, **_):
            capsule = super().__dlpack__(stream=1, max_version=None)
            cuda.Borrowed(capsule)
            return capsule

    odd = np.zeros(4 * x.size + 1, np.uint8)[1:].view(np.float32).reshape(x.shape)
    for wrong, error, message in (
        (Lent(x, CPU), TypeError, "x must be in a GPU's memory, or NumPy's, got one on DLPack's device type 1"),
        (Lent(x, (2, 3)), ValueError, "x must be on the current GPU, 0, got one on GPU 3"),
        (Lent(x.astype("f8")), TypeError, "x must have dtype float32, got float64"),
        (Lent(x.astype("i4")), TypeError, r"x must have dtype float32, got DLPack type \(0, 32, 1\)"),
        (Private(x), TypeError, "x: its library does not give it: it is private"),
        (Used(x), TypeError, "x: its library does not give it: __dlpack__.. gave no capsule with an array"),
        (Foreign(odd), ValueError, "x must lie at a multiple of its elements' size"),
    ):
        with pytest.raises(error, match=message):
            lstm(wrong)
    with pytest.raises(ValueError, match="h0 must be C-contiguous"):
        lstm(x, (Lent(np.zeros((1, 4, 2), np.float32).transpose(0, 2, 1)), None))
    y, _ = lstm(Lent(x))
    for options, error, message in (
        ({"stream": 0}, ValueError, "stream must not be 0"),
        ({"copy": True}, BufferError, "not as a copy"),
        ({"dl_device": CPU}, BufferError, "is on device"),
    ):
        with pytest.raises(error, match=message):
            y.__dlpack__(**options)
    assert y.__dlpack_device__() == CUDA
    y.__dlpack__(dl_device=CUDA, copy=False)  # a capsule that nobody takes


def bits_of(array, dtype):
    """By DLPack: NumPy has no bfloat16."""
    if dtype == "float16":
        return Lent(array.astype(dtype))
    torch = pytest.importorskip("torch")
    return Lent(torch.from_numpy(encode(array, dtype).view(np.int16).copy()).view(torch.bfloat16))


@pytest.mark.parametrize("dtype", _device.HALF)
@pytest.mark.parametrize("cell", [*(cell for cell in CELLS if cell != "rnn_relu"), PROJECTED])
def test_half_precision(cuda, cell, dtype):
    case = Case(cell, 8, 3, 5, 6, 2, bidirectional=True, dropout=0.3, ragged=True)
    reference, ours = case.network(Reference, "float64"), case.network(OnDevice, dtype)
    data = case.data(reference)
    for name, parameter in reference.parameters.items():
        ours.parameters[name] = parameter.astype(np.float32)
        parameter[:] = rounded(ours.parameters[name], dtype)

    def both(arrays):
        exact = None if arrays is None else tuple(None if a is None else rounded(a, dtype) for a in arrays)
        return exact, None if exact is None else tuple(None if a is None else bits_of(a, dtype) for a in exact)

    (x, dy), (own_x, own_dy) = both((data.x, data.dy))
    (state, own_state), (dstate, own_dstate) = both(data.state), both(data.dstate)
    y, final, tape = ours.forward(own_x, as_state(own_state), lengths=data.lengths, dropout_seed=5)
    y_wanted, final_wanted, tape_wanted = reference.forward(x, as_state(state), lengths=data.lengths, dropout_seed=5)
    assert y.dtype == dtype
    check([y, *as_arrays(final)], [y_wanted, *as_arrays(final_wanted)], "forward", case, dtype)
    wanted = named(reference.backward(tape_wanted, dy, as_state(dstate)))
    gradients = named(ours.backward(tape, own_dy, as_state(own_dstate)))
    check(gradients.values(), wanted.values(), "backward", case, dtype)


def test_a_layer_in_half_precision(cuda, tmp_path):
    """Constructed, shown, saved, copied; its parameters are float32."""
    for dtype in (*_device.HALF, np.float16, np.dtype("float16")):
        lstm = fastrnn.cuda.LSTM(3, 4, 1, True, False, 0.0, False, 0, dtype, seed=1)
        name = dtype if isinstance(dtype, str) else "float16"
        assert lstm.dtype == name
        assert repr(lstm) == f"LSTM(3, 4, dtype='{name}')"
        assert {p.dtype.name for p in lstm.parameters.values()} == {"float32"}
        x = bits_of(np.ones((5, 2, 3)), name)
        wanted = lstm(x)[0].numpy()
        for twin in (pickle.loads(pickle.dumps(lstm)), copy.deepcopy(lstm), lstm.prepare()):
            np.testing.assert_array_equal(twin(x)[0].numpy(), wanted)
        lstm.save(tmp_path / "lstm.npz")
        loaded = fastrnn.cuda.LSTM.load(tmp_path / "lstm.npz")
        assert loaded.dtype == "float32"
        loaded.dtype = dtype
        np.testing.assert_array_equal(loaded(x)[0].numpy(), wanted)
        with pytest.raises(TypeError, match=f"x must be a {name} array of NumPy or of a library"):
            lstm(np.ones((5, 2, 3), np.float32))
    assert lstm(np.ones((5, 2, 3), np.float16))[0].dtype == "float16"  # of NumPy
    with pytest.raises(ValueError, match="dtype must be float16, bfloat16, float32 or float64, got int8"):
        fastrnn.cuda.LSTM(3, 4, dtype="int8")
    with pytest.raises(ValueError, match="dtype must be one that parameters of float32 can serve"):
        lstm.dtype = "float64"
    with pytest.raises(ValueError, match="dtype must be one that parameters of float64 can serve"):
        fastrnn.cuda.GRU(3, 4, dtype="float64").dtype = "float16"
    special = np.array([[np.nan, np.inf, -np.inf, 3.4e38], [1.00390625, 1.01171875, -0.0, 1e-40]], np.float32)
    copied = fastrnn.cuda.Array.of(special, "bfloat16")
    np.testing.assert_array_equal(copied.numpy(), rounded(special, "bfloat16"))
    assert not hasattr(copied, "__cuda_array_interface__")


def test_tf32_is_switched_on_for_all_ways(cuda):
    gru, x = fastrnn.cuda.GRU(8, 40, seed=0), np.random.default_rng(0).standard_normal((6, 3, 8)).astype("f4")
    expected, _ = fastrnn.GRU(8, 40, seed=0)(x)
    table = fastrnn.cuda.explain_plan(gru, 6, 3)
    assert "TF32" not in table + fastrnn.show_config("dict")["cuda"]
    for way in ("step_by_step", "one_sm", "cluster", "grid"):
        cuda.set_way(way)
        errors = []
        for on in (False, True):
            fastrnn.cuda.set_tf32(on)
            errors.append(relative_error(host(gru(x)[0]), expected))
        assert errors[0] < 1e-6 < 1e-5 < errors[1] < TOLERANCES["tf32"]["forward"](48, 6)
    assert "TF32" in fastrnn.show_config("dict")["cuda"]
    assert "TF32" in fastrnn.cuda.explain_plan(gru, 6, 3)
    with pytest.raises(TypeError, match="on must be True or False"):
        fastrnn.cuda.set_tf32(1)
    with pytest.raises(TypeError, match=r"layer must be one of fastrnn\.cuda"):
        fastrnn.cuda.explain_plan(fastrnn.GRU(8, 40), 6, 3)


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("LSTM", {"peephole": True}),
        ("LSTM", {"coupled_input_forget": True}),
        ("RNN", {"clip": 1.0}),
        ("GRU", {"activations": ("sigmoid", "relu")}),
    ],
)
def test_variants_of_the_cells_are_refused(kind, option, tmp_path):
    """By the constructor, with a GPU or without; and from a file."""
    with pytest.raises(ValueError, match="CUDA has no peephole"):
        getattr(fastrnn.cuda, kind)(2, 3, **option)
    getattr(fastrnn, kind)(2, 3, **option).save(tmp_path / "layer.npz")
    with pytest.raises(ValueError, match="CUDA has no peephole"):
        getattr(fastrnn.cuda, kind).load(tmp_path / "layer.npz")


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
        ([0.0], TypeError, "x must be a float32 array of NumPy or of a library that has __dlpack__ or __cuda"),
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
        (np.ma.masked_array([1, 2]), TypeError, "lengths must not be masked"),
    ):
        with pytest.raises(error, match=message):
            lstm(x, lengths=lengths)
    _, _, tape = lstm.forward(x)
    with pytest.raises(ValueError, match="dy must have shape"):
        lstm.backward(tape, x)
    with pytest.raises(TypeError, match="tape must be what forward returned"):
        lstm.backward(fastrnn.LSTM(3, 4).forward(x)[2])


def test_an_array_on_another_gpu_is_refused(cuda, monkeypatch):
    """The emulator has one: this one is said to be the third."""
    lstm, x = fastrnn.cuda.LSTM(3, 4), np.zeros((5, 2, 3), np.float32)
    assert cuda.device_of(x.ctypes.data) == cuda.device_of(0) == 0
    monkeypatch.setattr(cuda, "device_of", lambda address: 3 if address == x.ctypes.data else 0)
    with pytest.raises(ValueError, match="x must be on the current GPU, 0, got one on GPU 3"):
        lstm(Foreign(x))
    lstm(Foreign(x.copy()))


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


def test_a_program_may_end_while_daemon_threads_compute(cuda):
    """What comes back from the device then has no interpreter to go on in."""
    program = f"""
import subprocess
import sys
from pathlib import Path
import threading

sys.path.insert(0, {str(Path(__file__).parent)!r})
import cuda_runner

sys.modules["fastrnn._cuda"] = cuda_runner.load_module()
import numpy as np

import fastrnn.cuda

layer, x = fastrnn.cuda.LSTM(8, 64), np.zeros((300, 4, 8), np.float32)
begun = threading.Event()


def work():
    while True:
        begun.set()
        layer(x)


for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
begun.wait()
"""
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")

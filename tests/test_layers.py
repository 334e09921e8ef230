"""The classes and functions around the engines: constructors, parameters, seeds, tapes, files, copies, settings."""

import copy
import errno
import itertools
import json
import pickle
import struct
import sys
import threading
import types
import zipfile
from fractions import Fraction
from importlib.metadata import version

import numpy as np
import pytest

import fastrnn

ENGINES = {"native": fastrnn, "reference": fastrnn.reference}
KINDS = ["RNN", "LSTM", "GRU"]


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


@pytest.fixture(params=KINDS)
def cls(engine, request):
    return getattr(engine, request.param)


def sequences(*shape, dtype="float32"):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def assert_same(a, b):
    """Nested tuples of arrays with the same bits."""
    if isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# ------------------------------------------------------------------------------------------------------ constructors


def test_positional_order(engine):
    common = 3, 4, 2, False, True, 0.5, True
    lstm = engine.LSTM(*common, 2, "float64", 7)
    for layer in (lstm, engine.RNN(*common, "float64", 7), engine.GRU(*common, "float64", 7)):
        assert (layer.input_size, layer.hidden_size, layer.num_layers, layer.bias) == (3, 4, 2, False)
        assert (layer.batch_first, layer.dropout, layer.bidirectional, layer.dtype) == (True, 0.5, True, "float64")
    assert lstm.proj_size == 2
    assert engine.RNN(3, 4, nonlinearity="relu").nonlinearity == "relu"
    assert engine.GRU(3, 4).reset_after
    assert not engine.GRU(3, 4, reset_after=False).reset_after
    with pytest.raises(TypeError):
        engine.GRU(*common, "float64", 7, False)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        *itertools.product(["input_size", "hidden_size", "num_layers"], [0, -1, 2**31], [ValueError]),
        *itertools.product(
            ["input_size", "hidden_size", "num_layers", "proj_size", "seed"], [True, 1.0, "1", [1]], [TypeError]
        ),
        *itertools.product(["input_size", "hidden_size", "num_layers", "proj_size"], [None], [TypeError]),
        *itertools.product(["bias", "batch_first", "bidirectional"], [None, 1, "yes", np.ones(2)], [TypeError]),
        *itertools.product(["dropout"], [-0.1, 1.1, float("nan"), float("inf"), 10**400], [ValueError]),
        *itertools.product(["dropout"], [True, None, "0.5", 1j], [TypeError]),
        *itertools.product(["proj_size"], [-1, 4, 5], [ValueError]),
        *itertools.product(["dtype"], ["float16", np.int32, ">f4", "complex64"], [ValueError]),
        *itertools.product(["dtype"], [None, "real", 32, ("f4", -1), "9999999999f4", "(", "f4,("], [TypeError]),
        *itertools.product(["seed"], [-1, 2**64], [ValueError]),
    ],
)
def test_a_bad_argument_is_named(name, value, error):
    with pytest.raises(error, match=rf"^{name} must be"):
        fastrnn.LSTM(**{"input_size": 3, "hidden_size": 4, name: value})


def test_a_huge_argument_is_named():
    """Of more digits than Python is willing to write."""
    huge = 10**5000
    for value, names, error in [
        (huge, ["input_size", "hidden_size", "num_layers", "proj_size", "dropout", "seed"], ValueError),
        (-huge, ["input_size", "hidden_size", "num_layers", "proj_size", "dropout", "seed"], ValueError),
        (Fraction(huge), ["dropout"], ValueError),
        (huge, ["bias", "dtype"], TypeError),
        ([huge], ["input_size", "bias", "dropout", "dtype", "seed"], TypeError),
    ]:
        for name in names:
            with pytest.raises(error, match=rf"^{name} must be"):
                fastrnn.LSTM(**{"input_size": 3, "hidden_size": 4, name: value})


def test_a_bad_option_is_named(engine):
    for value, error in [("gelu", ValueError), (None, TypeError), (np.tanh, TypeError)]:
        with pytest.raises(error, match="nonlinearity"):
            engine.RNN(3, 4, nonlinearity=value)
    for value in (1, None, "before"):
        with pytest.raises(TypeError, match="reset_after"):
            engine.GRU(3, 4, reset_after=value)


def test_numbers_and_dtypes_of_numpy_are_welcome(cls):
    layer = cls(np.int64(3), np.uint8(4), num_layers=np.int32(2), bias=np.True_, dropout=np.float32(0.5))
    assert type(layer.input_size) is int
    for dtype in (np.float64, "float64", np.dtype("float64"), "f8", float):
        assert cls(3, 4, dtype=dtype).dtype == "float64"


def test_dropout_without_an_effect_warns(cls):
    with pytest.warns(UserWarning, match="num_layers=1") as caught:
        cls(3, 4, dropout=0.5)
    assert caught[0].filename == __file__


# -------------------------------------------------------------------------------------------------------- parameters


def test_parameters_have_the_names_and_shapes_of_pytorch(engine):
    layer = engine.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    stems = {"weight_ih": (16, 3), "weight_hh": (16, 2), "bias_ih": (16,), "bias_hh": (16,), "weight_hr": (2, 4)}
    expected = {}
    for k, end in itertools.product(range(2), ["", "_reverse"]):
        expected |= {f"{stem}_l{k}{end}": shape for stem, shape in stems.items()}
        if k:
            expected[f"weight_ih_l1{end}"] = (16, 4)
    assert [(name, a.shape) for name, a in layer.parameters.items()] == list(expected.items())
    assert layer.num_parameters == sum(np.prod(shape) for shape in expected.values())
    assert list(engine.GRU(3, 4, bias=False).parameters) == ["weight_ih_l0", "weight_hh_l0"]
    assert engine.GRU(3, 4).parameters["weight_ih_l0"].shape == (12, 3)
    assert engine.RNN(3, 4).parameters["weight_ih_l0"].shape == (4, 3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_parameters(cls, dtype):
    layer, again, other, chance = (cls(3, 16, num_layers=2, dtype=dtype, seed=seed) for seed in (1, 1, 2, None))
    random = np.random.default_rng(1)
    for name, array in layer.parameters.items():
        assert array.dtype == dtype
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert_same(array, random.uniform(-0.25, 0.25, array.shape).astype(dtype))
        assert_same(array, again.parameters[name])
        assert (array != other.parameters[name]).any()
        assert (array != chance.parameters[name]).any()


def test_parameters_take_effect_at_the_next_call(cls):
    layer, x = cls(3, 4, seed=1), sequences(5, 2, 3)
    before = layer(x)[0]
    layer.parameters["weight_ih_l0"][:] *= 2
    written = layer(x)[0]
    assert (written != before).any()
    layer.parameters["weight_ih_l0"] = layer.parameters["weight_ih_l0"] / 2
    assert_same(layer(x)[0], before)


def test_wrong_parameters_are_named(cls, tmp_path):
    x = sequences(5, 2, 3)
    layer = cls(3, 4)
    weight = layer.parameters.pop("weight_hh_l0")
    layer.parameters["weight_hh"] = weight
    for call in (layer, layer.forward, lambda _: layer.prepare(), lambda _: layer.save(tmp_path / "m.npz")):
        with pytest.raises(ValueError, match=r"parameters: missing weight_hh_l0; unexpected weight_hh$"):
            call(x)
    layer = cls(3, 4)
    layer.parameters["bias_hh_l0"] = np.zeros(5, np.float32)
    with pytest.raises(ValueError, match="bias_hh_l0"):
        layer(x)
    with pytest.raises(ValueError, match="bias_hh_l0"):
        layer.save(tmp_path / "m.npz")
    layer.parameters["bias_hh_l0"] = layer.parameters["bias_ih_l0"].astype(np.float64)
    with pytest.raises(TypeError, match="bias_hh_l0"):
        layer(x)


def test_parameters_can_be_set(cls):
    layer, twin, x = cls(3, 4, seed=1), cls(3, 4, seed=2), sequences(5, 2, 3)
    good = layer.parameters
    layer.parameters = twin.parameters
    assert layer.parameters is twin.parameters
    assert_same(layer(x), twin(x))
    layer.parameters = types.MappingProxyType(good)
    assert type(layer.parameters) is dict
    for wrong in (None, list(good.values()), "weights", 3, {1: good["bias_ih_l0"]}, good | {"bias_ih_l0": [1.0] * 4}):
        with pytest.raises(TypeError, match="parameters"):
            layer.parameters = wrong
    with pytest.raises(TypeError, match=r"^parameters: bias_ih_l0 must be a NumPy array, got None"):
        layer.parameters = good | {"bias_ih_l0": None}
    assert_same(layer(x), cls(3, 4, seed=1)(x))


def test_repr(engine):
    assert repr(engine.LSTM(3, 4)) == "LSTM(3, 4)"
    layer = engine.LSTM(3, 4, 2, False, True, 0.5, True, 2, "float64")
    options = (
        "num_layers=2, bias=False, batch_first=True, dropout=0.5, bidirectional=True, dtype='float64', proj_size=2"
    )
    assert repr(layer) == f"LSTM(3, 4, {options})"
    assert repr(engine.RNN(3, 4, nonlinearity="relu")) == "RNN(3, 4, nonlinearity='relu')"
    assert repr(engine.GRU(3, 4, reset_after=False)) == "GRU(3, 4, reset_after=False)"


# -------------------------------------------------------------------------------------------- forward, backward, tapes


def test_call_and_forward_agree(cls):
    layer, x = cls(3, 4, num_layers=2, bidirectional=True, dtype="float64"), sequences(5, 2, 3, dtype="float64")
    state = layer(x)[1]
    y, final, tape = layer.forward(x, state, lengths=[5, 2])
    called, called_final = layer(x, state, lengths=[5, 2])
    np.testing.assert_allclose(y, called, rtol=1e-13)
    for a, b in zip(np.atleast_1d(final), np.atleast_1d(called_final), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)
    grads = layer.backward(tape, y, final)
    assert isinstance(grads, fastrnn.Gradients)
    assert {name: a.shape for name, a in grads.parameters.items()} == {n: a.shape for n, a in layer.parameters.items()}
    assert (grads.c0 is not None) == isinstance(layer, fastrnn.LSTM)
    with pytest.raises(AttributeError):
        grads.x = x


def test_a_tape_belongs_to_its_layer(engine):
    layer, x = engine.LSTM(3, 4, seed=1), sequences(5, 2, 3)
    y, _, tape = layer.forward(x)
    assert tape.spec is layer.spec
    for other in (engine.LSTM(3, 4, seed=1), copy.deepcopy(layer)):
        with pytest.raises(ValueError, match="tape"):
            other.backward(tape, y)
    for no_tape in (None, y, layer.spec):
        with pytest.raises(TypeError, match="tape"):
            layer.backward(no_tape, y)
    other_engine = next(e for e in ENGINES.values() if e is not engine)
    with pytest.raises(TypeError, match="tape"):
        other_engine.LSTM(3, 4).backward(tape, y)


@pytest.mark.parametrize("engine", [fastrnn, fastrnn.reference])
def test_what_the_tape_refers_to_is_read_only(engine):
    layer = engine.LSTM(3, 4, seed=0)
    x = np.ones((2, 1, 3), np.float32)
    y, _, tape = layer.forward(x)
    with pytest.raises(ValueError, match="read-only"):
        y += 1
    with pytest.raises(ValueError, match="read-only"):
        tape.gates(0, 0)[...] = 0
    assert layer(x)[0].flags.writeable


def test_prepare_is_a_snapshot(cls):
    layer, x = cls(3, 4, num_layers=2, seed=1), sequences(5, 2, 3)
    fast = layer.prepare()
    y, state = layer(x)
    assert_same(fast(x), (y, state))
    expected = layer(x, state, lengths=[5, 2])
    assert fast.spec.parameter_shapes() == layer.spec.parameter_shapes()
    assert fast.nbytes >= sum(array.nbytes for array in layer.parameters.values())
    for array in layer.parameters.values():
        array[:] = 0
    assert_same(fast(x, state, lengths=[5, 2]), expected)


def test_lengths_are_given_by_name(cls):
    layer, x = cls(3, 4), sequences(5, 2, 3)
    for call in (layer, layer.forward, layer.prepare()):
        with pytest.raises(TypeError):
            call(x, None, [5, 2])


def test_what_prepare_and_the_tape_show(engine):
    layer = engine.LSTM(8, 4, seed=0)
    size = layer.prepare().nbytes
    assert repr(layer.prepare()) == f"Prepared(LSTM 8 -> 4, 1 layer, float32, {shown(size)})"
    layer = engine.GRU(8, 5, 2, bidirectional=True, batch_first=True, dtype="float64", reset_after=False)
    network = "GRU (reset before) 8 -> 5, 2 layers, bidirectional, batch first, float64"
    assert repr(layer.prepare()) == f"Prepared({network}, {shown(layer.prepare().nbytes)})"
    assert repr(layer.spec) == f"Spec({network})"
    tape = layer.forward(sequences(2, 100, 8, dtype="float64"))[2]
    assert repr(tape) == f"Tape({network}, T 100, B 2, {shown(tape.nbytes)})"
    tape = engine.LSTM(8, 4, proj_size=2).forward(sequences(0, 8))[2]
    assert repr(tape) == f"Tape(LSTM 8 -> 4 -> 2, 1 layer, float32, T 0, one sequence, {shown(tape.nbytes)})"
    tape = engine.RNN(8, 4, nonlinearity="relu").forward(sequences(5, 2, 8))[2]
    assert repr(tape) == f"Tape(RNN (relu) 8 -> 4, 1 layer, float32, T 5, B 2, {shown(tape.nbytes)})"


def shown(size):
    """A number of bytes, in 1000s."""
    return f"{size} bytes" if size < 1000 else f"{(size + 500) // 1000} kB"


def test_a_wrong_dtype_gets_a_hint(cls):
    layer, x = cls(3, 4, seed=0), sequences(5, 2, 3)
    y, _, tape = layer.forward(x)
    for dtype in ("float64", "float16", "int64", ">f4"):
        for call in (layer, layer.forward, layer.prepare()):
            with pytest.raises(TypeError, match=r"^x: .* got dtype \S+; use x\.astype\(np\.float32\)$"):
                call(x.astype(dtype))
        with pytest.raises(TypeError, match=r"^dy.* got (dtype )?\S+; use dy\.astype\(np\.float32\)$"):
            layer.backward(tape, y.astype(dtype))
    for dtype in ("complex64", "object", "U5", "bool"):
        with pytest.raises(TypeError, match=r"^x: .* got dtype \S+$"):
            layer(x.astype(dtype))


def test_engine_errors_name_the_argument(cls):
    layer, x = cls(3, 4), sequences(5, 2, 3)
    for arguments, error, name in [
        ((x.tolist(),), TypeError, "x"),
        ((x.astype(np.float64),), TypeError, "x"),
        ((x[..., :2],), ValueError, "x"),
        ((x[0, 0],), ValueError, "x"),
        ((x, x), (TypeError, ValueError), "h0|state"),
    ]:
        for call in (layer, layer.forward, layer.prepare()):
            with pytest.raises(error, match=name):
                call(*arguments)
    for lengths, error in [([5], ValueError), ([5, 6], ValueError), ([-1, 2], ValueError), ([1.5, 2.0], TypeError)]:
        with pytest.raises(error, match="lengths"):
            layer(x, lengths=lengths)


# ----------------------------------------------------------------------------------------------------- dropout seeds


def test_each_forward_has_its_own_mask(cls):
    x = sequences(5, 2, 3)
    layer, again = (cls(3, 32, num_layers=2, dropout=0.5, seed=1) for _ in range(2))
    first, second = layer.forward(x)[0], layer.forward(x)[0]
    assert (first != second).any()
    assert_same(again.forward(x)[0], first)
    for bad in ((x[..., :2],), (x, x), (x.astype(np.float64),)):
        with pytest.raises((TypeError, ValueError)):
            again.forward(*bad)
    with pytest.raises(ValueError, match="lengths"):
        again.forward(x, lengths=[9, 9])
    again.forward(x, dropout_seed=3)
    assert_same(again.forward(x)[0], second)  # neither refused calls nor those with a seed count
    assert_same(layer(x)[0], again(x)[0])  # no dropout in inference


def test_a_seed_fixes_the_mask(cls):
    layer, x = cls(3, 32, num_layers=2, dropout=0.5, dtype="float64"), sequences(5, 2, 3, dtype="float64")
    for seed in (0, 2**64 - 1):
        y, _, tape = layer.forward(x, dropout_seed=seed)
        again, _, same_tape = layer.forward(x, dropout_seed=seed)
        assert_same(y, again)
        assert_same(layer.backward(tape, y).x, layer.backward(same_tape, y).x)
    for seed, error in [(-1, ValueError), (2**64, ValueError), (True, TypeError), (0.5, TypeError)]:
        with pytest.raises(error, match="dropout_seed"):
            layer.forward(x, dropout_seed=seed)


def test_threads_never_share_a_mask(engine):
    layer, x = engine.RNN(2, 64, num_layers=2, dropout=0.5, seed=1), sequences(2, 1, 2)
    results = []

    def work():
        results.extend(layer.forward(x)[0].tobytes() for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    again = engine.RNN(2, 64, num_layers=2, dropout=0.5, seed=1)
    assert set(results) == {again.forward(x)[0].tobytes() for _ in range(80)}
    assert len(set(results)) == 80


# ------------------------------------------------------------------------------------------------- files and copies


def make_unusual(cls):
    own = {"RNN": {"nonlinearity": "relu"}, "LSTM": {"proj_size": 2}, "GRU": {"reset_after": False}}
    options = own[cls.__name__] | {"num_layers": 2, "bias": False, "bidirectional": True}
    return cls(3, 32, **options, batch_first=True, dropout=0.5, dtype="float64", seed=3)


def assert_equal_layers(a, b):
    assert type(a) is type(b)
    assert repr(a) == repr(b)
    assert list(a.parameters) == list(b.parameters)
    for name, array in a.parameters.items():
        assert_same(array, b.parameters[name])
        assert not np.shares_memory(array, b.parameters[name])
        assert b.parameters[name].flags.writeable
        assert b.parameters[name].flags.c_contiguous
    x = sequences(2, 5, 3, dtype="float64")
    assert_same(a(x), b(x))
    assert_same(a.forward(x)[:2], b.forward(x)[:2])  # the masks to come are the same, too
    y, _, tape = b.forward(x)
    b.backward(tape, y)


@pytest.fixture(params=[".npz", ".safetensors"])
def suffix(request):
    if request.param == ".safetensors":
        pytest.importorskip("safetensors")
    return request.param


def test_save_and_load(cls, suffix, tmp_path):
    layer = make_unusual(cls)
    layer.forward(sequences(2, 5, 3, dtype="float64"))
    for path in (tmp_path / f"m{suffix}", str(tmp_path / f"N{suffix.upper()}")):
        layer.save(path)
        assert_equal_layers(copy.deepcopy(layer), cls.load(path))
        loaded = fastrnn.load(path)
        assert type(loaded) is getattr(fastrnn, cls.__name__)
        assert repr(loaded) == repr(layer)
    assert len(list(tmp_path.iterdir())) == 2


def test_any_memory_order_can_be_saved(suffix, tmp_path):
    layer = fastrnn.GRU(3, 4)
    layer.parameters["weight_ih_l0"] = np.asfortranarray(layer.parameters["weight_ih_l0"])
    layer.save(tmp_path / f"m{suffix}")
    loaded = fastrnn.load(tmp_path / f"m{suffix}").parameters["weight_ih_l0"]
    assert_same(loaded, layer.parameters["weight_ih_l0"])
    assert loaded.flags.c_contiguous


@pytest.mark.filterwarnings("error")
def test_load_does_not_warn_again(tmp_path):
    with pytest.warns(UserWarning, match="dropout"):
        fastrnn.LSTM(3, 4, dropout=0.5).save(tmp_path / "m.npz")
    assert fastrnn.load(tmp_path / "m.npz").dropout == 0.5


def test_a_file_of_another_class(engine, tmp_path):
    path = tmp_path / "m.npz"
    engine.GRU(3, 4).save(path)
    with pytest.raises(ValueError, match=r"path: .*'gru', which is no LSTM"):
        engine.LSTM.load(path)


def test_other_suffixes(cls, tmp_path):
    layer = cls(3, 4)
    for name in ("m", "m.pt", "m.npz.gz", "npz"):
        for use in (layer.save, cls.load, fastrnn.load):
            with pytest.raises(ValueError, match="suffix"):
                use(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_networks(suffix, tmp_path):
    path = tmp_path / f"m{suffix}"
    with pytest.raises(OSError, match="m"):
        fastrnn.load(path)
    layer = fastrnn.LSTM(3, 4)
    layer.save(path)
    whole = path.read_bytes()
    for contents in (b"", b"garbage", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(contents)
        for load in (fastrnn.load, fastrnn.LSTM.load):
            with pytest.raises(ValueError, match="path"):
                load(path)


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "safetensors"])
def test_damaged_files(kind, tmp_path):
    """With any byte changed, or cut off: a network, or an error of those that `load` promises."""
    path = tmp_path / f"m.{kind.split()[-1]}"
    if path.suffix == ".safetensors":
        pytest.importorskip("safetensors")
    fastrnn.RNN(1, 2, bias=False, seed=0).save(path)
    if kind.startswith("compressed"):
        with np.load(path) as archive:
            np.savez_compressed(path, **archive)
    whole = path.read_bytes()
    cut = (whole[:size] for size in range(0, len(whole), 7))
    changed = (whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :] for place in range(len(whole)))
    errors = []
    for contents in itertools.chain(cut, changed):
        path.write_bytes(contents)
        try:
            assert isinstance(fastrnn.load(path), fastrnn.RNN)
        except ValueError as error:
            errors.append(error)
    assert len(errors) > len(whole) / 7  # each cut, at least
    assert all(str(error).startswith("path: ") for error in errors)


def test_an_archive_whose_index_points_before_the_file(tmp_path):
    """Which the system answers with EINVAL; what else it says is no fault of the file's, and stays an OSError."""
    path = tmp_path / "m.npz"
    fastrnn.LSTM(3, 4).save(path)
    whole = path.read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    path.write_bytes(whole[: end + 16] + struct.pack("<I", len(whole)) + whole[end + 20 :])  # where the index begins
    with pytest.raises(ValueError, match=r"^path: .* is not a network that fastrnn saved"):
        fastrnn.load(path)


@pytest.mark.parametrize(("number", "error"), [(errno.EINVAL, ValueError), (None, ValueError), (errno.EIO, OSError)])
def test_errors_while_a_file_is_read_name_it(number, error, tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    fastrnn.LSTM(3, 4).save(path)

    def fail(*_, **__):
        raise OSError(number, "what it says") if number else OSError("what it says")

    monkeypatch.setattr(np, "load", fail)
    with pytest.raises(error, match=r"what it says.*m\.npz|m\.npz.*what it says"):
        fastrnn.load(path)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1), ",  # tokenize.TokenError or a SyntaxError
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1152921504606846976,), }",  # MemoryError
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': 'what', 'fortran_order': False, 'shape': (4, 1), }",
        "(" * 9000,
    ],
)
def test_arrays_with_broken_headers(header, tmp_path):
    """In an archive that is whole."""
    path = tmp_path / "m.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weight_ih_l0.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode())
    with pytest.raises(ValueError, match=r"^path: .* is not a network that fastrnn saved"):
        fastrnn.load(path)


def test_files_with_something_wrong_inside(tmp_path):
    path = tmp_path / "m.npz"
    fastrnn.LSTM(3, 4).save(path)
    with np.load(path) as archive:
        good = dict(archive)
    config = json.loads(str(good["config"]))

    def other(arrays=None, **changes):
        return good | (arrays or {}) | {"config": np.array(json.dumps(config | changes))}

    for contents, named in [
        ({n: a for n, a in good.items() if n != "config"}, r"fastrnn saved \(it has no entry 'config'\)$"),
        (good | {"config": np.array("[]")}, "configuration"),
        (good | {"config": np.array("{")}, "path"),
        (other(cell="cnn"), "cnn"),
        (other(cell=["lstm"]), "lstm"),
        (other(more=1), "unexpected more"),
        (other(hidden_size=0), r"^path: .*hidden_size"),
        (other(hidden_size=5), "weight_ih_l0"),
        (other(hidden_size=2**31 - 1), "weight_ih_l0"),
        (other(num_layers=2**31 - 1), "num_layers"),
        (other(hidden_size="4"), "hidden_size"),
        (other(options=0), "Options"),
        (other(options=[None, -1.0]), "clip"),
        (other(dropout_base=-1), "dropout_base"),
        (other(dropout_calls=None), "dropout_calls"),
        (other({"weight_ih_l0": good["weight_ih_l0"].astype(np.float64)}), "weight_ih_l0"),
        (other({"weight_ih_l1": good["weight_ih_l0"]}), "unexpected weight_ih_l1"),
        ({n: a for n, a in good.items() if n != "bias_hh_l0"}, "missing bias_hh_l0"),
        (good | {"bias_hh_l0": np.array([None], object)}, "path"),
    ]:
        np.savez(path, **contents)
        with pytest.raises(ValueError, match=named):
            fastrnn.load(path)


def test_a_file_that_is_no_archive(tmp_path):
    """NumPy would advise to load it unsafely."""
    path = tmp_path / "m.npz"
    path.write_text("text")
    with pytest.raises(ValueError, match=r"fastrnn saved \(it is no \.npz archive\)$"):
        fastrnn.load(path)


def test_a_file_of_another_program(tmp_path):
    path = tmp_path / "m.safetensors"
    pytest.importorskip("safetensors.numpy").save_file({"w": np.ones(3)}, path)
    with pytest.raises(ValueError, match=r"fastrnn saved \(it has no entry 'config'\)$"):
        fastrnn.load(path)


@pytest.mark.parametrize("failing", ["the writer", "os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device", "another name"), MemoryError()])
def test_a_failed_save_leaves_the_file_before(failing, error, suffix, tmp_path, monkeypatch):
    path = tmp_path / f"m{suffix}"
    fastrnn.GRU(3, 4, seed=1).save(path)
    before = path.read_bytes()

    def fail(file, *_args, **_options):
        if hasattr(file, "write"):
            file.write(b"half")
        raise error

    writers = {".npz": "numpy.savez", ".safetensors": "safetensors.numpy.save"}
    monkeypatch.setattr(writers[suffix] if failing == "the writer" else failing, fail)
    message = f"No space left on device: '{path}'$" if isinstance(error, OSError) else "^$"
    with pytest.raises(type(error), match=message):
        fastrnn.GRU(3, 4, seed=2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_save_keeps_of_the_file_before(suffix, tmp_path):
    """Its permissions, and links to it."""
    path, link = tmp_path / f"m{suffix}", tmp_path / f"link{suffix}"
    path.touch(0o640)
    link.symlink_to(path)
    layer = fastrnn.GRU(3, 4)
    layer.save(link)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert_same(fastrnn.load(path).parameters["weight_ih_l0"], layer.parameters["weight_ih_l0"])


def test_paths_that_are_none(cls, suffix, tmp_path):
    uses = cls(3, 4).save, cls.load, fastrnn.load
    with (tmp_path / f"m{suffix}").open("wb+") as file:
        for path, use in itertools.product([None, file, 3, f"m{suffix}".encode(), ["m"]], uses):
            with pytest.raises(TypeError, match=r"^path must be a str or an os\.PathLike\[str\], got"):
                use(path)
    for use in uses:
        with pytest.raises(ValueError, match=r"^path must have no null character"):
            use(f"m\0{suffix}")
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    for use in uses:
        with pytest.raises(IsADirectoryError, match=rf"'{folder}'$"):
            use(folder)
        with pytest.raises(FileNotFoundError, match=rf"'{tmp_path / 'none' / f'm{suffix}'}'$"):
            use(tmp_path / "none" / f"m{suffix}")
    assert not list(folder.iterdir())


def test_without_safetensors(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match="pip install safetensors"):
        fastrnn.LSTM(3, 4).save(tmp_path / "m.safetensors")
    (tmp_path / "m.safetensors").touch()
    with pytest.raises(ImportError, match="pip install safetensors"):
        fastrnn.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies(cls, duplicate):
    layer = make_unusual(cls)
    layer.forward(sequences(2, 5, 3, dtype="float64"))
    assert_equal_layers(layer, duplicate(layer))


def test_shallow_copy_shares_the_parameters(cls):
    layer = cls(3, 4)
    shallow = copy.copy(layer)
    assert shallow.parameters is layer.parameters
    assert_same(shallow(sequences(5, 2, 3)), layer(sequences(5, 2, 3)))


# --------------------------------------------------------------------------------------------------------- functional

FUNCTIONS = {
    "RNN": (fastrnn.functional.rnn, fastrnn.functional.rnn_forward, {"nonlinearity": "sigmoid"}),
    "LSTM": (fastrnn.functional.lstm, fastrnn.functional.lstm_forward, {}),
    "GRU": (fastrnn.functional.gru, fastrnn.functional.gru_forward, {"reset_after": False}),
}


@pytest.mark.parametrize(("kind", "proj_size"), [("RNN", 0), ("GRU", 0), ("LSTM", 0), ("LSTM", 2)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_functions_are_the_layers(kind, proj_size, bias, flat):
    infer, forward, own = FUNCTIONS[kind]
    options = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    sizes = own | ({"proj_size": proj_size} if proj_size else {})
    layer = getattr(fastrnn, kind)(3, 4, **options, **sizes, bias=bias, dropout=0.5, dtype="float64")
    weights = list(layer.parameters.values()) if flat else dict(reversed(layer.parameters.items()))
    x = sequences(2, 5, 3, dtype="float64")
    state = layer(x)[1]
    assert_same(infer(x, weights, state, lengths=[5, 3], **options, **own), layer(x, state, lengths=[5, 3]))
    call = {"lengths": [5, 3], "dropout_seed": 9}
    *results, tape = forward(x, weights, state, dropout=0.5, **call, **options, **own)
    *expected, layer_tape = layer.forward(x, state, **call)
    assert_same(tuple(results), tuple(expected))
    grads, same = fastrnn.functional.backward(tape, *results), layer.backward(layer_tape, *results)
    assert_same(grads.x, same.x)
    assert list(grads.parameters) == list(layer.parameters)
    for name, gradient in grads.parameters.items():
        assert_same(gradient, same.parameters[name])


def test_functions_draw_masks_by_chance():
    layer, x = fastrnn.GRU(3, 32, num_layers=2), sequences(5, 2, 3)
    first, second = (fastrnn.functional.gru_forward(x, layer.parameters, num_layers=2, dropout=0.5) for _ in range(2))
    assert (first[0] != second[0]).any()


def test_functions_say_which_weights_are_wrong():
    gru = fastrnn.functional.gru
    x, good = sequences(5, 2, 3), fastrnn.GRU(3, 4, num_layers=2).parameters
    flat = list(good.values())

    def without(name, **more):
        return {n: a for n, a in good.items() if n != name} | more

    for weights, error, message in [
        (without("bias_hh_l1"), ValueError, r"weights: missing bias_hh_l1$"),
        (without("weight_ih_l0"), ValueError, r"missing weight_ih_l0$"),
        (without("weight_hh_l0", W=flat[0]), ValueError, r"missing weight_hh_l0; unexpected W$"),
        (good | {"weight_hr_l0": flat[0]}, ValueError, r"unexpected weight_hr_l0$"),
        (flat[:-1], ValueError, r"missing bias_hh_l1$"),
        (flat[:5], ValueError, r"missing weight_hh_l1, bias_ih_l1, bias_hh_l1$"),
        ([*flat, flat[0]], ValueError, r"expected 8 arrays"),
        ([], ValueError, r"missing weight_ih_l0"),
        (flat[0], TypeError, "weights"),
        (None, TypeError, "weights"),
        ("weights", (TypeError, ValueError), "weight"),
        (good | {"weight_ih_l0": flat[0].tolist()}, TypeError, "weight_ih_l0"),
        (
            good | {"weight_ih_l0": flat[0][:11]},
            ValueError,
            r"3 rows for each unit of a GRU, got 11 rows$",
        ),
        (good | {"weight_ih_l0": flat[0][0]}, ValueError, "weight_ih_l0"),
        (good | {"weight_ih_l0": flat[0].astype(np.float16)}, ValueError, "weight_ih_l0"),
        (good | {"weight_hh_l0": flat[1][:, :3]}, ValueError, "weight_hh_l0"),
    ]:
        with pytest.raises(error, match=message):
            gru(x, weights, num_layers=2)
    for options in ({"num_layers": 0}, {"num_layers": True}, {"bidirectional": 1}, {"batch_first": None}):
        with pytest.raises((TypeError, ValueError), match=next(iter(options))):
            gru(x, good, **({"num_layers": 2} | options))
    with pytest.raises(ValueError, match="dropout"):
        fastrnn.functional.gru_forward(x, good, num_layers=2, dropout=2)
    with pytest.raises(TypeError, match="tape"):
        fastrnn.functional.backward(None)


def test_messages_stay_short():
    x, good = sequences(5, 2, 3), fastrnn.GRU(3, 4).parameters
    layer = fastrnn.GRU(3, 4)
    layer.parameters |= {"x" * 10**6: good["bias_ih_l0"]} | {f"more{i}": good["bias_ih_l0"] for i in range(10**4)}
    for call in (
        lambda: fastrnn.functional.gru(x, good, num_layers=65535),
        lambda: fastrnn.functional.gru(x, list(good.values()), num_layers=65535),
        lambda: fastrnn.functional.gru(x, [good["bias_ih_l0"]] * 10**6, num_layers=65535),
        lambda: layer(x),
        lambda: fastrnn.weights.from_torch({"weight_ih_l99999": good["weight_ih_l0"]}),
    ):
        with pytest.raises(ValueError, match=r"\(\d+ in all\)") as caught:
            call()
        assert len(str(caught.value)) < 500


# ------------------------------------------------------------------------------------------------------------- config


def test_threads():
    before = fastrnn.get_num_threads()
    try:
        fastrnn.set_num_threads(1)
        assert fastrnn.get_num_threads() == 1
    finally:
        fastrnn.set_num_threads(before)
    for n, error in [(0, ValueError), (-1, ValueError), (True, TypeError), (1.0, TypeError), (None, TypeError)]:
        with pytest.raises(error, match=r"^n must be"):
            fastrnn.set_num_threads(n)


def test_native_calls_counts_the_kernels():
    x = sequences(5, 2, 3)
    before = fastrnn.native_calls()
    fastrnn.reference.LSTM(3, 4)(x)
    assert fastrnn.native_calls() == before
    fastrnn.LSTM(3, 4)(x)
    assert fastrnn.native_calls() > before


def test_show_config(capsys):
    config = fastrnn.show_config(mode="dict")
    assert not capsys.readouterr().out
    assert config.keys() == {"version", "compiler", "isa", "available_isas", "threads", "numpy", "cuda"}
    assert config["version"] == fastrnn.__version__ == version("fastrnn")
    assert config["isa"] in config["available_isas"]
    assert config["threads"] == fastrnn.get_num_threads()
    assert fastrnn.show_config() is None
    out = capsys.readouterr().out
    assert all(name in out for name in config)
    assert np.__version__ in out
    with pytest.raises(ValueError, match="mode"):
        fastrnn.show_config("yaml")


def test_all_that_is_exported_is_there():
    assert all(hasattr(fastrnn, name) for name in fastrnn.__all__)

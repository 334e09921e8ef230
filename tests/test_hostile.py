"""Arguments that change in use, classes that lie, and objects that nobody made: none may crash a process."""

import copy
import pickle

import numpy as np
import pytest

import fastrnn
from fastrnn import _core

SIZE = 8


@pytest.fixture(params=[fastrnn, fastrnn.reference], ids=["native", "reference"])
def layer(request):
    return request.param.LSTM(SIZE, 4, seed=0)


@pytest.fixture
def native():
    return fastrnn.LSTM(SIZE, 4, seed=0)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal((100, 50, SIZE)).astype(np.float32)


@pytest.mark.parametrize("shape", [(50, 100, SIZE), (1, 1, 50 * 100 * SIZE), (50 * 100 * SIZE,)])
def test_x_gets_another_shape_before_backward(layer, x, shape):
    y, _, tape = layer.forward(x)
    expected = layer.backward(tape, y)
    x.shape = shape
    gradients = layer.backward(tape, y)
    assert np.array_equal(gradients.x, expected.x)
    assert all(np.array_equal(gradients.parameters[n], expected.parameters[n]) for n in layer.parameters)


def test_lengths_that_change_x(layer, x):
    class Lengths:
        def __array__(self, *_args, **_options):
            x.shape = (1, 1, -1)
            return np.full(50, 100)

    with pytest.raises(ValueError, match=r"^x: expected shape .* got \(1, 1, 40000\)"):
        layer(x, lengths=Lengths())


@pytest.mark.parametrize("cell", ["RNN", "LSTM"])
@pytest.mark.parametrize("shape", [(-1,), (1, 1, -1), (50, 100, 4), ()])
def test_y_gets_another_shape_before_backward(cell, shape, x):
    layer = getattr(fastrnn, cell)(SIZE, 4, seed=0)
    y, _, tape = layer.forward(x)
    dy, gates, expected = y.copy(), tape.gates(0).copy(), layer.backward(tape, y)
    with pytest.raises(ValueError, match="cannot resize"):
        y.resize((0,), refcheck=False)
    if shape:
        y.shape = shape
    del y
    assert np.array_equal(layer.backward(tape, dy).x, expected.x)
    assert np.array_equal(tape.gates(0), gates)


def test_objects_declared_to_be_others(native, x):
    things = [native.spec, native.prepare(), native.forward(x)[2]]
    for thing in things:
        for other in things:
            if other is not thing:
                with pytest.raises(TypeError, match="__class__ assignment"):
                    thing.__class__ = type(other)


@pytest.mark.parametrize("what", ["x", "weight_hh_l0"])
@pytest.mark.parametrize("shape", [(0,), (1, 1), (1000, 1000)])
def test_arrays_that_are_resized_before_backward(native, x, what, shape):
    tape = native.forward(x)[2]
    (x if what == "x" else native.parameters[what]).resize(shape, refcheck=False)
    with pytest.raises(ValueError, match=f"^{what}: expected the array as it was in the forward call, got a resized"):
        native.backward(tape)


def test_arrays_that_are_resized_while_others_are_checked(native):
    """By code of the caller's that runs then, in whichever place it is not asked, or asked before anything is read."""
    x = np.random.default_rng(0).standard_normal((4000, 50, SIZE)).astype(np.float32)
    state = np.zeros((1, 50, 4), np.float32)
    expected, asked = native(x)[0], []

    def resize():
        asked.append(True)
        x.resize((0,), refcheck=False)

    class Items(list):
        def __getitem__(self, index):
            resize()

        def __len__(self):
            resize()

        def __iter__(self):
            resize()

    class Array(np.ndarray):
        @property
        def __class__(self):
            resize()

        def __array_finalize__(self, other):
            if other is not None and armed:
                resize()

    armed = False
    strided = np.zeros((1, 50, 8), np.float32).view(Array)[..., ::2]
    armed = True
    for given in (Items([None, None]), (strided, state), (state, strided)):
        assert np.array_equal(native(x, given)[0], expected)
        assert np.array_equal(native.forward(x, given)[0], expected)
    armed = False
    assert not asked

    class Lengths:
        def __array__(self, *_args, **_options):
            native.parameters["weight_hh_l0"].resize((0,), refcheck=False)
            return np.full(50, 4000)

    for call in (native, native.forward):
        with pytest.raises(ValueError, match=r"^weight_hh_l0: expected shape \(16, 4\), got \(0,\)"):
            call(x, lengths=Lengths())


class Liar(np.ndarray):
    def copy(self, order="C"):
        return np.zeros(1, np.float32)


def test_arrays_that_copy_wrongly(layer, x):
    expected = layer(x)[0]
    layer.parameters["weight_ih_l0"] = np.asfortranarray(layer.parameters["weight_ih_l0"]).view(Liar)
    assert np.array_equal(layer(x)[0], expected)
    state = (np.zeros((1, 50, 4), np.float32).view(Liar), None)
    assert np.array_equal(layer.forward(x, state)[0], expected)


def test_masks_are_not_overlooked(layer, x):
    masked = np.ma.masked_array(x, mask=x > 0)
    for call in (layer, layer.forward, layer.prepare()):
        with pytest.raises(TypeError, match=r"^x: expected a NumPy array of float32, got a masked one"):
            call(masked)
        with pytest.raises(TypeError, match=r"^lengths: expected integers, got a masked array"):
            call(x, lengths=np.ma.masked_array([1] * x.shape[1]))
    with pytest.raises(TypeError, match=r"^h0: .* masked"):
        layer(x, (np.ma.masked_array(np.zeros((1, 50, 4), np.float32)), None))
    y, (h_n, c_n), tape = layer.forward(x)
    with pytest.raises(TypeError, match=r"^dy: expected a NumPy array of float32, got a masked one"):
        layer.backward(tape, np.ma.masked_array(y))
    with pytest.raises(TypeError, match=r"^dc_n: .* masked"):
        layer.backward(tape, y, (h_n, np.ma.masked_array(c_n)))
    layer.parameters["bias_hh_l0"] = np.ma.masked_array(layer.parameters["bias_hh_l0"])
    with pytest.raises(TypeError, match=r"^bias_hh_l0: .* masked"):
        layer(x)


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("engine", [fastrnn, fastrnn.reference], ids=["native", "reference"])
def test_matrices_are_arrays(engine, name, x):
    layer, one = getattr(engine, name)(SIZE, 4, seed=0), x[:, 0].copy()

    def everything(change):
        arguments = change(one), None
        y, state, tape = layer.forward(*arguments)
        state = tuple(map(change, state)) if name == "LSTM" else change(state)
        gradients = layer.backward(tape, change(y), state)
        results = [layer(change(one), state)[0], layer.prepare()(change(one), state)[0], y, tape.gates(0), gradients.x]
        return [*results, gradients.h0, *gradients.parameters.values()]

    expected = everything(np.asarray)
    for key, array in layer.parameters.items():
        layer.parameters[key] = array.view(np.matrix) if array.ndim == 2 else array
    for a, b in zip(everything(np.asmatrix), expected, strict=True):
        assert type(a) is np.ndarray
        assert np.array_equal(a, b)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(native, x, protocol):
    layer = native
    same = pickle.loads(pickle.dumps(layer.spec, protocol))
    assert repr(same.parameter_shapes()) == repr(layer.spec.parameter_shapes())
    assert (same.cell, same.dtype, same.dropout) == ("lstm", "float32", 0.0)
    for thing in (layer.prepare(), layer.forward(x)[2]):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(thing, protocol)
        with pytest.raises(TypeError, match="cannot pickle"):
            copy.deepcopy(thing)


@pytest.mark.parametrize("kind", [_core.Spec, _core.Tape, _core.Prepared])
def test_objects_that_nobody_made(kind):
    for make in (kind, kind.__new__, lambda cls=kind: cls.__new__(cls), lambda cls=kind: object.__new__(cls)):
        with pytest.raises(TypeError):
            make()


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        (np.zeros((0, 7)), ValueError),
        (np.zeros((0, 7), np.int64), ValueError),
        (np.zeros((3, 0), object), TypeError),
        (np.zeros(0, "U3"), TypeError),
        ([[]], ValueError),
    ],
)
def test_lengths_of_no_rows(layer, lengths, error):
    x = np.zeros((5, 0, SIZE), np.float32)
    with pytest.raises(error, match=r"^lengths: expected"):
        layer(x, lengths=lengths)
    for fine in ([], (), np.zeros(0, np.int32)):
        assert layer(x, lengths=fine)[0].shape == (5, 0, 4)


@pytest.mark.parametrize("index", ["0", 1.0, None, True])
def test_places_on_the_tape(layer, x, index):
    tape = layer.forward(x)[2]
    for look in (tape.gates, tape.cells):
        with pytest.raises(TypeError, match=r"^layer(:| must) .*an int, got"):
            look(index, 0)
        with pytest.raises(TypeError, match=r"^direction(:| must) .*an int, got"):
            look(0, index)
        for far in (-1, 1, 2**70, 10**5000):
            with pytest.raises(ValueError, match=r"^layer(:| must)"):
                look(far)
            with pytest.raises(ValueError, match=r"^direction(:| must)"):
                look(0, far)
        assert np.array_equal(look(0), look(np.int64(0), np.uint8(0)))


@pytest.mark.parametrize("steps", [2**31, 2**40, 2**47])
def test_more_than_there_is_memory_for(native, steps):
    layer = native
    x = np.lib.stride_tricks.as_strided(np.ones(SIZE, np.float32), (steps, 2**10, SIZE), (0, 0, 4))
    for call in (layer, layer.forward):
        with pytest.raises(MemoryError, match=r"not enough memory for results of shape \(\d+, 1024, 4\)"):
            call(x)
    assert layer(x[:3])[0].shape == (3, 2**10, 4)


def test_a_tape_larger_than_there_is_memory_for():
    """Its results are small: they are those of the projection."""
    network = fastrnn.LSTM(1, 2**20, proj_size=1, seed=0)
    x = np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (2**26, 1, 1), (0, 0, 4))
    with pytest.raises(MemoryError, match="not enough memory for the tape"):
        network.forward(x)

"""Random networks, shapes, lengths and strides against the reference, the same ones each time."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import fastrnn
from cases import (
    CELLS,
    DTYPES,
    ISAS,
    NEAR_A_KINK,
    PARTITIONS,
    Case,
    Data,
    Native,
    assert_same_bits,
    backward,
    everything,
    forward,
    in_float64,
    infer,
    train,
    watched_kinks,
)
from fastrnn import _core

pytestmark = pytest.mark.alone  # the threads of a call meet at each step

repeatable = settings(
    derandomize=True,
    database=None,
    deadline=None,  # the machine may be busy
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


@st.composite
def networks(draw):
    """(layer, data): a network of any kind and a batch of any shape for it."""
    cell = draw(st.sampled_from(CELLS))
    dtype = draw(st.sampled_from(DTYPES))
    # A gradient of one number is a sum that may cancel, or a derivative of a unit that is saturated: its relative error
    # says nothing of the arithmetic.
    least = 2
    layers = draw(st.integers(1, 3))
    case = Case(
        cell,
        hidden=draw(st.integers(least, 40)),
        inputs=draw(st.integers(least, 40)),
        batch=draw(st.none() | st.integers(0, 20)),
        steps=draw(st.integers(0, 20)),
        layers=layers,
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        batch_first=draw(st.booleans()),
        dropout=draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0])) if layers > 1 else 0.0,
        initial=draw(st.booleans()),
    )
    layer = case.network(Native, dtype, seed=draw(st.integers(0, 2**32)))
    data = case.data(layer, seed=draw(st.integers(0, 2**32)))
    length = st.integers(0, case.steps)
    rows = st.lists(length, min_size=case.batch or 0, max_size=case.batch or 0)
    data.lengths = draw(st.none() | (length if case.batch is None else rows))
    data.dropout_seed = draw(st.integers(0, 2**64 - 1))
    return case, layer, data


ways = st.tuples(st.sampled_from(ISAS), st.integers(1, 4), st.sampled_from(["automatic", *PARTITIONS]))


def choose(way):
    isa, threads, partition = way
    _core.set_isa(isa)
    fastrnn.set_num_threads(threads)
    _core.set_partition(partition)


@given(network=networks(), way=ways)
@settings(repeatable, max_examples=400)
def test_any_network(network, way, assert_close):
    case, layer, data = network
    exact, same = in_float64(layer), data.astype(np.float64)
    with watched_kinks() as kinks:
        expected, inferred = train(exact, same), infer(exact, same)
    assume(kinks.nearest > NEAR_A_KINK)
    choose(way)
    results, tape = forward(layer, data)
    assert_close("forward", layer.spec, case.steps, results, expected[0])
    assert_close("backward", layer.spec, case.steps, backward(layer, tape, data), expected[1])
    assert_close("forward", layer.spec, case.steps, infer(layer, data), inferred)
    assert_close("forward", layer.spec, case.steps, infer(layer.prepare(), data), inferred)


@given(network=networks(), way=ways, other=ways)
@settings(repeatable, max_examples=300)
def test_any_sharing_of_the_work(network, way, other):
    _, layer, data = network
    choose(way)
    expected = everything(layer, data)
    choose((way[0], *other[1:]))
    assert_same_bits(everything(layer, data), expected)


@st.composite
def strided(draw, array):
    """The same values with strides of any sign and size, some of no whole number of elements, axes in any order."""
    order = draw(st.permutations(range(array.ndim)))
    steps = [draw(st.sampled_from([-3, -2, -1, 1, 2, 3])) for _ in range(array.ndim)]
    offset, odd = draw(st.integers(0, 2)), draw(st.booleans())
    shape = [abs(step) * array.shape[axis] + offset for step, axis in zip(steps, order, strict=True)]
    if odd:
        memory = np.zeros(shape, [("before", "u1"), ("value", array.dtype)])["value"]
    else:
        memory = np.zeros(shape, array.dtype)
    ends = [slice(offset, None, abs(step)) for step in steps]
    view = memory[tuple(ends)][tuple(slice(None, None, 1 if step > 0 else -1) for step in steps)]
    view = view.transpose(np.argsort(order))
    view[...] = array
    assert view.shape == array.shape
    return view


@given(network=networks(), way=ways, more=st.data())
@settings(repeatable, max_examples=300)
def test_any_strides(network, way, more):
    _, layer, data = network
    choose(way)
    expected = everything(layer, data)

    def rearrange(value):
        if isinstance(value, tuple):
            return tuple(map(rearrange, value))
        return value if value is None else more.draw(strided(value))

    layer.parameters = {name: rearrange(array) for name, array in layer.parameters.items()}
    arrays = (rearrange(array) for array in (data.x, data.state, data.dy, data.dstate))
    rearranged = Data(*arrays, data.lengths, data.dropout_seed)
    assert_same_bits(everything(layer, rearranged), expected)

"""Gradients of each weight, and of losses on a part of the results."""

import itertools

import numpy as np
import pytest

from cases import (
    CELLS,
    DEEP,
    DTYPES,
    WITH_C,
    B,
    Data,
    H,
    I,
    Native,
    T,
    as_state,
    assert_same_bits,
    check_against_reference,
    everything,
    forward,
    in_float64,
    make_data,
    named,
)

every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@pytest.mark.parametrize("cell", ["gru", "gru_reset_before"])
@every_dtype
def test_recurrent_bias_of_the_gru(cell, dtype, isa, assert_close):
    layer = Native(cell, I, H, dtype=dtype)
    layer.parameters["bias_ih_l0"][:] = 0
    layer.parameters["bias_hh_l0"][:] = np.random.default_rng(2).normal(size=3 * H)
    gradients = check_against_reference(assert_close, layer, make_data(layer, T, B))[1]
    b_ih, b_hh = gradients["dbias_ih_l0"], gradients["dbias_hh_l0"]
    assert b_ih.all()
    assert b_hh.all()
    assert np.array_equal(b_ih[: 2 * H], b_hh[: 2 * H])
    if cell == "gru":  # r scales the recurrent part of n alone
        assert (b_ih[2 * H :] != b_hh[2 * H :]).all()
    else:
        assert np.array_equal(b_ih, b_hh)


@every_cell
def test_gradients_of_three_layers_and_both_directions(cell, isa, assert_close):
    layer = Native(cell, I, H, 3, bidirectional=True)
    data = make_data(layer, T, B)
    gradients = check_against_reference(assert_close, layer, data)[1]
    assert all(gradient.any() for gradient in gradients.values())
    assert {name: g.shape for name, g in gradients.items() if name[1:] in layer.parameters} == {
        f"d{name}": array.shape for name, array in layer.parameters.items()
    }


@pytest.mark.parametrize(("cell", "of"), [(cell, of) for cell in CELLS for of in ("yhc" if cell in WITH_C else "yh")])
@pytest.mark.parametrize("lengths", [None, [4, 9, 0]])
def test_loss_on_one_result_alone(cell, of, lengths, isa, assert_close):
    layer = Native(cell, I, H, **DEEP)
    data = make_data(layer, T, 3, lengths=lengths)
    exact, same = in_float64(layer), data.astype(np.float64)

    def gradients(network, data, of_others):
        tape = forward(network, data)[1]
        dy, *dstate = (d if k == of else of_others(d) for k, d in zip("yhc", (data.dy, *data.dstate), strict=False))
        return named(network.backward(tape, dy, as_state(tuple(dstate))))

    given = gradients(layer, data, lambda _: None)
    assert_same_bits(given, gradients(layer, data, np.zeros_like), "from zeros in the place of None")
    assert_close("backward", layer.spec, T, given, gradients(exact, same, lambda _: None))
    assert all(gradient.any() for gradient in given.values())


@every_cell
def test_loss_on_nothing(cell, isa):
    layer = Native(cell, I, H, **DEEP)
    gradients = named(layer.backward(forward(layer, make_data(layer, T, B))[1]))
    assert {name: g.shape for name, g in gradients.items() if name[1:] in layer.parameters} == {
        f"d{name}": array.shape for name, array in layer.parameters.items()
    }
    assert not any(gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize("cell", WITH_C)
def test_half_a_state(cell):
    """h0 without c0 and the other way round, in a tuple or in a list."""
    layer = Native(cell, I, H)
    data = make_data(layer, T, B)
    for given in itertools.product([True, False], repeat=2):
        state = tuple(a if g else np.zeros_like(a) for a, g in zip(data.state, given, strict=True))
        expected = everything(layer, Data(data.x, state, data.dy, data.dstate))
        for kind in (tuple, list):
            some = kind(a if g else None for a, g in zip(data.state, given, strict=True))
            y, final = layer(data.x, some)
            assert np.array_equal(y, expected["inferred y"])
            assert np.array_equal(final[1], expected["inferred c_n"])
            tape = layer.forward(data.x, some)[2]
            gradients = named(layer.backward(tape, data.dy, kind(data.dstate)))
            assert_same_bits(gradients, {name: expected[name] for name in gradients})

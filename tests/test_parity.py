"""The kernels against the reference: every cell, value type and instruction set, over a design that covers the options.

All that comes out is compared: outputs, states, what lies on the tape, and every gradient.
"""

import itertools
from functools import lru_cache

import numpy as np
import pytest

from cases import (
    CELLS,
    DTYPES,
    ISAS,
    NEAR_A_KINK,
    PROJECTED,
    Case,
    Native,
    assert_same_bits,
    backward,
    covering,
    forward,
    in_float64,
    infer,
    train,
    watched_kinks,
)
from fastrnn import _core

FACTORS = {
    "cell": CELLS,
    "hidden": (1, 3, 17, 33, 65, 128, 257),
    "inputs": (1, 4, 20, 31, 64, 130),
    "batch": (None, 1, 2, 5, 16, 33),
    "steps": (1, 2, 7, 50),
    "layers": (1, 2, 3),
    "bidirectional": (False, True),
    "bias": (True, False),
    "batch_first": (False, True),
    "dropout": (0.0, 0.35),
    "initial": (True, False),
    "ragged": (False, True),
}


EXCLUDED = (  # pairs that cannot be
    {("cell", PROJECTED), ("hidden", 1)},  # nothing is narrower
    {("dropout", 0.35), ("layers", 1)},  # it acts between layers
    {("hidden", 1), ("inputs", 1)},  # a mix-up of the two sizes would not be seen
)


def valid(cell, hidden, batch, steps, layers, **rest):
    combination = {"cell": cell, "hidden": hidden, "layers": layers, **rest}
    if any(pair <= combination.items() for pair in EXCLUDED):
        return False
    # A relu is compared where no pre-activation lies at its kink; among too many, one always does.
    return cell != "rnn_relu" or hidden * (batch or 1) * steps * layers < 100_000


# What the design is too small for. Relus have more pre-activations there than can all stay away from the kink.
LARGE = [
    case
    for cell in CELLS
    for case in (
        Case(cell, 3, 4, 5, 900, bidirectional=True),  # more steps than a chunk of the products over time holds
        Case(cell, 200, 24, 33, 30, layers=2, ragged=True),  # the same of ragged rows, layer upon layer
        Case(cell, 1030, 7, 3, 2),  # many panels of units
        Case(cell, 1030, 700, 33, 2),  # weights that are fetched ahead, and tiles of two panels for long rows
        Case(cell, 6, 700, 3, 2),  # and of inputs
        Case(cell, 5, 3, 2, 4, layers=6),
        Case(cell, 5, 3, 2, 4, layers=5, bidirectional=True),
    )
    if cell != "rnn_relu" or valid(**vars(case))
]
CASES = [Case(**combination) for combination in covering(FACTORS, valid)] + LARGE


@lru_cache(maxsize=1)
def expected(case, dtype):
    """Network, data, and what the reference makes of them: forward, backward, inference."""
    layer = case.network(Native, dtype)
    exact = in_float64(layer)
    for seed in itertools.count():
        data = case.data(layer, seed)
        same = data.astype(np.float64)
        with watched_kinks() as kinks:
            results = *train(exact, same), infer(exact, same)
        if kinks.nearest > NEAR_A_KINK:
            break
    return layer, data, *results


@pytest.mark.parametrize(
    ("case", "dtype", "isa"),
    [pytest.param(*p, id="-".join(map(str, p))) for p in itertools.product(CASES, DTYPES, ISAS)],
)
def test_parity(case, dtype, isa, assert_close):
    layer, data, forwards, gradients, inferred = expected(case, dtype)
    _core.set_isa(isa)
    results, tape = forward(layer, data)
    assert_close("forward", layer.spec, case.steps, results, forwards)
    assert_close("backward", layer.spec, case.steps, backward(layer, tape, data), gradients)

    outputs = infer(layer, data)
    assert_close("forward", layer.spec, case.steps, outputs, inferred)
    if not case.dropout:
        assert_same_bits(outputs, {name: results[name] for name in outputs}, "between inference and training")
    assert_same_bits(infer(layer.prepare(), data), outputs, "when prepared")


def test_the_design_covers_every_pair():
    """Each value of each option meets each value of each other option that it can meet."""
    covered = {pair for case in CASES for pair in itertools.combinations(((n, getattr(case, n)) for n in FACTORS), 2)}
    for a, b in itertools.combinations(FACTORS, 2):
        for u, v in itertools.product(FACTORS[a], FACTORS[b]):
            assert (((a, u), (b, v)) in covered) != ({(a, u), (b, v)} in EXCLUDED)
    assert all(case.inputs != case.hidden for case in CASES)

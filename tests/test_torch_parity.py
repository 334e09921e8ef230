"""fastrnn.torch gives what torch.nn gives: results, gradients, errors, whatever the options."""

import inspect
import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import fastrnn  # noqa: E402
from torch_cases import (  # noqa: E402
    EXTRAS,
    KINDS,
    OURS,
    STOCK,
    all_cases,
    as_state,
    as_tuple,
    assert_same,
    failure,
    flat,
    gradients,
    in_float64,
    state_shapes,
    twins,
)

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch.nn's


def exactly(stock, x, states):
    """torch.nn's results in float64."""
    wide = None if states is None else as_state([s.double() for s in states])
    return flat(in_float64(stock)(x.double(), wide))


@pytest.mark.parametrize("case", list(all_cases()), ids=str)
def test_results_and_gradients(case):
    stock, ours = case.modules()
    x, states = case.data()
    width, before = case.inputs + case.hidden, fastrnn.native_calls()
    expected = exactly(stock, x, states)
    hx = None if states is None else as_state(states)
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad):
        with mode():
            results = flat(ours(x, hx))
            assert [r.shape for r in results] == [r.shape for r in flat(stock(x, hx))]
        assert_same("forward", results, expected, width, case.steps)
    wide = None if states is None else [s.double() for s in states]
    exact = gradients(in_float64(stock), x.double(), wide)
    assert_same("backward", gradients(ours, x, states), exact, width, case.steps)
    assert fastrnn.native_calls() == before + 5


@pytest.mark.parametrize("kind", EXTRAS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_what_torch_does_not_have(kind, batch_first):
    """Beside the reference."""
    module = OURS[kind](4, 6, 2, bidirectional=True, batch_first=batch_first, dtype=torch.float64, **EXTRAS[kind])
    exact = getattr(fastrnn.reference, kind)(
        4, 6, 2, bidirectional=True, batch_first=batch_first, dtype="float64", **EXTRAS[kind]
    )
    exact.parameters = {name: p.detach().numpy() for name, p in module.named_parameters()}
    x = np.random.default_rng(0).normal(size=(5, 3, 4))
    y, h_n, tape = exact.forward(x)
    right = exact.backward(tape, np.ones_like(y))
    given = torch.tensor(x, requires_grad=True)
    output, state = module(given)
    output.sum().backward()
    assert_same("forward", [output, state], [torch.tensor(y), torch.tensor(h_n)], 10, 5)
    found = [given.grad, *(p.grad for p in module.parameters())]
    assert_same("backward", found, [torch.tensor(g) for g in (right.x, *right.parameters.values())], 10, 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_lengths(kind, batch_first):
    """As torch.nn does with packing, but with rows of length 0, too."""
    stock, ours = twins(kind, 4, 6, 2, bidirectional=True, batch_first=batch_first, dtype=torch.float64)
    torch.manual_seed(0)
    lengths = [3, 7, 0, 1]
    x = torch.randn((4, 7, 4) if batch_first else (7, 4, 4), dtype=torch.float64)
    states = [torch.randn(s, dtype=torch.float64) for s in state_shapes(kind, 6, 2, {"bidirectional": True}, (4,))]
    for row, length in enumerate(lengths):  # what pads is never read
        (x[row, length:] if batch_first else x[length:, row]).fill_(float("nan"))
    x.requires_grad_()
    for given in (lengths, torch.tensor(lengths), torch.tensor(lengths, dtype=torch.int32), np.array(lengths)):
        output, hidden = ours(x, as_state(states), lengths=given)
        for row, length in enumerate(lengths):
            own = output[row] if batch_first else output[:, row]
            assert not own[length:].any()
            alone = [s[:, row] for s in as_tuple(hidden)]
            if length:
                sequence = (x[row] if batch_first else x[:, row])[:length]
                right = flat(stock(sequence, as_state([s[:, row] for s in states])))
                assert_same("forward", [own[:length], *alone], right, 10, 7)
            else:
                assert all(torch.equal(a, s[:, row]) for a, s in zip(alone, states, strict=True))
    (gradient,) = torch.autograd.grad(output.square().sum(), [x])
    assert gradient.isfinite().all()
    assert not (gradient[2] if batch_first else gradient[:, 2]).any()


def test_lengths_of_one_sequence():
    ours = OURS["GRU"](3, 4)
    x = torch.randn(6, 3)
    output, hidden = ours(x, lengths=4)
    assert torch.equal(output[:4], ours(x[:4])[0])
    assert torch.equal(hidden, output[3:4])


@pytest.mark.parametrize("kind", KINDS)
def test_empty(kind):
    """No rows are taken, no steps are refused."""
    stock, ours = twins(kind, 3, 4, 2)
    for module in (stock, ours):
        x = torch.zeros(5, 0, 3, requires_grad=True)
        output, hidden = module(x)
        assert output.shape == (5, 0, 4)
        assert as_tuple(hidden)[0].shape == (2, 0, 4)
        with pytest.raises(RuntimeError, match="Expected sequence length to be larger than 0 in RNN"):
            module(torch.zeros(0, 2, 3))
    for gradient in torch.autograd.grad(output.sum(), [x, *ours.parameters()]):
        assert not gradient.any()
    output, hidden = ours(torch.zeros(5, 2, 3), lengths=[0, 0])
    assert not output.any()


@pytest.mark.parametrize("kind", KINDS)
def test_default_device(kind):
    """What a program sets for new tensors is not for a call's results."""
    ours = OURS[kind](3, 4, 2, dropout=0.5)
    x, packed = torch.randn(5, 2, 3), torch.nn.utils.rnn.pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    with torch.device("meta"):
        output, hidden = ours(x)
        loss = output.sum() + ours(packed)[0].data.sum() + ours(x, lengths=[2, 5])[0].sum()
        gradients = torch.autograd.grad(loss, list(ours.parameters()), create_graph=True)
        torch.autograd.grad(gradients[1].sum(), ours.weight_hh_l0)
    assert output.device.type == as_tuple(hidden)[0].device.type == gradients[0].device.type == "cpu"


@pytest.mark.parametrize("kind", KINDS)
def test_strides(kind):
    """Inputs and states that are views."""
    stock, ours = twins(kind, 3, 4, dtype=torch.float64)
    wide = torch.randn(2, 14, 7, dtype=torch.float64)
    state = as_state([torch.randn(4, 2, 1, dtype=torch.float64).permute(2, 1, 0)] * (1 + (kind == "LSTM")))
    for x in (
        wide.transpose(0, 1)[::2, :, 1:4],
        wide.transpose(0, 1)[:, :, ::3],
        torch.randn(1, 1, 3).double().expand(5, 2, 3),
    ):
        assert_same("forward", flat(ours(x, state)), flat(stock(x, state)), 7, 14)
        assert_same("backward", gradients(ours, x, None), gradients(stock, x, None), 7, 14)


@pytest.mark.parametrize("kind", KINDS)
def test_views_with_the_other_sign(kind):
    """The imaginary part of a conjugate is memory to be negated: as input, state and gradient."""
    stock, ours = twins(kind, 3, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.complex128).conj().imag
    state = as_state([torch.randn(1, 2, 4, dtype=torch.complex128).conj().imag] * (1 + (kind == "LSTM")))
    assert x.is_neg()
    results = []
    for module in (ours, stock):
        y = module(x, state)[0]
        dy = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
        negated = torch.complex(dy, -dy).conj().imag  # dy, once it is resolved
        assert negated.is_neg()
        results.append([y, *torch.autograd.grad(y, list(module.parameters()), negated)])
    assert_same("forward", *results, 7, 5)


# ------------------------------------------------------------------------------------------------------------ dropout


@pytest.mark.parametrize("kind", KINDS)
def test_dropout(kind):
    module = OURS[kind](8, 32, 2, dropout=0.5)
    x = torch.ones(20, 4, 8)

    def draw(seed):
        torch.manual_seed(seed)
        return module(x)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    torch.manual_seed(1)
    first, second = module(x)[0], module(x)[0]
    assert not torch.equal(first, second)
    with torch.no_grad():
        assert torch.equal(draw(1), first)  # in training mode it acts without gradients, too, as torch.nn's
    module.eval()
    assert torch.equal(draw(1), draw(2))
    twin = OURS[kind](8, 32, 2)
    twin.load_state_dict(module.state_dict())
    assert torch.equal(module(x)[0], twin(x)[0])


def test_dropout_of_everything():
    stock, ours = twins("LSTM", 3, 4, 2, dropout=1.0)
    x = torch.randn(5, 2, 3)
    assert_same("forward", flat(ours(x)), flat(stock(x)), 7, 5)


def test_dropout_is_read_at_each_call():
    module = OURS["GRU"](3, 16, 2)
    x = torch.randn(5, 2, 3)
    full = module(x)[0]
    module.dropout = 0.5
    assert not torch.equal(module(x)[0], full)
    module.dropout = 0.0
    assert torch.equal(module(x)[0], full)


# -------------------------------------------------------------------------------------------------------------- errors

STATE = torch.zeros(1, 2, 4)
BAD_CALLS = {
    "no tensor": ("x", None),
    "four dimensions": (torch.zeros(1, 2, 3, 3), None),
    "one dimension": (torch.zeros(3), None),
    "width": (torch.zeros(5, 2, 7), None),
    "width, one sequence": (torch.zeros(5, 7), None),
    "dtype": (torch.zeros(5, 2, 3).double(), None),
    "integers": (torch.zeros(5, 2, 3).long(), None),
    "rows of the state": (torch.zeros(5, 2, 3), torch.zeros(1, 3, 4)),
    "width of the state": (torch.zeros(5, 2, 3), torch.zeros(1, 2, 5)),
    "layers of the state": (torch.zeros(5, 2, 3), torch.zeros(2, 2, 4)),
    "dimensions of the state": (torch.zeros(5, 2, 3), torch.zeros(1, 4)),
    "state of a batch for one sequence": (torch.zeros(5, 3), STATE),
    "state is no tensor": (torch.zeros(5, 2, 3), 3),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", BAD_CALLS)
@pytest.mark.filterwarnings("error")
def test_errors_are_those_of_torch(kind, what):
    stock, ours = twins(kind, 3, 4)
    x, h = BAD_CALLS[what]
    hx = h if h is None or kind != "LSTM" else (h, STATE)
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        stock(x, hx)
    with pytest.raises(type(theirs.value), match=re.escape(str(theirs.value))):
        ours(x, hx)


@pytest.mark.parametrize("hx", [STATE, (STATE,), (STATE, STATE, STATE), (STATE, torch.zeros(1, 2, 9)), (STATE, None)])
def test_bad_pairs(hx):
    stock, ours = twins("LSTM", 3, 4)
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        stock(torch.zeros(5, 2, 3), hx)
    with pytest.raises(type(theirs.value)) as found:
        ours(torch.zeros(5, 2, 3), hx)
    assert str(found.value) == str(theirs.value)


BAD_LENGTHS = {
    "too long": ([6, 1], ValueError),
    "negative": ([-1, 1], ValueError),
    "too many": ([1, 2, 3], ValueError),
    "too few": ([1], ValueError),
    "no axis": (3, ValueError),
    "two axes": ([[1, 2]], ValueError),
    "fractions": ([1.0, 2.0], TypeError),
    "truths": ([True, False], TypeError),
    "text": ("ab", TypeError),
    "nothing": (object(), TypeError),
    "masked": (np.ma.masked_array([1, 2], [False, True]), TypeError),
}


@pytest.mark.parametrize("what", BAD_LENGTHS)
def test_bad_lengths(what):
    lengths, error = BAD_LENGTHS[what]
    with pytest.raises(error, match="lengths"):
        OURS["LSTM"](3, 4)(torch.zeros(5, 2, 3), lengths=lengths)


BAD_CONSTRUCTIONS = [
    ((), {}),
    ((3,), {}),
    ((0, 4), {}),
    ((3, 0), {}),
    ((3, 4, 0), {}),
    ((3.0, 4), {}),
    ((3, "4"), {}),
    ((3, 4), {"bias": 1}),
    ((3, 4), {"batch_first": None}),
    ((3, 4), {"dropout": 1.5}),
    ((3, 4), {"dropout": True}),
    ((3, 4), {"dropout": "x"}),
    ((3, 4), {"proj_size": -1}),
    ((3, 4), {"proj_size": 4}),
    ((3, 4), {"nonsense": 1}),
    ((3, 4), {"dtype": "float32"}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("arguments", "options"), BAD_CONSTRUCTIONS)
def test_bad_constructions(kind, arguments, options):
    try:
        STOCK[kind](*arguments, **options)
    except Exception as error:
        expected = error
    else:  # an older torch.nn takes it; so do its classes under other names
        OURS[kind](*arguments, **options)
        return
    with pytest.raises(type(expected)) as found:
        OURS[kind](*arguments, **options)
    if "__init__()" not in str(expected):  # Python's own message names the class
        assert str(found.value) == str(expected)


def test_bad_extras():
    with pytest.raises(ValueError, match="Unknown nonlinearity 'sin'"):
        OURS["RNN"](3, 4, nonlinearity="sin")
    with pytest.raises(TypeError, match="reset_after must be True or False"):
        OURS["GRU"](3, 4, reset_after=1)


def test_weights_of_a_wrong_shape():
    module = OURS["GRU"](3, 4)
    module.weight_hh_l0 = torch.nn.Parameter(torch.zeros(12, 9))
    for x in (torch.zeros(5, 2, 3), torch.zeros(5, 3)):
        with pytest.raises((RuntimeError, ValueError)):
            module(x)
    module = OURS["GRU"](3, 4)
    module.weight_ih_l0.data = torch.zeros(3, 3)
    with pytest.raises((RuntimeError, ValueError)):
        module(torch.zeros(5, 2, 3))


def test_operators_check_what_they_are_given():
    """`torch.ops.fastrnn` can be called by anybody."""
    weights = [torch.zeros(12, 3), torch.zeros(12, 4), torch.zeros(12), torch.zeros(12)]
    rest = (None, None, None, None, "gru", 1, False, False, 0.0, False)
    x = torch.zeros(5, 2, 3)
    torch.ops.fastrnn.forward(x, weights, *rest)
    for bad in (
        (torch.zeros(5, 3), weights, *rest),
        (x.double(), weights, *rest),
        (x, weights[:3], *rest),
        (x, [], *rest),
        (x, [*weights[:3], torch.zeros(11)], *rest),
        (x, weights, torch.zeros(1, 2, 5), *rest[1:]),
        (x, weights, *rest[:2], torch.tensor([6, 0]), *rest[3:]),
        (x, weights, *rest[:2], torch.tensor([1.0, 0]), *rest[3:]),
        (x, weights, *rest[:4], "nothing", *rest[5:]),
        (x, weights, *rest[:5], 2, *rest[6:]),
        (x, weights, *rest[:8], 2.0, False),
    ):
        with pytest.raises((ValueError, RuntimeError, TypeError)):
            torch.ops.fastrnn.forward(*bad)
    y, _, _, tape = torch.ops.fastrnn.forward(x, weights, *rest[:-1], True)
    rest = ("gru", 1, False, False, 0.0, True)
    torch.ops.fastrnn.backward(x, weights, None, None, None, None, y, tape, y, None, None, *rest)
    for wrong in ((y[:4], tape, y, None, None), (y, tape[:-1], y, None, None), (y, tape, y[:4], None, None)):
        with pytest.raises(ValueError, match="fastrnn: "):
            torch.ops.fastrnn.backward(x, weights, None, None, None, None, *wrong, *rest)


# ------------------------------------------------------------------------------------------------- torch's own inputs


def module_infos():
    """The cases that PyTorch's own module tests run over, where the wheel has them."""
    modules = pytest.importorskip("torch.testing._internal.common_modules")
    return [info for info in modules.module_db if info.module_cls in STOCK.values()]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_pytorchs_own_tests(kind, training):
    checked = 0
    for info in module_infos():
        if info.module_cls is not STOCK[kind]:
            continue
        cases = info.module_inputs_func(info, device="cpu", dtype=torch.float64, requires_grad=True, training=training)
        for case in cases:
            arguments, options = case.constructor_input.args, case.constructor_input.kwargs
            torch.manual_seed(0)
            stock = STOCK[kind](*arguments, **options).double()
            ours = OURS[kind](*arguments, **options).double()
            ours.load_state_dict(stock.state_dict())
            stock.train(training)
            ours.train(training)
            given, named = case.forward_input.args, case.forward_input.kwargs
            theirs, found = stock(*given, **named), ours(*given, **named)
            assert type(theirs[0]) is type(found[0])
            results = [[getattr(r, "data", r) for r in flat(result)] for result in (found, theirs)]
            if not options.get("dropout"):
                assert_same("forward", *results, 20, 10)
            assert repr(ours) == repr(stock)
            checked += 1
    assert checked >= 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_error_inputs_of_pytorchs_own_tests(kind, dtype):
    """The same errors, with the same messages."""

    def build_and_call(module, given):
        made = module(*given.constructor_input.args, **given.constructor_input.kwargs)
        made(*given.forward_input.args, **given.forward_input.kwargs)

    checked = 0
    for info in module_infos():
        if info.module_cls is not STOCK[kind] or info.module_error_inputs_func is None:
            continue
        for case in info.module_error_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=True):
            given = case.module_error_input
            found = failure(build_and_call, OURS[kind], given)
            assert found == failure(build_and_call, STOCK[kind], given)
            assert found[0] is case.error_type
            assert re.search(case.error_regex, found[1])
            checked += 1
    assert checked >= 2


def test_signatures():
    """What torch.nn's classes take ours take."""
    for kind in KINDS:
        for name in ("forward", "extra_repr", "flatten_parameters", "reset_parameters"):
            theirs = inspect.signature(getattr(STOCK[kind], name)).parameters
            assert list(inspect.signature(getattr(OURS[kind], name)).parameters)[: len(theirs)] == list(theirs)

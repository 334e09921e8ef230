"""Tensors that are not what they seem, and arguments of any kind: torch.nn's result or its error, and never a crash."""

import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.func import functional_call  # noqa: E402
from torch.nn.utils.rnn import PackedSequence, pack_sequence  # noqa: E402

from torch_cases import KINDS, OURS, as_state, failure, flat, twins  # noqa: E402

every_kind = pytest.mark.parametrize("kind", KINDS)
every_mode = pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
ZERO = torch.zeros(1, 2, 4)


def unaligned(t):
    """At an odd address."""
    found = torch.frombuffer(bytearray(t.nbytes + 1), dtype=t.dtype, offset=1).view(t.shape)
    return found.copy_(t)


def overlapping(t):
    return torch.linspace(-1, 1, 64).as_strided(t.shape, [1] * t.dim())


def emptied(t, offset=0):
    """A tensor whose memory was given back, as programs do that shard their parameters."""
    found = torch.zeros(offset + t.numel())[offset:].view(t.shape)
    found.untyped_storage().resize_(0)
    return found


def outcome(call, module):
    """The results, or the type of the error."""
    try:
        return call(module)
    except Exception as error:
        return type(error)


def places(kind, change):
    """Calls of a module, with a changed tensor in each of the places that there are."""
    torch.manual_seed(1)
    x, state = torch.randn(5, 2, 3), [torch.randn(1, 2, 4) for _ in range(1 + (kind == "LSTM"))]
    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    changed = as_state([change(s) for s in state])
    yield lambda m: flat(m(change(x)))
    yield lambda m: flat(m(change(x[:, 0])))
    yield lambda m: flat(m(x, changed))
    yield lambda m: flat(m(PackedSequence(change(packed.data), packed.batch_sizes)))[1:]
    for name in ("weight_ih_l0", "weight_hh_l0", "bias_hh_l0"):
        yield lambda m, name=name: flat(functional_call(m, {name: change(getattr(m, name).detach())}, x))


SAME = {
    "one number everywhere": lambda t: torch.tensor(0.5).expand(t.shape),
    "memory that overlaps": overlapping,
    "an odd address": unaligned,
    "turned around": lambda t: t.flip(0),
    "of other strides": lambda t: torch.stack([t, t], -1)[..., 1],
    "shared memory": lambda t: t.clone().share_memory_(),
    "a view that needs a gradient": lambda t: (t.clone().requires_grad_() * 1).view(t.shape),
    "of the other sign": lambda t: torch.complex(t, -t).conj().imag,
    "a parameter": torch.nn.Parameter,
}


@every_kind
@every_mode
@pytest.mark.parametrize("what", SAME)
def test_odd_tensors(kind, mode, what):
    stock, ours = twins(kind, 3, 4)
    for call in places(kind, SAME[what]):
        with mode():
            for a, b in zip(call(ours), call(stock), strict=True):
                torch.testing.assert_close(a, b)


@every_kind
@every_mode
def test_zeros_without_memory(kind, mode):
    """As PyTorch makes them in place of derivatives that are none."""
    _, ours = twins(kind, 3, 4)
    with mode():
        given, zeros = (
            [call(ours) for call in places(kind, make)]
            for make in (lambda t: torch._efficientzerotensor(t.shape), torch.zeros_like)
        )
        for found, expected in zip(given, zeros, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    y = ours(torch.randn(5, 2, 3))[0]
    for gradient in torch.autograd.grad(y, list(ours.parameters()), torch._efficientzerotensor(y.shape)):
        assert not gradient.any()


UNUSUAL = {
    "sparse": lambda t: t.to_sparse(),
    "in compressed rows": lambda t: t.to_sparse_csr() if t.dim() == 2 else t,
    "nested": lambda t: torch.nested.nested_tensor(list(t)),
    "of oneDNN's layout": lambda t: t.to_mkldnn(),
    "quantized": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "complex": lambda t: t.to(torch.complex64),
    "truths": lambda t: t > 0,
    "on no device": lambda t: t.to("meta"),
    "of another type": lambda t: t.double(),
    "of no numbers": lambda t: t[..., :0],
    "an array": lambda t: t.numpy(),
    "numbers": lambda t: t.tolist(),
    "nothing at all": lambda t: None,
}


@every_kind
@every_mode
@pytest.mark.parametrize("what", UNUSUAL)
@pytest.mark.filterwarnings("ignore:fastrnn.torch", "ignore:.*quantize", "ignore:.*[Ss]parse", "ignore:.*nested")
def test_unusual_tensors(kind, mode, what):
    """As torch.nn, whose LSTM crashes for some, takes or refuses them."""
    stock, ours = twins(kind, 3, 4)
    for call in places(kind, UNUSUAL[what]):
        with mode():
            found = outcome(call, ours)
            expected = found if kind == "LSTM" else outcome(call, stock)
        if isinstance(expected, type):
            assert issubclass(found, (expected, RuntimeError, ValueError))
        else:
            for a, b in zip(found, expected, strict=True):
                torch.testing.assert_close(a, b)


@every_kind
@every_mode
@pytest.mark.parametrize("offset", [0, 1 << 20])
def test_memory_given_back(kind, mode, offset):
    """Where some of torch.nn's calls crash."""
    _, ours = twins(kind, 3, 4)
    for call in places(kind, lambda t: emptied(t, offset)):
        with mode(), pytest.raises(RuntimeError):
            call(ours)


@pytest.mark.parametrize("which", ["x", "state", "weight", "y"])
def test_memory_given_back_before_backward(which):
    ours = OURS["GRU"](3, 4)
    given = torch.randn(5, 2, 3, requires_grad=True)
    x, state = given * 1, torch.randn(1, 2, 4)
    y = ours(x, state)[0]
    {"x": x, "state": state, "weight": ours.weight_hh_l0, "y": y}[which].untyped_storage().resize_(0)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(y, given, torch.ones(5, 2, 4))


def test_weights_that_are_elsewhere_before_backward():
    """As those of a program that shards its parameters: their values count."""
    ours = OURS["LSTM"](3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    expected = torch.autograd.grad(ours(x)[0].sum(), [x, *ours.parameters()])
    y = ours(x)[0]
    weight, kept = ours.weight_hh_l0, ours.weight_hh_l0.detach().clone()
    weight.untyped_storage().resize_(0)
    other = torch.empty(1000)  # lies where the weight did, perhaps
    weight.untyped_storage().resize_(kept.nbytes)
    weight.data.copy_(kept)
    for a, b in zip(torch.autograd.grad(y.sum(), [x, *ours.parameters()]), expected, strict=True):
        torch.testing.assert_close(a, b)
    del other


# --------------------------------------------------------------------------------------------------------------- states

STATES = {
    "a list": [ZERO, ZERO],
    "of one": (ZERO,),
    "a list of one": [ZERO],
    "of three": (ZERO, ZERO, ZERO),
    "of none": (),
    "arrays": (ZERO.numpy(), ZERO.numpy()),
    "an array": ZERO.numpy(),
    "half of nothing": (ZERO, None),
    "nothing twice": (None, None),
    "one tensor": ZERO,
    "two in one tensor": torch.zeros(2, 1, 2, 4),
    "a number": 3,
    "text": "ab",
    "a dict": {0: ZERO, 1: ZERO},
    "no axes": torch.tensor(0.0),
    "of three rows": torch.zeros(1, 3, 4),
    "c of another width": (ZERO, torch.zeros(1, 2, 5)),
    "c of another type": (ZERO, ZERO.double()),
}


@every_kind
@every_mode
@pytest.mark.parametrize("what", STATES)
def test_states_of_any_kind(kind, mode, what):
    stock, ours = twins(kind, 3, 4)
    x, packed = torch.randn(5, 2, 3), pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    for given in (x, x[:, 0], packed):
        with mode():
            expected = outcome(lambda m: flat(m(given, STATES[what])), stock)  # noqa: B023
            if isinstance(expected, type):
                assert failure(ours, given, STATES[what]) == failure(stock, given, STATES[what])
                continue
            for a, b in zip(flat(ours(given, STATES[what])), expected, strict=True):
                torch.testing.assert_close(getattr(a, "data", a), getattr(b, "data", b))


# -------------------------------------------------------------------------------------------------------------- lengths


@every_mode
def test_odd_lengths(mode):
    ours = OURS["LSTM"](3, 4)
    x = torch.randn(5, 2, 3)
    read_only = np.array([4, 1])
    read_only.setflags(write=False)
    with mode():
        expected = flat(ours(x, lengths=[4, 1]))
        for lengths in (
            (4, 1),
            np.array([1, 4])[::-1],
            read_only,
            np.array([4, 1], np.uint8),
            np.array([4, 0, 1, 0])[::2],
            [np.int64(4), torch.tensor(1)],
            torch.tensor([4, 9, 1, 9])[::2],
            torch.tensor([4, 1], dtype=torch.uint8),
            unaligned(torch.tensor([4, 1])),
            torch.tensor([4, 1]).share_memory_(),
        ):
            assert all(torch.equal(a, b) for a, b in zip(flat(ours(x, lengths=lengths)), expected, strict=True))


LENGTHS = {
    "a truth": True,
    "truths": [True, True],
    "infinite": float("inf"),
    "no numbers": [float("nan"), 1],
    "long": [2**62, 1],
    "longer than an integer": [2**70, 1],
    "below 0 in int64": np.array([2**64 - 1, 1], np.uint64),
    "a dict": {4: 1},
    "a set": {4, 1},
    "objects": np.array([4, None]),
    "text": np.array(["4", "1"]),
    "dates": np.array([4, 1], "datetime64[s]"),
    "on no device": torch.tensor([4, 1], device="meta"),
    "sparse": torch.tensor([4, 1]).to_sparse(),
    "complex": torch.tensor([4j, 1]),
}


@every_mode
@pytest.mark.parametrize("what", LENGTHS)
def test_lengths_that_are_none(mode, what):
    ours = OURS["GRU"](3, 4)
    with mode(), pytest.raises((TypeError, ValueError, RuntimeError)):
        ours(torch.zeros(5, 2, 3), lengths=LENGTHS[what])


def test_lengths_that_change_before_backward():
    """By ways that PyTorch does not see: an array's are copied, a tensor's looked at again."""
    ours = OURS["GRU"](3, 4)
    x = torch.randn(5, 2, 3)
    lengths = np.array([5, 2])
    expected, y = torch.autograd.grad(ours(x, lengths=lengths)[0].sum(), ours.weight_hh_l0), ours(x, lengths=lengths)[0]
    lengths[:] = 2**40
    assert torch.equal(torch.autograd.grad(y.sum(), ours.weight_hh_l0)[0], expected[0])
    tensor = torch.tensor([5, 2])
    y = ours(x, lengths=tensor)[0]
    tensor.numpy()[1] = 2**40
    with pytest.raises(ValueError, match=f"lengths must be from 0 to 5, got {2**40}"):
        y.sum().backward()


# ----------------------------------------------------------------------------------------------- weights and attributes


def of_width(width):
    """All weights of a GRU of another hidden size."""

    def change(module):
        for name, p in OURS["GRU"](3, width).named_parameters():
            getattr(module, name).data = p.data

    return change


def let(name, value):
    return lambda module: setattr(module, name, value)


CHANGES = {
    "wider weights": of_width(6),
    "narrower weights": of_width(2),
    "another hidden_size": let("hidden_size", 7),
    "another input_size": let("input_size", 2),
    "more layers": let("num_layers", 2),
    "both directions": let("bidirectional", True),
    "a weight that is None": let("weight_ih_l0", None),
    "a flat weight": lambda module: let("data", torch.zeros(4))(module.weight_hh_l0),
    "a weight of no axes": lambda module: let("data", torch.tensor(1.0))(module.weight_ih_l0),
    "a bias of float64": lambda module: let("data", torch.zeros(12).double())(module.bias_ih_l0),
    "a bias on no device": let("bias_ih_l0", torch.nn.Parameter(torch.zeros(12, device="meta"))),
}


@every_mode
@pytest.mark.parametrize("what", CHANGES)
def test_weights_and_attributes_that_do_not_fit(mode, what):
    stock, ours = twins("GRU", 3, 4)
    x = torch.randn(5, 2, 3)
    for module in (stock, ours):
        CHANGES[what](module)
    with mode():
        theirs, found = failure(stock, x), failure(ours, x)
    assert found[0] in (theirs[0], RuntimeError)


SIZES_OF_NETWORKS = ("hidden_size", "input_size", "num_layers", "proj_size")


@every_mode
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "value", "error"),
    [(name, value, TypeError) for name in SIZES_OF_NETWORKS for value in (5.5, "a", None)]
    + [(name, value, ValueError) for name in SIZES_OF_NETWORKS for value in (-1, 2**63)]
    + [("num_layers", 2**31 - 1, ValueError), ("bidirectional", "a", TypeError), ("bias", None, TypeError)]
    + [("batch_first", 7, TypeError), ("dropout", "a", TypeError), ("dropout", 2.0, ValueError)],
)
def test_attributes_that_no_network_can_have(mode, kind, name, value, error):
    ours = OURS[kind](3, 4)
    setattr(ours, name, value)
    with mode(), pytest.raises(error, match=f"^{name} must be "):
        ours(torch.randn(5, 2, 3))


@pytest.mark.parametrize(("value", "error"), [(None, TypeError), (5.5, TypeError), ("a", ValueError)])
def test_a_mode_that_there_is_not(value, error):
    for kind in ("RNN", "LSTM"):
        ours = OURS[kind](3, 4)
        ours.mode = value
        with pytest.raises(error, match=r"^mode must be "):
            ours(torch.randn(5, 2, 3))


# ---------------------------------------------------------------------------------------------------------- packed data

SIZES = {
    "of int32": torch.tensor([2, 2, 1, 1], dtype=torch.int32),
    "of fractions": torch.tensor([2.0, 2, 1, 1]),
    "of two axes": torch.tensor([[2, 2], [1, 1]]),
    "of no axes": torch.tensor(6),
    "none": torch.tensor([], dtype=torch.int64),
}


@every_mode
@pytest.mark.parametrize("what", SIZES)
def test_odd_batch_sizes(mode, what):
    stock, ours = twins("GRU", 3, 4)
    packed = PackedSequence(torch.randn(6, 3), SIZES[what])
    with mode():
        theirs, found = failure(stock, packed), failure(ours, packed)
    assert found[0] is theirs[0]


@every_mode
def test_batch_sizes_that_are_a_view(mode):
    ours = OURS["GRU"](3, 4)
    data, sizes = torch.randn(6, 3), torch.tensor([2, 2, 1, 1])
    with mode(), warnings.catch_warnings():
        expected = ours(PackedSequence(data, sizes))[0].data
        for odd in (torch.tensor([2, 9, 2, 9, 1, 9, 1, 9])[::2], unaligned(sizes)):
            torch.testing.assert_close(ours(PackedSequence(data, odd))[0].data, expected)

"""PackedSequence in and out, as torch.nn has it."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence  # noqa: E402

import fastrnn  # noqa: E402
from torch_cases import EXTRAS, KINDS, OURS, as_state, as_tuple, assert_same, flat, state_shapes, twins  # noqa: E402

LENGTHS = {"sorted": [7, 4, 4, 1], "unsorted": [3, 7, 1, 5], "equal": [5, 5, 5], "one row": [6], "one step": [1, 1]}


def tensors(result):
    """The output's data and the states."""
    output, hidden = result
    return output.data, *as_tuple(hidden)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", LENGTHS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("initial", [False, True])
def test_results_and_gradients(kind, which, batch_first, initial):
    lengths, options = LENGTHS[which], {"bidirectional": True, "batch_first": batch_first}
    stock, ours = twins(kind, 3, 5, 2, dtype=torch.float64, **options)
    torch.manual_seed(0)
    sequences = [torch.randn(length, 3, dtype=torch.float64, requires_grad=True) for length in lengths]
    states = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in state_shapes(kind, 5, 2, options, (len(lengths),))
    ]
    hx = as_state(states) if initial else None
    calls, results, found = fastrnn.native_calls(), [], []
    for module in (ours, stock):
        packed = pack_sequence(sequences, enforce_sorted=which == "sorted")
        result = module(packed, hx)
        assert isinstance(result[0], PackedSequence)
        for index in ("sorted_indices", "unsorted_indices"):
            same, given = getattr(result[0], index), getattr(packed, index)
            assert same is given
        assert torch.equal(result[0].batch_sizes, packed.batch_sizes)
        results.append(tensors(result))
        sources = [*sequences, *(states if initial else []), *module.parameters()]
        loss = sum((r * torch.linspace(-1, 1, r.numel(), dtype=r.dtype).view_as(r)).sum() for r in results[-1])
        found.append(torch.autograd.grad(loss, sources))
    assert fastrnn.native_calls() == calls + 2
    assert_same("forward", *results, 8, 7)
    assert_same("backward", *found, 8, 7)
    with torch.inference_mode():
        packed = pack_sequence([s.detach() for s in sequences], enforce_sorted=False)
        assert_same("forward", tensors(ours(packed, hx)), tensors(stock(packed, hx)), 8, 7)


def test_as_lengths():
    """One network: packed, and padded with lengths."""
    ours = OURS["LSTM"](3, 5, 2, bidirectional=True)
    x, lengths = torch.randn(7, 4, 3), torch.tensor([3, 7, 1, 5])
    packed, hidden = ours(pack_padded_sequence(x, lengths, enforce_sorted=False))
    y, state = ours(x, lengths=lengths)
    assert torch.equal(pad_packed_sequence(packed)[0], y)
    assert all(torch.equal(a, b) for a, b in zip(hidden, state, strict=True))


@pytest.mark.parametrize("kind", EXTRAS)
def test_what_torch_does_not_have(kind):
    ours = OURS[kind](3, 5, **EXTRAS[kind])
    x, lengths = torch.randn(7, 3, 3), torch.tensor([3, 7, 1])
    output, hidden = ours(pack_padded_sequence(x, lengths, enforce_sorted=False))
    y, state = ours(x, lengths=lengths)
    assert torch.equal(pad_packed_sequence(output)[0], y)
    assert torch.equal(hidden, state)


@pytest.mark.parametrize("kind", KINDS)
def test_second_derivatives(kind):
    ours = OURS[kind](2, 3, dtype=torch.float64)
    sequences = [torch.randn(length, 2, dtype=torch.float64, requires_grad=True) for length in (2, 3)]
    assert torch.autograd.gradgradcheck(lambda *s: tensors(ours(pack_sequence(s, enforce_sorted=False))), sequences)


@pytest.mark.filterwarnings("ignore:fastrnn.torch")
@pytest.mark.parametrize("kind", KINDS)
def test_other_dtypes(kind):
    stock, ours = (m.bfloat16() for m in twins(kind, 3, 5))
    packed = pack_sequence([torch.randn(n, 3).bfloat16() for n in (4, 2)])
    for a, b in zip(tensors(ours(packed)), tensors(stock(packed)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler's own
@pytest.mark.parametrize("kind", KINDS)
def test_compiled(kind):
    """Not in one graph, which a PackedSequence's sizes, being data, do not allow; but right."""
    ours = OURS[kind](3, 5)
    compiled = torch.compile(lambda packed: tensors(ours(packed)), backend="eager")
    for lengths in ([4, 2], [5, 5, 1]):
        packed = pack_sequence([torch.randn(n, 3) for n in lengths])
        for a, b in zip(compiled(packed), tensors(ours(packed)), strict=True):
            torch.testing.assert_close(a, b)
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", KINDS)
def test_errors(kind):
    stock, ours = twins(kind, 3, 5)
    packed = pack_sequence([torch.randn(n, 3) for n in (4, 2)])
    with pytest.raises(ValueError, match="lengths: a PackedSequence has its own"):
        ours(packed, lengths=[4, 2])
    state = torch.zeros(1, 3, 5)  # of three rows
    wide = pack_sequence([torch.randn(n, 7) for n in (4, 2)])
    double = pack_sequence([torch.randn(n, 3).double() for n in (4, 2)])
    flat_state = torch.zeros(1, 5)
    for given, h in ((packed, state), (wide, None), (double, None), (packed, flat_state)):
        hx = h if h is None or kind != "LSTM" else (h, h)
        for module in (stock, ours):
            with pytest.raises((RuntimeError, ValueError, IndexError)):
                flat(module(given, hx))

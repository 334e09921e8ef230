"""PackedSequence in and out, as torch.nn has it."""

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_packed_sequence  # noqa: E402

import fastrnn  # noqa: E402
from torch_cases import (  # noqa: E402
    EXTRAS,
    KINDS,
    OURS,
    as_state,
    as_tuple,
    assert_same,
    failure,
    state_shapes,
    twins,
)

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


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_as_lengths(bidirectional, mode):
    """One network: packed, and padded with lengths."""
    ours = OURS["LSTM"](3, 50, 3, bidirectional=bidirectional)
    x, lengths = torch.randn(70, 4, 3), torch.tensor([3, 70, 1, 50])
    with mode():
        packed, hidden = ours(pack_padded_sequence(x, lengths, enforce_sorted=False))
        y, state = ours(x, lengths=lengths)
    assert torch.equal(pad_packed_sequence(packed)[0], y)
    assert all(torch.equal(a, b) for a, b in zip(hidden, state, strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partition", ["rows", "units"])
def test_same_bits_as_padded(kind, partition):
    """Dropout between the layers, several chunks of steps and all gradients included, however the work is shared."""
    ours = OURS[kind](40, 33, 3, bidirectional=True, dropout=0.3)
    lengths = torch.tensor([60, 60, 42, 17, 5, 3, 1])
    x, generator = torch.randn(60, 7, 40, requires_grad=True), torch.Generator().manual_seed(0)
    states = [torch.randn(s, generator=generator) for s in state_shapes(kind, 33, 3, {"bidirectional": True}, (7,))]
    dy, found = torch.randn(60, 7, 66, generator=generator), []
    threads = fastrnn.get_num_threads()
    try:
        for count, packed in ((1, False), (1, True), (2, True), (3, True)):
            fastrnn.set_num_threads(count)
            fastrnn._core.set_partition(partition if count > 1 else "automatic")
            torch.manual_seed(5)
            if packed:
                output, hidden = ours(pack_padded_sequence(x, lengths), as_state(states))
                y = pad_packed_sequence(output)[0]
            else:
                y, hidden = ours(x, as_state(states), lengths=lengths)
            results = y, *as_tuple(hidden)
            loss = (y * dy).sum() + sum(h.sum() for h in results[1:])
            found.append([*results, *torch.autograd.grad(loss, [x, *ours.parameters()])])
    finally:
        fastrnn._core.set_partition("automatic")
        fastrnn.set_num_threads(threads)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(others, found[0], strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_odd_strides_and_hooks(kind):
    """Data that are a view, and saved tensors that a program has put elsewhere: the same derivatives, with dropout."""
    ours = OURS[kind](3, 5, 2, dropout=0.4)
    packed = pack_sequence([torch.randn(n, 3) for n in (4, 4, 2)])
    torch.manual_seed(7)
    expected = tensors(ours(packed))
    gradients = torch.autograd.grad(expected[0].square().sum(), ours.parameters())
    wide = torch.full((10, 7), float("nan"))
    wide[:, ::3] = packed.data
    view = PackedSequence(wide[:, ::3], packed.batch_sizes)
    torch.manual_seed(7)
    with torch.autograd.graph.saved_tensors_hooks(torch.clone, torch.clone):
        found = tensors(ours(view))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    others = torch.autograd.grad(found[0].square().sum(), ours.parameters())
    for a, b in zip(others, gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_that_depends_on_another(kind):
    """The derivatives of a derivative: by the data, of which the state is a function."""
    stock, ours = twins(kind, 4, 4, dtype=torch.float64)
    sequences = [torch.randn(length, 4, dtype=torch.float64, requires_grad=True) for length in (3, 2)]
    found = []
    for module in (ours, stock):
        packed = pack_sequence(sequences)
        state = packed.data[:2].unsqueeze(0) ** 2
        output, _ = module(packed, (state, state) if kind == "LSTM" else state)
        first = torch.autograd.grad(output.data.square().sum(), sequences, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [*sequences, *module.parameters()])
        found.append([*first, *second])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("sizes", [[2, 3], [2, 0], [2, 1], [3, 3], [9, 1], [-1, 6], [2, 2, 2]])
def test_wrong_batch_sizes(sizes):
    """PackedSequence itself takes anything."""
    ours = OURS["GRU"](3, 5)
    packed = PackedSequence(torch.randn(5, 3), torch.tensor(sizes))
    for context in (torch.enable_grad, torch.no_grad):
        with context(), pytest.raises(ValueError, match="batch_sizes"):
            ours(packed)


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
        assert failure(ours, given, hx) == failure(stock, given, hx)

"""Derivatives of any order, torch.compile, torch.export, torch.func, checkpointing and autocast."""

import concurrent.futures
import copy
import functools
import gc
import itertools

import pytest

torch = pytest.importorskip("torch")

from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402
from torch.func import functional_call, grad, hessian, jacrev, jvp, stack_module_state, vjp, vmap  # noqa: E402
from torch.utils import checkpoint  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn import _core  # noqa: E402
from fastrnn._options import FUNCTIONS, PUBLISHED, Options, check_options, written  # noqa: E402
from fastrnn.torch import _call, _cells, _ops  # noqa: E402
from torch_cases import EXTRAS, KINDS, OURS, STOCK, as_state, flat, state_shapes, twins  # noqa: E402

pytestmark = [  # what PyTorch says of itself
    pytest.mark.filterwarnings("ignore:TF32 acceleration on top of oneDNN"),
    pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Skipping serialization of skipfiles"),
]
CELLS = (
    [(kind, {}) for kind in KINDS]
    + list(EXTRAS.items())
    + [("LSTM", {"proj_size": 2}), ("RNN", {"nonlinearity": "relu"})]
)
every_cell = pytest.mark.parametrize(
    ("kind", "options"), CELLS, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def fresh_compiler():
    yield
    torch._dynamo.reset()


def as_function(module, steps=3, rows=2, lengths=None, seed=0):
    """(f, arguments): all results as a function of the input, the state and the parameters, in float64."""
    torch.manual_seed(seed)
    module = module.double()
    options = {name: getattr(module, name) for name in ("bidirectional", "proj_size")}
    shapes = state_shapes(module._kind, module.hidden_size, module.num_layers, options, (rows,))
    names = [name for name, _ in module.named_parameters()]
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    x = torch.randn(steps, rows, module.input_size, dtype=torch.float64, requires_grad=True)

    def run(x, *others):
        state, parameters = as_state(others[: len(shapes)]), dict(zip(names, others[len(shapes) :], strict=True))
        return flat(functional_call(module, parameters, (x, state), {"lengths": lengths}))

    return run, (x, *states, *module.parameters())


# --------------------------------------------------------------------------------------------------------- derivatives


@every_cell
@pytest.mark.parametrize("lengths", [None, [3, 0]])
def test_first_derivatives(kind, options, lengths):
    assert torch.autograd.gradcheck(*as_function(OURS[kind](2, 3, 2, bidirectional=True, **options), lengths=lengths))


@every_cell
def test_second_derivatives(kind, options):
    assert torch.autograd.gradgradcheck(*as_function(OURS[kind](2, 3, **options), lengths=[3, 1]))


def test_second_derivatives_of_a_deep_network_with_dropout():
    module = OURS["GRU"](2, 3, 2, dropout=0.4, bidirectional=True)
    run, arguments = as_function(module)

    def fixed(*arguments):
        torch.manual_seed(5)
        return run(*arguments)

    assert torch.autograd.gradcheck(fixed, arguments)
    assert torch.autograd.gradgradcheck(fixed, arguments)


@every_kind
def test_third_derivatives(kind):
    stock, ours = twins(kind, 2, 3, dtype=torch.float64)
    torch.manual_seed(0)
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)

    def third(module):
        value = module(x)[0].pow(3).sum()
        for _ in range(2):
            (first,) = torch.autograd.grad(value, x, create_graph=True)
            value = first.pow(2).sum()
        return torch.autograd.grad(value, [x, *module.parameters()])

    if kind == "LSTM":  # torch.nn's fused operator has no second derivative of the state; its other path has
        with torch.backends.mkldnn.flags(enabled=False):
            expected = third(stock)
    else:
        expected = third(stock)
    for a, b in zip(third(ours), expected, strict=True):
        torch.testing.assert_close(a, b)


@every_kind
def test_one_sequence(kind):
    stock, ours = twins(kind, 2, 3, batch_first=True, dtype=torch.float64)
    x = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad(stock(x)[0].square().sum(), x)[0]
    (first,) = torch.autograd.grad(ours(x)[0].square().sum(), x, create_graph=True)
    torch.testing.assert_close(first, expected)
    assert torch.autograd.gradgradcheck(lambda x: ours(x)[0], x)


@every_kind
def test_parts_that_need_no_gradient(kind):
    """Gradients of some inputs alone; results that the loss does not use."""
    stock, ours = twins(kind, 3, 4, 2, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    for frozen in (["weight_hh_l0", "bias_ih_l1"], [name for name, _ in ours.named_parameters()]):
        for module in (stock, ours):
            for name in frozen:
                getattr(module, name).requires_grad_(False)
        for loss in (lambda m, x: m(x)[0].square().sum(), lambda m, x: flat(m(x))[1].square().sum()):
            given = x.clone().requires_grad_()
            sources = [p for p in ours.parameters() if p.requires_grad] + [given]
            theirs = [p for p in stock.parameters() if p.requires_grad] + [given]
            for a, b in zip(
                torch.autograd.grad(loss(ours, given), sources),
                torch.autograd.grad(loss(stock, given), theirs),
                strict=True,
            ):
                torch.testing.assert_close(a, b)
    assert not ours(x)[0].requires_grad


@every_cell
@pytest.mark.parametrize("steps", [1, 3])
def test_what_is_not_wanted_changes_nothing(kind, options, steps):
    """The same bits in the other gradients, where the core leaves out products and packing."""
    ours, found = OURS[kind](5, 20, 2, bidirectional=True, **options), []
    shapes = state_shapes(kind, 20, 2, {"bidirectional": True, "proj_size": ours.proj_size}, (2,))
    x, states = torch.randn(steps, 2, 5), [torch.randn(shape) for shape in shapes]
    for wanted in ((), (x,), (states[0],), (x, *states)):
        for tensor in (x, *states):
            tensor.requires_grad_(any(tensor is w for w in wanted))
        results = flat(ours(x, as_state(states)))
        found.append(torch.autograd.grad(sum(r.square().sum() for r in results), [*ours.parameters(), *wanted]))
    count = len(found[0])
    assert all(torch.equal(a, b) for each in found for a, b in zip(each[:count], found[-1], strict=False))
    assert torch.equal(found[1][count], found[3][count])
    assert torch.equal(found[2][count], found[3][count + 1])


def test_a_graph_is_used_twice_or_freed():
    ours = OURS["LSTM"](3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    loss = ours(x)[0].sum()
    first = torch.autograd.grad(loss, x, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(loss, x)[0], first)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, x)


@every_kind
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # of PyTorch's own operators
def test_batches_of_gradients(kind):
    """`is_grads_batched`, and what is made of it: whole Jacobian matrices, and Hessian matrices, at once."""
    ours = OURS[kind](2, 3, dtype=torch.float64)
    x = torch.randn(3, 2, 2, dtype=torch.float64)

    def states(x):
        return flat(ours(x, lengths=[3, 2]))[1:]

    def last(x):
        return states(x)[-1].square().sum()

    def of_packed(x):
        return ours(torch.nn.utils.rnn.pack_padded_sequence(x, [3, 1]))[0].data

    for function in (states, of_packed):
        found, expected = (torch.autograd.functional.jacobian(function, x, vectorize=v) for v in (True, False))
        torch.testing.assert_close(found, expected)
    found, expected = (torch.autograd.functional.hessian(last, x, vectorize=v) for v in (True, False))
    torch.testing.assert_close(found, expected)
    y, dy = ours(x)[0], torch.randn(4, 3, 2, 3, dtype=torch.float64)
    batch = torch.autograd.grad(y, list(ours.parameters()), dy, is_grads_batched=True, retain_graph=True)
    each = [torch.autograd.grad(y, list(ours.parameters()), d, retain_graph=True) for d in dy]
    for a, b in zip(batch, zip(*each, strict=True), strict=True):
        assert torch.equal(a, torch.stack(b))


@pytest.mark.parametrize("which", ["weights", "x", "y"])
def test_writes_between_forward_and_backward_are_seen(which):
    ours = OURS["GRU"](3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    given = x * 1
    y = ours(given)[0]
    loss = y.sum()
    with torch.no_grad():
        {"weights": ours.weight_hh_l0, "x": given, "y": y}[which].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_saved_tensors_can_be_moved_away():
    ours = OURS["LSTM"](3, 4, 2)
    x = torch.randn(5, 2, 3, requires_grad=True)
    expected = torch.autograd.grad(ours(x)[0].sum(), [x, *ours.parameters()])
    with torch.autograd.graph.save_on_cpu():
        found = torch.autograd.grad(ours(x)[0].sum(), [x, *ours.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def misplaced(t):
    """The same numbers at an odd address."""
    if t.dtype != torch.uint8:
        return t.clone()
    moved = torch.empty(t.numel() + 1, dtype=t.dtype)[1:]
    return moved.copy_(t)


@pytest.mark.parametrize("returned", [misplaced, lambda t: t.double(), lambda t: t.flatten()[:1]])
def test_hooks_on_saved_tensors(returned):
    """What a program's hooks give back is checked before the kernels read it."""
    ours = OURS["LSTM"](3, 4, 2)
    x = torch.randn(5, 2, 3, requires_grad=True)
    expected = torch.autograd.grad(ours(x)[0].sum(), [x, *ours.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, returned):
        y = ours(x)[0]
        if returned is misplaced:
            found = torch.autograd.grad(y.sum(), [x, *ours.parameters()])
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        else:
            with pytest.raises((ValueError, RuntimeError)):
                y.sum().backward()


@every_kind
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing(kind, reentrant):
    ours = OURS[kind](3, 4, 2, dropout=0.5)
    x = torch.randn(5, 2, 3, requires_grad=True)
    torch.manual_seed(1)
    ours(x)[0].square().sum().backward()
    expected = [p.grad.clone() for p in (x, *ours.parameters())]
    for p in (x, *ours.parameters()):
        p.grad = None
    torch.manual_seed(1)
    checkpoint.checkpoint(lambda x: ours(x)[0], x, use_reentrant=reentrant).square().sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip((x, *ours.parameters()), expected, strict=True))


def test_no_graph_is_kept_alive():
    def graphs():
        gc.collect()
        return sum(type(o).__name__ == "FusedBackward" for o in gc.get_objects())

    ours = OURS["LSTM"](3, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    before = graphs()
    for _ in range(3):
        ours(x)[0].sum().backward()
    assert graphs() == before


# --------------------------------------------------------------------------------------------------------- large tapes


def through_files(run, folder):
    """What is saved for the backward pass lies in files until then."""
    numbers = itertools.count()

    def pack(t):
        path = folder / str(next(numbers))
        torch.save(t, path)
        return path

    with torch.autograd.graph.saved_tensors_hooks(pack, functools.partial(torch.load, weights_only=True)):
        return run()


def amid_others(run, folder):
    """While another graph is kept, after memory of such sizes was filled and given back."""
    other = OURS["LSTM"](4, 40, 2)(torch.randn(80, 64, 4))[0].sum()
    for held in [_core.memory(size) for size in (5 << 20, 10 << 20, 10 << 20, 20 << 20)]:
        held[:] = 255
    del held
    found = run()
    other.backward()
    return found


def in_a_thread(run, folder):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def with_a_default_device(run, folder):
    with torch.device("meta"):
        return run()


def where_none_is_left(run, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_core, "memory", lambda size: bytearray(1 << 62))
        return run()


WAYS = [through_files, amid_others, in_a_thread, with_a_default_device, where_none_is_left]


@pytest.mark.parametrize("way", WAYS)
def test_large_tapes(way, tmp_path, monkeypatch):
    """They lie in the core's memory, which is used again: the same bits as in PyTorch's, whatever is done meanwhile."""
    ours = OURS["LSTM"](4, 40, 2, dropout=0.3)
    x, lengths = torch.randn(80, 64, 4, requires_grad=True), torch.randint(0, 81, (64,))

    def run():
        torch.manual_seed(1)
        y, (_, c_n) = ours(x, lengths=lengths)
        loss = y.square().sum() + c_n.sum()
        first = torch.autograd.grad(loss, [x, *ours.parameters()], retain_graph=True)
        ours(x * 2)  # has a tape of the same size
        return y, *first, *torch.autograd.grad(loss, [x, *ours.parameters()])

    def tape():
        y = ours(x)[0]
        (found,) = (t for t in y.grad_fn.saved_tensors if t is not None and t.dtype == torch.uint8)
        return found

    assert tape().numel() >= _call.LARGE
    assert tape().data_ptr() % (2 << 20) == 0  # a large page's
    found = way(run, tmp_path)
    monkeypatch.setattr(_call, "LARGE", float("inf"))
    assert all(torch.equal(a, b) for a, b in zip(found, run(), strict=True))


def test_more_than_there_is_memory_for():
    """PyTorch's own error, which programs know."""
    x = torch.zeros(1, 1, 1).expand(1 << 44, 1, 1)
    for module in twins("LSTM", 1, 64):
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            module(x)


# ----------------------------------------------------------------------------------------------------------- operators


@pytest.mark.parametrize(("kind", "options", "full"), [*((*cell, True) for cell in CELLS), ("LSTM", {}, False)])
def test_operators(kind, options, full):
    """By torch.library's own tests: schema, autograd registration, fake tensors, tracing with fixed and other sizes.
    Two layers for the dropout; each weight more takes long to trace."""
    module = OURS[kind](2, 3, 2, dtype=torch.float64, **options)
    weights = [p.detach().requires_grad_() for p in module.parameters()]
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    shapes = state_shapes(kind, 3, 2, options, (2,))
    states = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    h0, c0 = [*states, None][:2] if full else (None, None)
    lengths, seed = (torch.tensor([4, 1]), torch.tensor([3])) if full else (None, None)
    rest = module._cell(), 2, False, False, 0.25 if full else 0.0, True
    inputs = x, weights, h0, c0, lengths, seed
    torch.library.opcheck(torch.ops.fastrnn.forward, (*inputs, *rest))
    y, _, _, tape = torch.ops.fastrnn.forward(*inputs, *rest)
    dy = torch.randn_like(y).requires_grad_()
    torch.library.opcheck(torch.ops.fastrnn.backward, (*inputs, y.detach(), tape, dy, None, None, *rest))


@pytest.mark.parametrize("cell", ["rnn_tanh", "lstm", "gru", "gru_reset_before"])
@pytest.mark.parametrize("first", FUNCTIONS)
def test_operators_with_activations(cell, first):
    """As strings behind the cell's name. Values and first derivatives are the kernels', beside them the network in
    PyTorch's own operators; second derivatives are of the latter in both."""
    torch.manual_seed(0)
    names = list(FUNCTIONS)
    begin, count = names.index(first), len(PUBLISHED[cell])
    cell, options = check_options(cell, 1, Options([names[(begin + 4 * k) % len(names)] for k in range(count)]))
    gates = {"lstm": 4, "rnn": 1}.get(cell.split("_")[0], 3)
    rows = gates * 3
    shapes = (4, 2, 2), (rows, 2), (rows, 3), (rows,), (rows,), *[(1, 2, 3)] * (1 + (cell == "lstm"))
    inputs = [torch.randn(shape, dtype=torch.float64).mul(0.6).requires_grad_() for shape in shapes]
    x, *weights, h0 = inputs[:6]
    states = h0, *inputs[6:]
    lengths = torch.tensor([4, 3])
    c0 = states[1] if cell == "lstm" else None
    text = written(cell, options)
    calls = fastrnn.native_calls()
    ours = _ops.forward(x, weights, h0, c0, lengths, None, text, 1, False, False, 0.0, True)[: 1 + len(states)]
    y, finals = _cells.run(text, x, states, weights, num_layers=1, bias=True, bidirectional=False, lengths=lengths)
    every = []
    for results in (ours, (y, *finals)):
        loss = sum((result * torch.linspace(1, 2, result.numel()).view_as(result)).sum() for result in results)
        first_derivatives = torch.autograd.grad(loss, inputs, create_graph=True)
        second = torch.autograd.grad(sum(d.square().sum() for d in first_derivatives), inputs, materialize_grads=True)
        every.append([*results, *first_derivatives, *second])
    assert fastrnn.native_calls() >= calls + 2
    torch.testing.assert_close(*every, rtol=1e-9, atol=1e-9)


class Tagger(torch.nn.Module):
    """A recurrent layer amid others."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.head = torch.nn.Linear(layer.hidden_size * (1 + layer.bidirectional), 2)

    def forward(self, x, hx=None, lengths=None):
        return self.head(self.layer(x * 2, hx, lengths=lengths)[0]).square().mean()


@every_kind
def test_compiled_for_all_lengths(kind):
    """Forward and backward; a second compilation makes the sizes symbols, and there is no third."""
    counter = CompileCounterWithBackend("aot_eager")
    model = Tagger(OURS[kind](3, 4, 2, bidirectional=True))
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    calls = fastrnn.native_calls()
    for steps, rows in ((5, 2), (6, 3), (7, 4), (40, 9), (2, 5), (9, 2)):
        x = torch.randn(steps, rows, 3, requires_grad=True)
        results = [torch.autograd.grad(m(x), [x, *model.parameters()]) for m in (compiled, model)]
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 2
    assert fastrnn.native_calls() == calls + 6 * 4


@every_kind
def test_compiled_with_symbols_alone(kind):
    """From the first compilation on, and of the module's own numbers, too."""
    model = Tagger(OURS[kind](3, 4, 3, bidirectional=True, dropout=0.5)).eval()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=True)
    for steps, rows, mode in ((5, 2, False), (6, 3, False), (5, 2, True)):
        x = torch.randn(steps, rows, 3, requires_grad=True)
        results = []
        for m in (compiled, model):
            model.train(mode)
            torch.manual_seed(0)
            results.append(torch.autograd.grad(m(x), [x, *model.parameters()]))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)


def test_compiled_with_inductor():
    model = Tagger(OURS["LSTM"](3, 4, 2, dropout=0.5))
    compiled = torch.compile(model, fullgraph=True)
    x = torch.randn(5, 2, 3, requires_grad=True)

    def draw(seed):
        torch.manual_seed(seed)
        return torch.autograd.grad(compiled(x), x)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    model.eval()
    torch.testing.assert_close(compiled(x), model(x))


def test_compiled_with_inductor_for_all_lengths():
    """With a state, lengths and gradients: here, too, the second compilation is the last."""
    counter = CompileCounterWithBackend("inductor")
    model = Tagger(OURS["LSTM"](3, 4))
    compiled = torch.compile(model, fullgraph=True, backend=counter)
    for steps, rows in ((5, 2), (7, 4), (40, 9), (3, 5)):
        x, lengths = torch.randn(steps, rows, 3, requires_grad=True), torch.randint(0, steps + 1, (rows,))
        states = [torch.randn(1, rows, 4, requires_grad=True) for _ in range(2)]
        sources = [x, *states, *model.parameters()]
        results = [torch.autograd.grad(m(x, as_state(states), lengths), sources) for m in (compiled, model)]
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 2


@every_kind
def test_compiled_with_everything(kind):
    """State, lengths, one sequence, inference."""
    model = Tagger(OURS[kind](3, 4, batch_first=True))
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x, state = torch.randn(2, 6, 3), as_state([torch.randn(1, 2, 4) for _ in range(1 + (kind == "LSTM"))])
    lengths = torch.tensor([4, 0])
    torch.testing.assert_close(compiled(x, state, lengths), model(x, state, lengths))
    torch.testing.assert_close(compiled(x[0]), model(x[0]))
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x), model(x))
    with pytest.raises(ValueError, match="lengths must be from 0 to 6"):
        compiled(x, state, torch.tensor([7, 0]))


@every_kind
def test_exported(kind):
    class Outputs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = OURS[kind](3, 4, 2, bidirectional=True)

        def forward(self, x):
            return self.layer(x)[0]

    model, sizes = Outputs().eval(), {0: torch.export.Dim("T", max=1000), 1: torch.export.Dim("B", max=1000)}
    program = torch.export.export(model, (torch.randn(4, 3, 3),), dynamic_shapes=(sizes,))
    for steps, rows in ((4, 3), (9, 5)):
        x = torch.randn(steps, rows, 3)
        torch.testing.assert_close(program.module()(x), model(x))


def test_fake_and_meta_tensors():
    module = OURS["LSTM"](3, 4, 2, bidirectional=True, device="meta")
    y, (h_n, c_n) = module(torch.empty(5, 2, 3, device="meta"))
    assert (y.shape, h_n.shape, c_n.shape) == ((5, 2, 8), (4, 2, 4), (4, 2, 4))
    with torch._subclasses.FakeTensorMode():
        module = OURS["GRU"](3, 4)
        assert module(torch.empty(5, 2, 3))[0].shape == (5, 2, 4)


def test_scripted_and_traced():
    """TorchScript programs run without Python: they have PyTorch's operators, with our parameters."""
    model = Tagger(OURS["GRU"](3, 4))

    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = model.layer

        def forward(self, x):
            return self.layer(x)[0]

    x = torch.randn(5, 2, 3)
    try:
        torch.jit.script(torch.nn.Sequential(STOCK["GRU"](3, 4)))
    except Exception as error:
        pytest.skip(f"this PyTorch cannot script its own GRU: {error}")
    torch.testing.assert_close(torch.jit.script(Wrapper())(x), model.layer(x)[0])
    with pytest.raises(NotImplementedError, match="gru_reset_before"):
        torch.jit.script(OURS["GRU"](3, 4, reset_after=False))

    class Scripted(torch.jit.ScriptModule):
        """The old way, which asks no submodule what to compile in its place."""

        def __init__(self):
            super().__init__()
            self.layer = torch.jit.script(model.layer)

        @torch.jit.script_method
        def forward(self, x):
            return self.layer(x)[0]

    torch.testing.assert_close(Scripted()(x), model.layer(x)[0])


# ---------------------------------------------------------------------------------------------------------- torch.func


@every_kind
def test_functional_call(kind):
    stock, ours = twins(kind, 3, 4)
    x, other = torch.randn(5, 2, 3), {name: torch.randn_like(p) for name, p in ours.named_parameters()}
    before = ours(x)[0]
    torch.testing.assert_close(functional_call(ours, other, x)[0], functional_call(stock, other, x)[0])
    assert torch.equal(ours(x)[0], before)


@every_kind
def test_vmap(kind):
    """Over inputs, states, lengths and weights, in any axis."""
    ours = OURS[kind](3, 4, 2, bidirectional=True, batch_first=True)
    x = torch.randn(2, 6, 5, 3)  # mapped over the steps' place: axis 2
    states = [torch.randn(3, 4, 5, 2, 4).movedim(2, 1) for _ in range(1 + (kind == "LSTM"))]
    mapped = vmap(lambda x: flat(ours(x)), in_dims=2)(x)
    each = [flat(ours(x[:, :, k])) for k in range(5)]
    for a, b in zip(mapped, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(b))
    fixed, given = torch.randn(2, 6, 3), [s[0].movedim(0, 1) for s in states]  # states mapped over axis 1
    mapped = vmap(lambda *s: flat(ours(fixed, as_state(s))), in_dims=1)(*given)
    each = [flat(ours(fixed, as_state([s[:, k] for s in given]))) for k in range(5)]
    for a, b in zip(mapped, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(a, torch.stack(b))
    ensemble = [OURS[kind](3, 4) for _ in range(3)]
    parameters, _ = stack_module_state(ensemble)
    found = vmap(lambda p: functional_call(ensemble[0], p, fixed)[0])(parameters)
    torch.testing.assert_close(found, torch.stack([m(fixed)[0] for m in ensemble]))


@every_kind
@pytest.mark.skipif(torch.__version__ < (2, 6), reason="PyTorch 2.5 has no vmap in a vmap for operators with a rule")
def test_vmap_over_inputs(kind):
    """One call in inference, of what is mapped by one `vmap` in another, too; with gradients a call for each."""
    ours = OURS[kind](3, 4, 2, bidirectional=True)
    x, lengths = torch.randn(2, 3, 6, 2, 3), torch.tensor([[6, 0], [2, 5], [1, 1]])
    states = [torch.randn(2, 4, 2, 4) for _ in range(1 + (kind == "LSTM"))]

    def run(x, lengths, *states):
        return flat(ours(x, as_state(states), lengths=lengths))

    def mapped():
        """The results, and how many calls it took; states are mapped by the outer vmap alone, lengths by the inner."""
        before = fastrnn.native_calls()
        inner = vmap(run, (0, 0, *[None] * len(states)))
        found = vmap(inner, (0, None, *[0] * len(states)))(x, lengths, *states)
        return found, fastrnn.native_calls() - before

    each = [run(x[i, k], lengths[k], *(s[i] for s in states)) for i in range(2) for k in range(3)]
    expected = [torch.stack(parts).unflatten(0, (2, 3)) for parts in zip(*each, strict=True)]
    for mode, wanted, calls in (
        (torch.enable_grad, "weights", 6),
        (torch.no_grad, "weights", 1),
        (torch.inference_mode, "weights", 1),
        (torch.enable_grad, "nothing", 1),
        (torch.enable_grad, "x", 6),
    ):
        ours.requires_grad_(wanted == "weights")
        x.requires_grad_(wanted == "x")
        with mode():
            found, taken = mapped()
        assert taken == calls
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    (gradient,) = torch.autograd.grad(found[0].square().sum(), x)
    alone = x[1, 2].detach().requires_grad_()
    y = run(alone, lengths[2], *(s[1] for s in states))[0]
    assert torch.equal(gradient[1, 2], torch.autograd.grad(y.square().sum(), alone)[0])


@every_kind
def test_vmap_over_sequences(kind):
    """Each without an axis for a batch, which the mapped axis becomes."""
    ours = OURS[kind](3, 4)
    x, before = torch.randn(7, 5, 3), fastrnn.native_calls()
    with torch.no_grad():
        found = vmap(lambda x: flat(ours(x)))(x)
        assert fastrnn.native_calls() == before + 1
        for a, b in zip(found, flat(ours(x.transpose(0, 1))), strict=True):
            assert torch.equal(a, b.transpose(0, 1))


@every_kind
def test_what_a_transform_leaves_behind(kind):
    """A tensor that outlives its `grad` is what it was made of."""
    stock, ours = twins(kind, 3, 4)
    left, states = [], [torch.randn(1, 2, 4) for _ in range(1 + (kind == "LSTM"))]
    given = torch.randn(5, 2, 3), *states
    grad(lambda *given: (left.extend(given), given[0].sum())[1], tuple(range(len(given))))(*given)
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            for a, b in zip(*(flat(m(left[0], as_state(left[1:]))) for m in (ours, stock)), strict=True):
                torch.testing.assert_close(a, b)


@every_kind
@pytest.mark.filterwarnings("ignore:fastrnn.torch.*forward-mode")
def test_transforms(kind):
    stock, ours = twins(kind, 2, 3, dtype=torch.float64)
    x = torch.randn(4, 3, 2, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in ours.named_parameters()}

    def loss_of(module):
        return lambda p, x: functional_call(module, p, (x,))[0].square().sum()

    with torch.backends.mkldnn.flags(enabled=False):  # torch.nn's fused LSTM has no rules for these
        for transform in (
            lambda f: grad(f)(parameters, x),
            lambda f: vjp(f, parameters, x)[1](torch.tensor(1.0, dtype=torch.float64)),
            lambda f: jacrev(lambda x: grad(f)(parameters, x)["weight_hh_l0"])(x),
            lambda f: jvp(lambda x: f(parameters, x), (x,), (torch.ones_like(x),)),
            lambda f: hessian(lambda x: f(parameters, x))(x),
            lambda f: jacrev(jacrev(lambda x: f(parameters, x)))(x),
            lambda f: grad(lambda x: grad(lambda p: f(p, x))(parameters)["weight_hh_l0"].square().sum())(x),
        ):
            torch.testing.assert_close(transform(loss_of(ours)), transform(loss_of(stock)))

    rows = [grad(loss_of(stock))(parameters, x[:, k]) for k in range(3)]  # torch.nn's LSTM has no rule for vmap
    per_row = vmap(grad(loss_of(ours)), (None, 1))(parameters, x)
    together = grad(lambda p: vmap(loss_of(ours), (None, 1))(p, x).sum())(parameters)
    for name in parameters:
        expected = torch.stack([row[name] for row in rows])
        torch.testing.assert_close(per_row[name], expected)
        torch.testing.assert_close(together[name], expected.sum(0))


@pytest.mark.filterwarnings("ignore:fastrnn.torch.*forward-mode")
def test_forward_mode():
    ours = OURS["LSTM"](2, 3, dtype=torch.float64)
    x, t = torch.randn(4, 2, 2, dtype=torch.float64), torch.randn(4, 2, 2, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        y = ours(torch.autograd.forward_ad.make_dual(x, t))[0]
        tangent = torch.autograd.forward_ad.unpack_dual(y).tangent
    step = 1e-6
    torch.testing.assert_close(
        tangent, (ours(x + step * t)[0] - ours(x - step * t)[0]) / (2 * step), rtol=1e-6, atol=1e-8
    )


# ------------------------------------------------------------------------------------------------------------ autocast


@every_kind
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("given", ["float32", "low"])
def test_autocast(kind, low, given):
    """The dtype of torch.nn's results, the values of float32, whether or not a graph is recorded."""
    stock, ours = twins(kind, 3, 4)
    x = torch.randn(5, 2, 3).to(low if given == "low" else torch.float32).requires_grad_()
    exact = flat(ours(x.float()))
    calls = fastrnn.native_calls()
    with torch.autocast("cpu", low):
        found = flat(ours(x))
        try:
            dtypes = [t.dtype for t in flat(stock(x))]
        except RuntimeError:  # oneDNN has no LSTM of float16 on this machine
            dtypes = [low, low, low]
        with torch.no_grad():
            assert [t.dtype for t in flat(ours(x))] == dtypes
    assert fastrnn.native_calls() == calls + 2
    assert [t.dtype for t in found] == dtypes
    for a, b in zip(found, exact, strict=True):
        assert torch.equal(a, b.to(a.dtype))
    found[0].float().sum().backward()
    assert x.grad.dtype == x.dtype
    assert all(p.grad.dtype == torch.float32 for p in ours.parameters())


@every_kind
def test_autocast_leaves_float64(kind):
    ours = OURS[kind](3, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x)[0], copy.deepcopy(ours)(x)[0])
        assert ours(x)[0].dtype == torch.float64

"""The modules as objects: state, copies, pickles, changes of parameters, `replace_`, `patch`."""

import copy
import io
import pickle
import subprocess
import sys
import threading

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn.utils import parametrizations, parametrize, prune  # noqa: E402

import fastrnn  # noqa: E402
from torch_cases import EXTRAS, KINDS, OURS, STOCK, as_state, as_tuple, flat, twins  # noqa: E402

every_kind = pytest.mark.parametrize("kind", KINDS)
CONSTRUCTIONS = [
    ((3, 4), {}),
    ((3, 4, 2), {"bidirectional": True, "dropout": 0.25}),
    ((3, 4), {"bias": False, "batch_first": True}),
    ((3, 4), {"dtype": torch.float64}),
    ((3, 4), {"device": "meta"}),
]


def run(module, seed=0):
    torch.manual_seed(seed)
    return flat(module(torch.randn(5, 2, 3, dtype=next(module.parameters()).dtype)))


def assert_equal(a, b):
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# ---------------------------------------------------------------------------------------------------------- as torch.nn


@every_kind
@pytest.mark.parametrize(("arguments", "options"), CONSTRUCTIONS)
def test_same_object_from_the_same_seed(kind, arguments, options):
    """Initial values, names, attributes, repr."""
    torch.manual_seed(0)
    stock = STOCK[kind](*arguments, **options)
    torch.manual_seed(0)
    ours = OURS[kind](*arguments, **options)
    assert isinstance(ours, nn.RNNBase)
    assert list(ours.state_dict()) == list(stock.state_dict())
    if options.get("device") != "meta":
        assert_equal(ours.parameters(), stock.parameters())
    assert repr(ours) == repr(stock)
    public = {name: value for name, value in vars(stock).items() if not name.startswith("_")}
    assert {name: getattr(ours, name) for name in public} == public
    assert [len(group) for group in ours.all_weights] == [len(group) for group in stock.all_weights]
    assert type(ours).__module__ == "fastrnn.torch"
    assert ours.flatten_parameters() is None


def test_positional_arguments():
    torch.manual_seed(0)
    given = OURS["LSTM"](3, 4, 2, False, True, 0.5, True, 2)
    assert repr(given) == repr(STOCK["LSTM"](3, 4, 2, False, True, 0.5, True, 2))
    given = OURS["RNN"](3, 4, 2, "relu", False, True, 0.5, True)
    assert repr(given) == repr(STOCK["RNN"](3, 4, 2, "relu", False, True, 0.5, True))
    assert (given.nonlinearity, given.mode) == ("relu", "RNN_RELU")


def test_extras_are_shown():
    assert repr(OURS["GRU"](3, 4, reset_after=False)) == "GRU(3, 4, reset_after=False)"
    assert repr(OURS["RNN"](3, 4, nonlinearity="sigmoid")) == "RNN(3, 4, nonlinearity=sigmoid)"


@pytest.mark.parametrize(("kind", "options"), [(kind, {}) for kind in KINDS] + list(EXTRAS.items()))
def test_copies_and_pickles(kind, options):
    ours = OURS[kind](3, 4, 2, **options)
    expected = run(ours)
    buffer = io.BytesIO()
    torch.save(ours, buffer)
    buffer.seek(0)
    for twin in (
        copy.deepcopy(ours),
        pickle.loads(pickle.dumps(ours)),
        torch.load(buffer, weights_only=False),
        copy.deepcopy(copy.deepcopy(ours)),
    ):
        assert type(twin) is type(ours)
        assert_equal(run(twin), expected)
        assert run(twin)[0].requires_grad
        with torch.no_grad():
            twin.weight_hh_l0.zero_()
        assert_equal(run(ours), expected)


@every_kind
def test_state_dict_goes_both_ways(kind):
    stock, ours = twins(kind, 3, 4, 2, bidirectional=True)
    fresh = STOCK[kind](3, 4, 2, bidirectional=True)
    fresh.load_state_dict(ours.state_dict())
    assert_equal(fresh.parameters(), stock.parameters())
    with pytest.raises(RuntimeError, match="size mismatch for weight_ih_l0"):
        ours.load_state_dict(STOCK[kind](5, 4, 2, bidirectional=True).state_dict())


@every_kind
def test_to(kind):
    ours = OURS[kind](3, 4)
    single = run(ours)
    wide = run(ours.to(torch.float64))
    assert wide[0].dtype == torch.float64
    assert_equal(run(ours.float()), single)
    assert run(ours.to_empty(device="meta").to_empty(device="cpu"))[0].shape == (5, 2, 4)


@every_kind
def test_hooks(kind):
    ours, seen = OURS[kind](3, 4), []
    ours.register_forward_pre_hook(lambda module, given: seen.append("before"))
    ours.register_forward_hook(lambda module, given, result: seen.append("after"))
    ours.register_full_backward_hook(lambda module, *gradients: seen.append("backward"))
    ours.weight_hh_l0.register_hook(lambda gradient: seen.append("gradient"))
    x = torch.randn(5, 2, 3, requires_grad=True)
    ours(x)[0].sum().backward()
    assert sorted(seen) == ["after", "backward", "before", "gradient"]


# ---------------------------------------------------------------------------------------- every change takes effect


def write_version(p):
    with torch.no_grad():
        p.mul_(0.5)


def write_data(p):
    p.data.mul_(0.5)


def replace_data(p):
    p.data = p.data * 0.5


def write_detached(p):
    p.detach().mul_(0.5)


def write_through_numpy(p):
    array = p.detach().numpy()
    array *= 0.5


def write_storage(p):
    torch.tensor([], dtype=p.dtype).set_(p.untyped_storage()).mul_(0.5)


def write_in_inference_mode(p):
    with torch.inference_mode():
        p.mul_(0.5)


WRITES = [
    write_version,
    write_data,
    replace_data,
    write_detached,
    write_through_numpy,
    write_storage,
    write_in_inference_mode,
]


@every_kind
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("steps", [1, 5])
def test_every_write_takes_effect(kind, write, mode, steps):
    ours, fresh = OURS[kind](3, 4, 2).eval(), STOCK[kind](3, 4, 2).eval()
    x, state = torch.randn(steps, 1, 3), as_state([torch.randn(2, 1, 4) for _ in range(1 + (kind == "LSTM"))])
    for name, p in ours.named_parameters():
        with mode():
            for _ in range(3):
                before = ours(x, state)[0].clone()
        write(p)
        with mode():
            after = ours(x, state)[0]
            assert not torch.equal(after, before), name
            fresh.load_state_dict(ours.state_dict())
            torch.testing.assert_close(after, fresh(x, state)[0])


@every_kind
def test_optimizers_and_loading_take_effect(kind):
    stock, ours = twins(kind, 3, 4)
    x = torch.randn(5, 2, 3)
    for optimizer in (torch.optim.SGD, torch.optim.Adam):
        steps = [optimizer(m.parameters(), 0.1) for m in (stock, ours)]
        for _ in range(3):
            losses = [m(x)[0].square().sum() for m in (stock, ours)]
            torch.testing.assert_close(*losses)
            for loss, step in zip(losses, steps, strict=True):
                step.zero_grad()
                loss.backward()
                step.step()
    other = STOCK[kind](3, 4)
    with torch.inference_mode():
        ours(x)
        ours.load_state_dict(other.state_dict())
        torch.testing.assert_close(ours(x)[0], other(x)[0])
        ours.load_state_dict({k: v.clone() for k, v in stock.state_dict().items()}, assign=True)
        torch.testing.assert_close(ours(x)[0], stock(x)[0])


@every_kind
def test_replaced_parameters(kind):
    stock, ours = twins(kind, 3, 4)
    new = nn.Parameter(torch.randn_like(ours.weight_hh_l0))
    stock.weight_hh_l0 = ours.weight_hh_l0 = new
    torch.testing.assert_close(run(ours), run(stock))


@every_kind
@pytest.mark.parametrize("packed", [False, True])
def test_flat_weights(kind, packed):
    """Programs that know torch.nn put others in the list of its weights, until a parameter is replaced."""
    stock, ours = twins(kind, 3, 4, 2, bidirectional=True)
    x = torch.randn(5, 2, 3)
    x = nn.utils.rnn.pack_padded_sequence(x, [5, 3]) if packed else x
    others = [torch.randn_like(w).requires_grad_() for w in stock.parameters()]
    for module in (stock, ours):
        module._flat_weights = list(others)
    before = fastrnn.native_calls()
    found, right = flat(ours(x)), flat(stock(x))
    assert fastrnn.native_calls() == before + 1
    torch.testing.assert_close(found, right)
    gradients = [torch.autograd.grad(out[1].square().sum(), others) for out in (found, right)]
    torch.testing.assert_close(*gradients)
    for module in (stock, ours):
        module._flat_weights[0] = others[0].detach() * 0.5
    torch.testing.assert_close(flat(ours(x)), flat(stock(x)))
    torch.testing.assert_close(ours.prepare()(x)[0], stock(x)[0])
    stock.weight_hh_l1 = ours.weight_hh_l1 = nn.Parameter(torch.randn(stock.weight_hh_l1.shape))
    torch.testing.assert_close(flat(ours(x)), flat(stock(x)))


@every_kind
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")
def test_parametrized(kind):
    """Weights that are computed from others: norms and pruning."""
    for change in (
        lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
        lambda m: torch.nn.utils.weight_norm(m, "weight_hh_l0"),
        lambda m: prune.random_unstructured(m, "weight_ih_l0", 0.5),
    ):
        stock, ours = twins(kind, 3, 4)
        for module in (stock, ours):
            torch.manual_seed(3)
            change(module)
        x = torch.randn(5, 2, 3)
        y, right = ours(x)[0], stock(x)[0]
        torch.testing.assert_close(y, right)
        names = [name for name, _ in ours.named_parameters()]
        a = torch.autograd.grad(y.square().sum(), [dict(ours.named_parameters())[n] for n in names])
        b = torch.autograd.grad(right.square().sum(), [dict(stock.named_parameters())[n] for n in names])
        for found, expected in zip(a, b, strict=True):
            torch.testing.assert_close(found, expected)
    assert not parametrize.is_parametrized(ours)


def test_tied_weights():
    first, second = OURS["GRU"](4, 4), OURS["GRU"](4, 4)
    second.weight_hh_l0 = first.weight_hh_l0
    x = torch.randn(5, 2, 4)
    second(first(x)[0])[0].sum().backward()
    assert len({id(p) for p in [*first.parameters(), *second.parameters()]}) == 7
    assert first.weight_hh_l0.grad is second.weight_hh_l0.grad


@pytest.mark.parametrize(("kind", "options"), [*((k, {}) for k in KINDS), ("LSTM", {"proj_size": 2}), *EXTRAS.items()])
def test_prepared(kind, options):
    """A stream step by step, on the weights that there were, whatever becomes of the module."""
    ours = OURS[kind](3, 4, 2, dropout=0.5, **options)
    x, calls = torch.randn(5, 2, 3), fastrnn.native_calls()
    ours.eval()
    expected, ours = flat(ours(x)), ours.train()
    prepared, state, outputs = ours.prepare(), None, []
    with torch.no_grad():
        for p in ours.parameters():
            p.zero_()
    for step in x:
        y, state = prepared(step[None], state)
        outputs.append(y)
    assert_equal((torch.cat(outputs), *as_tuple(state)), [t.detach() for t in expected])
    assert fastrnn.native_calls() == calls + 6
    assert not y.requires_grad
    assert repr(prepared) == f"Prepared({ours})".replace(", dropout=0.5", "")
    given = x.clone().requires_grad_()
    prepared(given, lengths=[5, 3])[0].sum().backward()  # derivatives by inputs and states there are
    assert not given.grad[3:, 1].any()
    assert given.grad[:, 0].all()
    with pytest.raises(RuntimeError, match=r"input\.size\(-1\) must be equal to input_size"):
        prepared(torch.zeros(5, 2, 4))


@every_kind
def test_prepared_from_other_weights(kind):
    """Those that are computed from others, lie oddly in memory, or are none that the kernels take."""
    ours = OURS[kind](4, 4, bias=False, batch_first=True, dtype=torch.float64)
    parametrizations.spectral_norm(ours.eval(), "weight_hh_l0")
    ours.weight_ih_l0 = nn.Parameter(ours.weight_ih_l0.detach().t().contiguous().t())
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    assert_equal(flat(ours.prepare()(x)), flat(ours(x)))
    for wrong in (ours.bfloat16(), OURS[kind](3, 4, device="meta")):
        with pytest.raises(ValueError, match="prepare: weights must be all float32 or all float64 on the CPU, got"):
            wrong.prepare()


@every_kind
def test_symbolic_trace(kind):
    """`torch.fx` keeps modules of torch.nn whole, and so these."""
    ours = nn.Sequential(OURS[kind](3, 4, batch_first=True))
    traced = torch.fx.symbolic_trace(ours)
    given, call, output = traced.graph.nodes
    assert [node.op for node in (given, call, output)] == ["placeholder", "call_module", "output"]
    assert (call.args, call.kwargs) == ((given,), {})  # as torch.nn's, without a state that nobody gave
    x = torch.randn(2, 5, 3)
    assert_equal(flat(traced(x)), flat(ours(x)))


def test_attributes_are_read_at_each_call():
    ours = OURS["LSTM"](3, 4)
    x = torch.randn(5, 2, 3)
    first = ours(x)[0]
    ours.batch_first = True
    torch.testing.assert_close(ours(x.transpose(0, 1))[0], first.transpose(0, 1))


def test_results_may_be_written_and_belong_to_nobody_else():
    ours = OURS["LSTM"](3, 4)
    with torch.no_grad():
        x = torch.randn(5, 2, 3)
        y, (h, c) = ours(x)
        expected = [t.clone() for t in (y, h, c)]
        y.zero_()
        h.zero_()
        assert_equal(flat(ours(x)), expected)
    y = ours(x)[0]
    y.mul_(2)  # what a program does to torch.nn's results
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_in_many_threads():
    ours = OURS["LSTM"](3, 16, 2)
    x = torch.randn(20, 4, 3)
    expected = torch.autograd.grad(ours(x)[0].sum(), ours.parameters())
    wrong = []

    def work():
        for _ in range(20):
            found = torch.autograd.grad(ours(x)[0].sum(), ours.parameters())
            if not all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# ------------------------------------------------------------------------------------------------------------ replace_


class Custom(nn.LSTM):
    """A subclass, which might do anything."""


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 4, 2, bidirectional=True))
        self.layers = nn.ModuleList([nn.GRU(8, 5), nn.RNN(5, 5, nonlinearity="relu")])
        self.again = self.layers[0]
        self.custom = Custom(5, 5)

    def forward(self, x):
        y = self.encoder(x)[0]
        for layer in self.layers:
            y = layer(y)[0]
        return self.custom(y)[0]


def test_replace():
    torch.manual_seed(0)
    model = Model().eval()
    model.layers[0].weight_hh_l0.requires_grad_(False)
    seen = []
    handle = model.encoder[1].register_forward_hook(lambda *_: seen.append(1))
    x, parameters, state = torch.randn(5, 2, 3), dict(model.named_parameters()), list(model.state_dict())
    expected = model(x)
    done = fastrnn.torch.replace_(model)
    assert done.swapped == {"encoder.1": "LSTM", "layers.0": "GRU", "layers.1": "RNN"}
    assert done.left == {"custom": "Custom"}
    assert str(done) == (
        "swapped encoder.1: LSTM, layers.0: GRU, layers.1: RNN; left as they are, being subclasses: custom: Custom"
    )
    assert [type(m) for m in (model.encoder[1], *model.layers)] == [OURS[k] for k in ("LSTM", "GRU", "RNN")]
    assert model.again is model.layers[0]
    assert list(model.state_dict()) == state
    assert all(parameters[name] is p for name, p in model.named_parameters())
    assert not model.encoder[1].training
    assert not model.layers[0].weight_hh_l0.requires_grad
    calls = fastrnn.native_calls()
    torch.testing.assert_close(model(x), expected)
    assert fastrnn.native_calls() == calls + 3
    assert len(seen) == 2
    handle.remove()
    model(x)
    assert len(seen) == 2
    assert fastrnn.torch.replace_(model).swapped == {}
    twin = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(twin(x), expected)
    assert copy.deepcopy(model).again is not model.again


@every_kind
def test_replace_the_model_itself(kind):
    model = STOCK[kind](3, 4)
    expected = run(model)
    done = fastrnn.torch.replace_(model)
    assert str(done) == f"swapped (the model itself): {kind}"
    assert type(model) is OURS[kind]
    torch.testing.assert_close(run(model), expected)


def test_replace_refuses_what_is_no_module():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got list"):
        fastrnn.torch.replace_([nn.LSTM(3, 4)])
    assert str(fastrnn.torch.replace_(nn.Linear(2, 2))) == "swapped nothing"


# --------------------------------------------------------------------------------------------------------------- patch


def test_patch():
    names = [(home, kind) for home in (nn, nn.modules, nn.modules.rnn) for kind in KINDS]
    before = nn.LSTM(3, 4)
    with fastrnn.torch.patch():
        for home, kind in names:
            made = getattr(home, kind)(3, 4, num_layers=2)
            assert type(made) is OURS[kind]
            assert isinstance(made, getattr(nn, kind))
        assert isinstance(before, nn.LSTM)
        assert not isinstance(before, nn.GRU)
        assert not isinstance(nn.Linear(1, 1), nn.LSTM)
        assert issubclass(STOCK["LSTM"], nn.LSTM)
        model = Model()
        assert type(model.encoder[1]) is OURS["LSTM"]
        assert type(model.custom) is Custom
        torch.testing.assert_close(run(before), run(copy.deepcopy(before)))
        with fastrnn.torch.patch():
            assert type(nn.GRU(3, 4)) is OURS["GRU"]
        assert type(nn.GRU(3, 4)) is OURS["GRU"]

        class Sub(nn.LSTM):
            def __init__(self, *sizes):
                super().__init__(*sizes)
                self.extra = 1

        sub = Sub(3, 4)
        assert (type(sub), sub.extra) == (Sub, 1)
        assert isinstance(sub, OURS["LSTM"])
        assert isinstance(sub, nn.LSTM)
        assert not isinstance(made, Sub)
        assert run(sub)[0].shape == (5, 2, 4)
    assert all(getattr(home, kind) is STOCK[kind] for home, kind in names)
    assert pickle.loads(pickle.dumps(made)).num_layers == 2
    assert not isinstance(made, nn.RNN)


def test_patch_ends_with_an_exception():
    with pytest.raises(ZeroDivisionError), fastrnn.torch.patch():
        raise ZeroDivisionError
    assert nn.LSTM is STOCK["LSTM"]


# -------------------------------------------------------------------------------------------------------------- import


def test_import():
    """fastrnn does without PyTorch; what is asked of it without PyTorch says what is missing."""
    program = """
import sys
import fastrnn
assert "torch" not in sys.modules
sys.modules["torch"] = None
for ask in (lambda: fastrnn.torch, lambda: __import__("fastrnn.torch")):
    try:
        ask()
    except ImportError as error:
        assert str(error) == "fastrnn.torch needs PyTorch: pip install 'fastrnn[torch]'", error
    else:
        raise AssertionError
try:
    fastrnn.nothing
except AttributeError as error:
    assert "nothing" in str(error)
del sys.modules["torch"]
assert fastrnn.torch.LSTM(2, 3).hidden_size == 3
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_the_compiler_is_not_loaded():
    """It takes a second, which no program has to wait that does not compile."""
    program = """
import sys
import torch
if "torch._dynamo" in sys.modules:
    sys.exit()
import fastrnn.torch
fastrnn.torch.LSTM(2, 3)(torch.nn.utils.rnn.pack_sequence([torch.ones(4, 2), torch.ones(1, 2)]))
fastrnn.torch.LSTM(2, 3, dtype=torch.bfloat16)(torch.ones(4, 1, 2, dtype=torch.bfloat16))
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=120)


def test_states_are_not_kept():
    ours = OURS["LSTM"](3, 4)
    h, c = torch.randn(1, 2, 4), torch.randn(1, 2, 4)
    x = torch.randn(5, 2, 3, requires_grad=True)
    _, state = ours(x, (h, c))
    assert as_tuple(state)[0] is not h
    loss = state[0].sum()
    h.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()

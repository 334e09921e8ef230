"""What the kernels do not serve runs PyTorch's own path, with one warning that names the reason."""

import warnings

import pytest

torch = pytest.importorskip("torch")

from torch.nn.utils._per_sample_grad import call_for_per_sample_grads  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.torch import _modules  # noqa: E402
from torch_cases import EXTRAS, KINDS, OURS, flat, twins  # noqa: E402

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch):
    monkeypatch.setattr(_modules, "_warned", set())


def assert_falls_back(ours, stock, call, reason):
    """The results are torch.nn's, the kernels did not run, and the reason is told once."""
    calls = fastrnn.native_calls()
    with pytest.warns(UserWarning, match=f"PyTorch's own path ran, not fastrnn's kernels, for {reason}") as said:
        found = call(ours)
    assert __file__ in [warning.filename for warning in said]  # the call that it is about is here
    for a, b in zip(found, call(stock), strict=True):
        torch.testing.assert_close(a, b)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(ours)
    assert fastrnn.native_calls() == calls


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batched", [False, True])
def test_dtypes(kind, dtype, batched):
    stock, ours = (m.to(dtype) for m in twins(kind, 3, 4, 2, bidirectional=True))
    x = torch.randn(*(5, 2, 3) if batched else (5, 3)).to(dtype)
    assert_falls_back(ours, stock, lambda m: flat(m(x)), f"weights of {dtype}")


@every_kind
def test_gradients(kind):
    stock, ours = (m.bfloat16() for m in twins(kind, 3, 4))
    x = torch.randn(5, 2, 3).bfloat16().requires_grad_()
    assert_falls_back(
        ours, stock, lambda m: torch.autograd.grad(m(x)[0].sum(), [x, *m.parameters()]), "weights of torch.bfloat16"
    )


@pytest.mark.filterwarnings("ignore:fastrnn.torch")
@pytest.mark.parametrize("kind", EXTRAS)
def test_cells_without_an_operator(kind):
    """They run in PyTorch's other operators, dropout included."""
    ours = OURS[kind](3, 4, 2, bidirectional=True, **EXTRAS[kind])
    x = torch.randn(5, 2, 3)
    exact, half = ours(x)[0], ours.bfloat16()(x.bfloat16())[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.05)
    half = ours(x.bfloat16(), lengths=[5, 2])[0]
    assert not half[2:, 1].any()
    one = ours(x[:, 0].bfloat16(), lengths=3)[0]
    assert one.shape == (5, 8)
    ours.dropout = 0.9
    assert not torch.equal(ours(x.bfloat16())[0], ours(x.bfloat16())[0])


@every_kind
def test_lengths(kind):
    """Those that torch.nn has no way for."""
    stock, ours = (m.bfloat16() for m in twins(kind, 3, 4))
    x = torch.randn(5, 2, 3).bfloat16()
    with pytest.warns(UserWarning, match="weights of torch.bfloat16"):
        found = ours(x, lengths=[5, 0])
    alone = stock(x[:, :1])
    torch.testing.assert_close(found[0][:, :1], alone[0], atol=0.02, rtol=0.02)
    assert not found[0][:, 1].any()


@every_kind
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_forward_mode(kind):
    ours = OURS[kind](3, 4)
    x = torch.randn(5, 2, 3)
    with torch.autograd.forward_ad.dual_level(), pytest.warns(UserWarning, match="forward-mode"):
        ours(torch.autograd.forward_ad.make_dual(x, torch.ones_like(x)))


@every_kind
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:.*trace:torch.jit.TracerWarning")
def test_traced(kind):
    stock, ours = twins(kind, 3, 4)
    x = torch.randn(5, 2, 3)
    with pytest.warns(UserWarning, match="torch.jit.trace"):
        program = torch.jit.trace(ours, (x,))
    other = torch.randn(5, 2, 3)
    torch.testing.assert_close(program(other)[0], stock(other)[0])
    assert "fastrnn::" not in str(program.inlined_graph)


@every_kind
@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.filterwarnings("ignore")  # of the exporter's own
def test_exported_to_onnx(kind, initial, tmp_path):
    """By the older exporter, the module as it is: an operator of ONNX."""
    onnx = pytest.importorskip("onnx")
    _, ours = twins(kind, 3, 4)
    arguments = [torch.randn(5, 2, 3)]
    if initial:
        h = torch.randn(1, 2, 4)
        arguments.append((h, h) if kind == "LSTM" else h)
    with pytest.warns(UserWarning, match="torch.jit.trace"):
        torch.onnx.export(ours, tuple(arguments), tmp_path / "model.onnx", dynamo=False)
    assert kind in [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]


class Own(torch.Tensor):
    """Somebody's subclass."""


@every_kind
def test_subclasses_of_tensors(kind):
    stock, ours = twins(kind, 3, 4)
    x = torch.randn(5, 2, 3).as_subclass(Own)
    assert_falls_back(ours, stock, lambda m: flat(m(x)), "a tensor of Own")


@every_kind
@pytest.mark.parametrize("packed", [False, True])
def test_gradients_of_each_sample(kind, packed):
    """Expanded weights, which have a gradient for each row of a batch and refuse what they do not know."""
    stock, ours = twins(kind, 3, 4, batch_first=True)
    x = torch.randn(3, 5, 3, requires_grad=True)  # without, torch.nn.LSTM has none either

    def each(module):
        for weight in module.parameters():
            weight.grad_sample = None
        given = torch.nn.utils.rnn.pack_padded_sequence(x, [5, 4, 2], batch_first=True) if packed else x
        call_for_per_sample_grads(module, batch_size=3)(given)[0][0].square().sum().backward()
        return [weight.grad_sample for weight in module.parameters()]

    assert_falls_back(ours, stock, each, "a tensor of ExpandedWeight")


@every_kind
def test_a_device_that_is_not_served(kind):
    """No kernels for it, and none of PyTorch's: its own error, no crash."""
    ours = OURS[kind](3, 4)
    with pytest.raises((RuntimeError, NotImplementedError)):
        ours(torch.randn(5, 2, 3, device="meta"))
    with pytest.raises((RuntimeError, NotImplementedError)):
        OURS[kind](3, 4, device="meta")(torch.randn(5, 2, 3))


@every_kind
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of the compiler's own
def test_compiled(kind):
    """A compiled program, too, which warns while it is traced; in one graph but where torch.nn breaks it."""
    stock, ours = (m.bfloat16() for m in twins(kind, 3, 4))
    x = torch.randn(5, 2, 3).bfloat16()
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=kind != "LSTM")
    assert_falls_back(compiled, stock, lambda m: flat(m(x)), "weights of torch.bfloat16")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled(x[:4])  # once, in whichever program
        ours(x)
    torch._dynamo.reset()


@pytest.mark.parametrize("kind", EXTRAS)
def test_compiled_without_an_operator(kind):
    ours = OURS[kind](3, 4, **EXTRAS[kind]).bfloat16()
    x = torch.randn(5, 2, 3).bfloat16()
    with pytest.warns(UserWarning, match="weights of torch.bfloat16"):
        found = torch.compile(ours, backend="aot_eager", fullgraph=True)(x, lengths=[5, 2])
    for a, b in zip(flat(found), flat(ours(x, lengths=[5, 2])), strict=True):
        torch.testing.assert_close(a, b)
    torch._dynamo.reset()


@every_kind
def test_a_mixture_of_dtypes(kind):
    ours = OURS[kind](3, 4)
    ours.weight_hh_l0.data = ours.weight_hh_l0.data.double()
    with pytest.raises((RuntimeError, ValueError)):
        ours(torch.randn(5, 2, 3))


@every_kind
def test_odd_layouts(kind):
    stock, ours = twins(kind, 3, 4)
    for module in (stock, ours):
        with pytest.raises((RuntimeError, NotImplementedError)):
            module(torch.randn(5, 2, 3).to_sparse())
    with torch.no_grad():
        for module in (stock, ours):
            module.weight_hh_l0 = torch.nn.Parameter(module.weight_hh_l0.t().contiguous().t())
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(ours(x)[0], stock(x)[0])
    assert not ours.weight_hh_l0.is_contiguous()

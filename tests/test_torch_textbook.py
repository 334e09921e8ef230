"""The textbook's cell, in both variants, is an RNN of fastrnn's: outputs, states and gradients."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("names")

import fastrnn  # noqa: E402

EXAMPLES = Path(__file__).parents[1] / "examples"
VARIANTS = ("tanh", "linear")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "torch_names", raising=False)
    spec = importlib.util.spec_from_file_location("torch_textbook", EXAMPLES / "torch_textbook.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_numbers_from_the_same_weights(example, variant):
    torch.manual_seed(0)
    cell = example.TextbookCell(5, 7, 3, variant).double()
    model = example.SameInOneCall(cell)
    x = torch.randn(9, 4, 5, dtype=torch.float64)
    h, outputs = torch.zeros(4, 7, dtype=torch.float64), []
    for x_t in x:
        output, h = cell(x_t, h)
        outputs.append(output)
    right = torch.stack(outputs)
    calls = fastrnn.native_calls()
    found, h_n = model(x)
    assert fastrnn.native_calls() > calls
    torch.testing.assert_close(found, right, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(h_n, h, rtol=1e-11, atol=1e-12)

    (right.square().sum() + h.sum()).backward()
    expected = {name: p.grad.clone() for name, p in cell.named_parameters()}
    cell.zero_grad()
    (found.square().sum() + h_n.sum()).backward()
    gradients = {name: p.grad for name, p in model.recurrent.named_parameters()}
    w_x, w_h, bias = gradients["weight_ih_l0"], gradients["weight_hh_l0"], gradients["bias_ih_l0"]
    if variant == "linear":  # each weight of the cell stands in two or four places, with its sign
        w_x, bias = (g[:7] - g[7:] for g in (w_x, bias))
        w_h = w_h[:7, :7] - w_h[:7, 7:] - w_h[7:, :7] + w_h[7:, 7:]
    torch.testing.assert_close(torch.cat((w_x, w_h), 1), expected["i2h.weight"], rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(bias, expected["i2h.bias"], rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(model.i2o.weight.grad, expected["i2o.weight"], rtol=1e-10, atol=1e-11)


def test_the_variants_differ(example):
    """Without tanh no RNN of the same size gives the same numbers."""
    torch.manual_seed(0)
    linear = example.TextbookCell(5, 7, 3, "linear").double()
    x = 3 * torch.randn(9, 4, 5, dtype=torch.float64)
    _, right = example.SameInOneCall(linear)(x)
    weight, bias = linear.i2h.weight.detach(), linear.i2h.bias.detach()
    for nonlinearity in ("tanh", "relu", "sigmoid"):
        rnn = fastrnn.torch.RNN(5, 7, nonlinearity=nonlinearity, dtype=torch.float64)
        own = {"weight_ih_l0": weight[:, :5], "weight_hh_l0": weight[:, 5:], "bias_ih_l0": bias}
        rnn.load_state_dict(own | {"bias_hh_l0": torch.zeros(7)})
        assert (rnn(x)[1][0] - right).abs().max() > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_program(example, capsys, variant):
    example.main(["--variant", variant, "--dtype", "float64", "--most", "40", "--hidden", "16"])
    output = capsys.readouterr().out
    assert "120 names" in output
    assert float(re.search(r"log-probability: (\S+)", output)[1]) < 1e-12
    assert torch.get_default_dtype() == torch.float32

"""fastrnn.torch's operators for CUDA tensors, in the emulator: its device's memory is the host's, so CPU tensors are to
it what CUDA tensors are to a GPU. This shows nothing of PyTorch's own dispatch, of streams, or of a device's memory.
"""

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses import FakeTensorMode  # noqa: E402

from conftest import TOLERANCES, relative_error  # noqa: E402
from fastrnn import _device  # noqa: E402
from fastrnn.reference import CELLS as NAMES  # noqa: E402
from fastrnn.torch import LSTM, _network, _ops  # noqa: E402
from fastrnn.torch._modules import unserved  # noqa: E402

CELLS = [(cell, 0) for cell in NAMES] + [("lstm", 5)]  # with proj_size
STEPS, ROWS, INPUTS, HIDDEN, LAYERS = 6, 5, 3, 8, 2


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def make_call(cell, proj_size, dtype, batch_first, seed):
    """Arguments of the operators, of values that the type has, and the derivatives of a loss."""
    torch.manual_seed(seed)
    gates = {"lstm": 4, "gru": 3, "gru_reset_before": 3}.get(cell, 1) * HIDDEN
    output = proj_size or HIDDEN
    weights = []
    for layer in range(2 * LAYERS):
        shapes = [(gates, INPUTS if layer < 2 else 2 * output), (gates, output), (gates,), (gates,)]
        weights += [draw(*shape) / 3 for shape in shapes + ([(proj_size, HIDDEN)] if proj_size else [])]
    axes = (ROWS, STEPS) if batch_first else (STEPS, ROWS)
    x = draw(*axes, INPUTS)
    h0, dh_n = draw(2 * LAYERS, ROWS, output), draw(2 * LAYERS, ROWS, output)
    c0, dc_n = (draw(2 * LAYERS, ROWS, HIDDEN), draw(2 * LAYERS, ROWS, HIDDEN)) if cell == "lstm" else (None, None)
    dy = draw(*axes, 2 * output)

    def rounded(tensor):
        return None if tensor is None else tensor.to(dtype).double()

    weights = [rounded(w) for w in weights]
    lengths = torch.tensor([STEPS, 0, 3, 1, STEPS])
    call = rounded(x), weights, rounded(h0), rounded(c0), lengths, torch.tensor([seed])
    return call, (cell, LAYERS, True, batch_first, 0.3), tuple(rounded(d) for d in (dy, dh_n, dc_n))


def everything(forward, backward, call, options, outward):
    """All results of both operators but the tape: forwards, and gradients."""
    y, h_n, c_n, tape = forward(*call, *options, True)
    dx, dh0, dc0, dweights = backward(*call, y, tape, *outward, *options, True)
    inferred = forward(*call, *options[:-1], 0.0, False)
    return [y, h_n, c_n, *inferred[:3]], [dx, dh0, dc0, *dweights]


def as_type(value, dtype):
    if isinstance(value, (list, tuple)):
        return type(value)(as_type(v, dtype) for v in value)
    return value.to(dtype) if torch.is_tensor(value) and value.is_floating_point() else value


@pytest.mark.parametrize("way", ["automatic", "step_by_step", "grid"])
@pytest.mark.parametrize("dtype", _network.CUDA_DTYPES, ids=str)
@pytest.mark.parametrize(("cell", "proj_size"), CELLS)
def test_the_operators_give_what_they_give_on_the_cpu(cuda, cell, proj_size, dtype, way):
    if cell == "rnn_relu" and dtype.itemsize == 2:
        dtype = torch.float32  # a relu rounded to 16 bits may lie on the other side of its kink
    if way == "grid" and proj_size:
        way = "automatic"
    cuda.set_way(way)
    call, options, outward = make_call(cell, proj_size, dtype, proj_size > 0, seed=1)
    expected = everything(_ops.forward, _ops.backward, call, options, outward)
    (x, *others), outward = as_type(call, dtype), as_type(outward, dtype)
    call = x.repeat_interleave(2, dim=-1)[..., ::2], *others  # with a stride
    got = everything(_ops.forward_on_cuda, _ops.backward_on_cuda, call, options, outward)
    for which, some, exact in zip(("forward", "backward"), got, expected, strict=True):
        bound = TOLERANCES[_network.CUDA_DTYPES[dtype]][which](HIDDEN + INPUTS, STEPS)
        for ours, wanted in zip(some, exact, strict=True):
            assert ours.dtype == dtype
            assert relative_error(ours.double().numpy(), wanted.numpy()) <= bound


def test_a_wrong_argument_is_refused(cuda):
    call, options, _ = make_call("lstm", 0, torch.float32, False, seed=1)
    x, weights, h0, c0, lengths, seed = as_type(call, torch.float32)
    for wrong, message in (
        ((x, weights, h0[:, 1:], c0, lengths, seed), "h0 must be"),
        ((x, weights[:-1], h0, c0, lengths, seed), "are not those of 2 layers"),
        ((x.double(), weights, h0, c0, lengths, seed), r"weights\[0\] must be torch.float64"),
        ((x, weights, h0, c0.half(), lengths, seed), "c0 must be torch.float32"),
        ((x, weights, h0, c0, lengths + 1, seed), "lengths must be from 0 to 6"),
    ):
        with pytest.raises(ValueError, match=message):
            _ops.forward_on_cuda(*wrong, *options, True)
    with pytest.raises(ValueError, match="way: expected one of automatic, "):
        cuda.set_way("none")


@pytest.mark.parametrize("dtype", _network.CUDA_DTYPES, ids=str)
def test_modules_hand_cuda_tensors_to_the_operators(cuda, monkeypatch, dtype):
    """By tensors without memory: PyTorch for the CPU has no others of CUDA's."""
    with FakeTensorMode():
        lstm = LSTM(3, 4, 2, bidirectional=True, device="meta", dtype=dtype)
        weights = {name: torch.empty(p.shape, device="cuda", dtype=dtype) for name, p in lstm.named_parameters()}
        x = torch.empty(6, 5, 3, device="cuda", dtype=dtype)
        y, (h_n, c_n) = torch.func.functional_call(lstm, weights, (x,), {"lengths": [6, 0, 3, 1, 6]})
        for result, shape in ((y, (6, 5, 8)), (h_n, (4, 5, 4)), (c_n, (4, 5, 4))):
            assert (tuple(result.shape), result.device.type, result.dtype) == (shape, "cuda", dtype)
        assert unserved(x, (), lstm._weights()) is None
        monkeypatch.setattr(_device, "cuda", lambda: None)
        assert "kernels" in unserved(x, (), lstm._weights())

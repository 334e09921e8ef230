"""What Python reaches, on a GPU: `fastrnn.torch` on CUDA tensors, and `fastrnn.cuda` on arrays of PyTorch and, where
they are installed for CUDA, CuPy and JAX. `make test-gpu` runs this; the suite does not.
"""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

import cuda_toolkit
from conftest import TOLERANCES

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("this PyTorch sees no GPU", allow_module_level=True)

STEPS, ROWS, INPUTS, HIDDEN = 40, 11, 24, 96
LENGTHS = [STEPS, 0, 3, 1, *[STEPS] * (ROWS - 4)]
DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.float16: "float16", torch.bfloat16: "bfloat16"}
KINDS = ("RNN", "LSTM", "GRU")


@pytest.fixture(scope="module")
def fastrnn():
    """The package, with `_cuda` as it is built for this machine's GPU."""
    if missing := cuda_toolkit.missing():
        pytest.exit(f"test-gpu: no {' and no '.join(missing)} here: nothing was built, and nothing was run", 1)
    cuda_toolkit.build_for_gpu("fastrnn_cuda_module", options=cuda_toolkit.python_options())
    (path,) = (cuda_toolkit.FOR_GPU / "cuda").glob("_cuda.*")
    spec = spec_from_file_location("fastrnn._cuda", path)
    sys.modules["fastrnn._cuda"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)
    import fastrnn.cuda

    fastrnn._device.cuda.cache_clear()
    import fastrnn.torch

    assert " SMs; step by step, one SM" in fastrnn.show_config("dict")["cuda"]
    return fastrnn


def twins(fastrnn, kind, dtype):
    """A layer on the kernels and PyTorch's own in float64, with the same weights; their input and dy."""
    torch.manual_seed(1)
    sizes = INPUTS, HIDDEN, 2
    ours = getattr(fastrnn.torch, kind)(*sizes, bidirectional=True, device="cuda", dtype=dtype)
    theirs = getattr(torch.nn, kind)(*sizes, bidirectional=True, device="cuda", dtype=torch.float64)
    theirs.load_state_dict({name: w.double() for name, w in ours.state_dict().items()})
    x = torch.randn(STEPS, ROWS, INPUTS, device="cuda", dtype=dtype)
    dy = torch.randn(STEPS, ROWS, 2 * HIDDEN, device="cuda", dtype=dtype)
    return ours, theirs, x, dy


def results(layer, x, dy, **options):
    """y, and the gradients of x and of the weights."""
    x = x.detach().clone().requires_grad_()
    y, _ = layer(x, **options)
    return [y.detach(), *torch.autograd.grad(y, [x, *layer.parameters()], dy)]


def hold(got, expected, dtype):
    for i, (a, b) in enumerate(zip(got, expected, strict=True)):
        bound = TOLERANCES[DTYPES[dtype]]["backward" if i else "forward"](HIDDEN + INPUTS, STEPS)
        assert (a.double() - b).norm() <= bound * b.norm()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_torch(fastrnn, kind, dtype):
    """By itself, on a stream that is not the default one, and compiled."""
    ours, theirs, x, dy = twins(fastrnn, kind, dtype)
    got = results(ours, x, dy)  # it would warn, which is an error, if this were not the kernels
    hold(got, results(theirs, x.double(), dy.double()), dtype)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        again = results(ours, x, dy)
    torch.cuda.current_stream().wait_stream(stream)
    compiled = results(torch.compile(ours, fullgraph=True), x, dy)
    for other in (again, compiled):
        assert all(torch.equal(a, b) for a, b in zip(got, other, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_torch_lengths(fastrnn, kind):
    ours, theirs, x, dy = twins(fastrnn, kind, torch.float32)
    for row, length in enumerate(LENGTHS):
        dy[length:, row] = 0
    y, *gradients = results(ours, x, dy, lengths=LENGTHS)
    for row, length in enumerate(LENGTHS):
        assert not y[length:, row].any()
        assert not gradients[0][length:, row].any()
        if length:
            wanted, _ = theirs(x[:length, row].double())
            hold([y[:length, row]], [wanted], torch.float32)


@pytest.mark.parametrize("varied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_torch_in_a_graph(fastrnn, kind, varied):
    """Captured with its gradients, and replayed on other numbers and lengths: the bits of calls outside of it."""
    ours, theirs, x, dy = twins(fastrnn, kind, torch.float16)
    static = x.clone().requires_grad_()
    lengths = {"lengths": torch.full((ROWS,), STEPS, device="cuda")} if varied else {}

    def step():
        y, _ = ours(static, **lengths)
        return [y, *torch.autograd.grad(y, [static, *ours.parameters()], dy)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    other = torch.randn_like(x)
    with torch.no_grad():
        static.copy_(other)
    if varied:
        lengths["lengths"].copy_(torch.tensor(LENGTHS) * 2 - 1)  # those that are out of range count as 0 and T
    graph.replay()
    within = {"lengths": [min(max(2 * n - 1, 0), STEPS) for n in LENGTHS]} if varied else {}
    assert all(torch.equal(a, b) for a, b in zip(captured, results(ours, other, dy, **within), strict=True))
    if not varied:
        hold([t.detach() for t in captured], results(theirs, other.double(), dy.double()), torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_arrays(fastrnn, kind, dtype):
    """`fastrnn.cuda` gives the bits of `fastrnn.torch`, also of what another stream is still writing."""
    ours, _, x, dy = twins(fastrnn, kind, dtype)
    layer = getattr(fastrnn.cuda, kind)(INPUTS, HIDDEN, 2, bidirectional=True, dtype=DTYPES[dtype])
    for name, weight in ours.state_dict().items():
        layer.parameters[name][:] = (weight.double() if dtype == torch.float64 else weight.float()).cpu().numpy()
    y, *wanted = results(ours, x, dy)
    with torch.cuda.stream(torch.cuda.Stream()):
        late = torch.zeros_like(x)
        torch.cuda._sleep(10**7)
        late.copy_(x)
        output, _, tape = layer.forward(late)
        gradients = layer.backward(tape, dy)
        got = [torch.from_dlpack(a) for a in (output, gradients.x, *gradients.parameters.values())]
        assert all(torch.equal(a, b) for a, b in zip(got, [y, *wanted], strict=True))
    torch.cuda.synchronize()


@pytest.mark.parametrize("dtype", DTYPES.values())
@pytest.mark.parametrize("kind", KINDS)
def test_jax(fastrnn, kind, dtype):
    """Under jit, with gradients, lengths and dropout, against the kernels of the CPU in float64."""
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("this JAX sees no GPU")
    if not fastrnn._core.xla_handlers():
        pytest.skip("this build of fastrnn was made without the headers of jaxlib")
    import fastrnn.jax

    jax.config.update("jax_enable_x64", True)
    layer = getattr(fastrnn, kind)(INPUTS, HIDDEN, 2, bidirectional=True, dropout=0.3, dtype="float64", seed=1)
    rng = np.random.default_rng(0)
    x = jax.numpy.asarray(rng.standard_normal((STEPS, ROWS, INPUTS)), dtype)
    dy = jax.numpy.asarray(rng.standard_normal((STEPS, ROWS, 2 * HIDDEN)), dtype)
    weights = {name: jax.numpy.asarray(w, dtype) for name, w in layer.parameters.items()}
    key = jax.random.key(1)
    low, high = np.asarray(jax.random.bits(key, (2,), "uint32"))

    @jax.jit
    def both(x, weights, lengths, key):
        def run(x, weights):
            call = getattr(fastrnn.jax, kind.lower())
            options = {"num_layers": 2, "bidirectional": True, "dropout": 0.3, "dropout_key": key}
            return call(x, weights, lengths=lengths, **options)[0]

        y, pull = jax.vjp(run, x, weights)
        return y, pull(dy)

    y, (dx, dweights) = both(x, weights, np.array(LENGTHS), key)
    for name, w in weights.items():
        layer.parameters[name][:] = np.asarray(w, np.float64)
    seed = int(high) << 32 | int(low)
    wanted, _, tape = layer.forward(np.asarray(x, np.float64), lengths=LENGTHS, dropout_seed=seed)
    gradients = layer.backward(tape, np.asarray(dy, np.float64))
    found = [y, dx, *(dweights[name] for name in layer.parameters)]
    exact = [wanted, gradients.x, *gradients.parameters.values()]
    for i, (ours, theirs) in enumerate(zip(found, exact, strict=True)):
        bound = TOLERANCES[dtype]["backward" if i else "forward"](HIDDEN + INPUTS, STEPS)
        assert np.linalg.norm(np.asarray(ours, np.float64) - theirs) <= bound * np.linalg.norm(theirs)


@pytest.mark.parametrize("library", ["cupy", "jax.numpy"])
def test_arrays_of_other_libraries(fastrnn, library):
    theirs = pytest.importorskip(library)
    if library == "jax.numpy" and sys.modules["jax"].default_backend() != "gpu":
        pytest.skip("this JAX sees no GPU")
    x = np.random.default_rng(0).standard_normal((STEPS, ROWS, INPUTS)).astype("f4")
    wanted, _ = fastrnn.LSTM(INPUTS, HIDDEN, seed=1)(x)
    y, _ = fastrnn.cuda.LSTM(INPUTS, HIDDEN, seed=1)(theirs.asarray(x))
    got = theirs.from_dlpack(y)
    np.testing.assert_allclose(got.get() if library == "cupy" else np.asarray(got), wanted, rtol=1e-4, atol=1e-5)

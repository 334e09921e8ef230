"""`fastrnn.jax`'s handlers for a GPU, with the emulator in place of one. `test_jax_cuda.py` runs this file in a process
of its own: programs that XLA has compiled for the host call them here in place of the CPU's.
"""

import ctypes
import sys
from functools import partial

import jax
import jax.export
import jax.ffi
import jax.numpy as jnp
import numpy as np
import pytest

import cuda_runner
import fastrnn
from cases import CELLS, PROJECTED, Case, Native, Reference, as_state, covering, infer, train
from conftest import TOLERANCES, relative_error
from cuda_runner import rounded
from fastrnn import _core, _device

sys.modules["fastrnn._cuda"] = CUDA = cuda_runner.load_module()
_device.cuda.cache_clear()


def register_on_host():
    """Programs for the host find the handlers for "CUDA"."""
    (path,) = cuda_runner.build().glob("libxla_on_host.*")
    on_host = ctypes.CDLL(path).on_host
    on_host.argtypes, on_host.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    address = ctypes.pythonapi.PyCapsule_GetPointer
    address.argtypes, address.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p
    register, count = jax.ffi.register_ffi_target, iter(range(2))

    def instead(name, handler, platform):
        if platform == "CUDA":
            call = ctypes.CFUNCTYPE(ctypes.c_void_p)(on_host(next(count), address(handler, None)))
            register(name, jax.ffi.pycapsule(call), platform="cpu")

    jax.ffi.register_ffi_target = instead
    import fastrnn.jax

    jax.ffi.register_ffi_target = register
    return fastrnn.jax


KERNELS = register_on_host()
OPTIONS = {
    "rnn_relu": {"nonlinearity": "relu"},
    "rnn_sigmoid": {"nonlinearity": "sigmoid"},
    "gru_reset_before": {"reset_after": False},
}
FACTORS = {
    "cell": CELLS,
    "hidden": (5, 16),
    "inputs": (3, 20),
    "batch": (None, 1, 5),
    "steps": (1, 6),
    "layers": (1, 2),
    "bidirectional": (False, True),
    "bias": (True, False),
    "batch_first": (False, True),
    "dropout": (0.0, 0.35),
    "initial": (True, False),
    "ragged": (False, True),
}
DTYPES = ("float32", "float64", "float16", "bfloat16")
CASES = [Case(**c) for c in covering(FACTORS, lambda layers, dropout, **_: not (dropout and layers == 1))]


@pytest.fixture(autouse=True)
def doubles():
    """JAX keeps what is float64."""
    jax.config.update("jax_enable_x64", True)


def function(spec, **more):
    names = ("num_layers", "bidirectional", "batch_first", "dropout")
    options = {name: getattr(spec, name) for name in names} | OPTIONS.get(spec.cell, {}) | more
    return partial(getattr(KERNELS, spec.cell.split("_")[0]), **options)


def check(which, case, dtype, found, expected):
    bound = TOLERANCES[dtype][which](case.hidden + case.inputs, case.steps)
    found = jax.tree.leaves(found)
    assert len(found) == len(expected)
    for ours, wanted in zip(found, expected, strict=True):
        assert ours.dtype == dtype
        assert relative_error(np.asarray(ours, np.float64), wanted) <= bound


@pytest.mark.parametrize(("number", "case"), [pytest.param(*c, id=str(c[1])) for c in enumerate(CASES)])
def test_parity(number, case):
    dtype = DTYPES[number % 4]
    if case.cell == "rnn_relu" and dtype in _device.HALF:
        dtype = "float32"  # a relu rounded to 16 bits may lie on the other side of its kink
    layer = case.network(Reference, "float64")
    data = case.data(layer, number)
    key = jax.random.key(number)
    low, high = np.asarray(jax.random.bits(key, (2,), jnp.uint32))
    data.dropout_seed = int(high) << 32 | int(low)

    def convert(value):
        return jax.tree.map(lambda a: jnp.asarray(rounded(a, dtype)).astype(dtype), value)

    for name, array in layer.parameters.items():
        layer.parameters[name] = rounded(array, dtype)
    for name in ("x", "dy", "state", "dstate"):
        setattr(data, name, jax.tree.map(lambda a: rounded(a, dtype), getattr(data, name)))
    forwards, gradients = train(layer, data)
    run = function(layer.spec)
    # Traced, or they would be NumPy's and of the type that the program has chosen.
    lengths = None if data.lengths is None else np.asarray(data.lengths, (np.int32, np.int64)[number % 8 // 4])

    def both(x, weights, state, lengths, cotangents):
        results, pull = jax.vjp(lambda x, w, s: run(x, w, s, dropout_key=key, lengths=lengths), x, weights, state)
        return results, pull(cotangents)

    arguments = convert((data.x, layer.parameters, as_state(data.state)))
    results, (dx, dweights, dstate) = jax.jit(both)(*arguments, lengths, convert((data.dy, as_state(data.dstate))))
    names = [name for name in ("y", "h_n", "c_n") if name in forwards]
    check("forward", case, dtype, results, [forwards[name] for name in names])
    plain = jax.jit(lambda x, w, s, n: run(x, w, s, lengths=n))(*arguments, lengths)
    check("forward", case, dtype, plain, [infer(layer, data)[name] for name in names])
    starts = [gradients[f"d{name}0"] for name in "hc" if case.initial and f"d{name}0" in gradients]
    expected = [gradients["dx"], *starts, *(gradients[f"d{name}"] for name in layer.parameters)]
    check("backward", case, dtype, (dx, dstate, [dweights[name] for name in layer.parameters]), expected)


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell != PROJECTED])
def test_one_call_for_a_batch_of_calls(cell):
    """`vmap`, by more rows of a call where the parameters are shared, and one after the other where they are not."""
    layer = Native(cell, 3, 4, 2, bidirectional=True, dtype="float64")
    run = function(layer.spec)
    xs = np.random.default_rng(0).normal(size=(3, 5, 2, 3))
    expected = np.stack([layer(x)[0] for x in xs])
    found = jax.jit(jax.vmap(lambda x: run(x, layer.parameters)[0]))(xs)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    gradients = jax.jit(jax.vmap(jax.grad(lambda x: run(x, layer.parameters)[0].sum())))(xs)
    for x, gradient in zip(xs, gradients, strict=True):
        y, _, tape = layer.forward(x)
        np.testing.assert_allclose(gradient, layer.backward(tape, np.ones_like(y)).x, rtol=1e-11)


def test_lengths_that_are_none_become_the_nearest_that_are():
    layer = fastrnn.GRU(3, 4, seed=0, dtype="float64")
    x = np.random.default_rng(0).normal(size=(5, 4, 3))
    run = jax.jit(lambda x, n: KERNELS.gru(x, layer.parameters, lengths=n))
    expected = layer(x, lengths=[0, 5, 5, 2])
    for kind in (np.int32, np.int64):
        for found, wanted in zip(run(x, np.array([-7, 6, 2**31 - 1, 2], kind)), expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize(("steps", "batch"), [(0, 2), (5, 0), (0, None)])
def test_nothing(steps, batch):
    layer = fastrnn.LSTM(3, 4, num_layers=2, seed=0)
    rows = () if batch is None else (batch,)
    h0 = np.ones((2, *rows, 4), np.float32)
    run = jax.jit(partial(KERNELS.lstm, num_layers=2))
    y, final = run(np.ones((steps, *rows, 3), np.float32), layer.parameters, (h0, 2 * h0))
    assert y.shape == (steps, *rows, 4)
    assert np.array_equal(final[0], h0)
    assert np.array_equal(final[1], 2 * h0)


def test_several_at_once():
    """XLA runs what does not depend on one another on several threads."""
    layer = fastrnn.LSTM(3, 8, seed=0, dtype="float64")
    xs = np.random.default_rng(0).normal(size=(6, 7, 2, 3))
    run = jax.jit(lambda xs: [KERNELS.lstm(x, layer.parameters)[0] for x in xs])
    for found, x in zip(run(xs), xs, strict=True):
        np.testing.assert_allclose(found, layer(x)[0], rtol=1e-12, atol=1e-15)


def test_what_it_has_not_is_refused():
    layer = fastrnn.LSTM(3, 4, seed=0, clip=1.0)
    x = np.ones((5, 2, 3), np.float32)
    with pytest.raises(jax.errors.JaxRuntimeError, match="clip and activations: expected none of them, as CUDA has"):
        jax.block_until_ready(jax.jit(lambda x: KERNELS.lstm(x, layer.parameters, clip=1.0))(x))
    with pytest.raises(TypeError, match="x: expected an array of float32 or float64 on a CPU, got dtype bfloat16"):
        KERNELS.lstm(jnp.asarray(x, jnp.bfloat16), layer.parameters)
    with pytest.raises(TypeError, match="weight_ih_l0: expected an array of bfloat16, as x, got dtype float32"):
        jax.jit(lambda x: KERNELS.lstm(x, layer.parameters))(jnp.asarray(x, jnp.bfloat16))
    with pytest.raises(
        TypeError, match="expected an array of float32 or float64 or float16 or bfloat16, got dtype int8"
    ):
        KERNELS.lstm(x.astype("i1"), layer.parameters)


def test_a_handler_checks_what_it_is_given():
    """`jax.ffi.ffi_call` can be called by anybody."""
    layer = fastrnn.RNN(3, 4, seed=0)
    net = KERNELS._ops.Network.of(layer.spec, "float32")
    x = np.zeros((5, 2, 3), np.float32)

    def call(y=(5, 2, 4), tape=None, **changes):
        inputs = {"x": x, **layer.parameters}
        outputs = {"y": jax.ShapeDtypeStruct(y, "f4"), "h_n": jax.ShapeDtypeStruct((1, 2, 4), "f4")}
        if tape:
            outputs["tape"] = jax.ShapeDtypeStruct(tape, "u1")
        names = {"inputs": " ".join(inputs), "outputs": " ".join(outputs)}
        kernel = jax.ffi.ffi_call("fastrnn_forward", list(outputs.values()))
        return jax.block_until_ready(kernel(*inputs.values(), **(net.attributes | names | changes)))

    size = net.tape_bytes(x)
    y, *_ = call(tape=(size,))
    np.testing.assert_allclose(y, layer(x)[0], rtol=1e-6)
    for bad in ({"y": (5, 2, 5)}, {"tape": (64,)}, {"tape": (1, size)}, {"hidden_size": 5}, {"dtype": "float16"}):
        with pytest.raises(jax.errors.JaxRuntimeError, match="fastrnn: "):
            call(**bad)
    with pytest.raises(ValueError, match="device: expected fastrnn::Device"):
        _core.xla_device_handlers(_core.xla_handlers()["fastrnn_forward"])


@pytest.mark.parametrize("way", ["step_by_step", "one_sm", "grid"])
def test_ways_of_running(way):
    """`FASTRNN_CUDA_WAY` holds for these calls, too."""
    layer = fastrnn.GRU(3, 8, seed=0)
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    CUDA.set_way(way)
    np.testing.assert_allclose(jax.jit(KERNELS.gru)(x, layer.parameters)[0], layer(x)[0], rtol=1e-5, atol=1e-6)
    CUDA.set_way("automatic")


def test_a_spec_without_kernels_there_has_a_tape_of_the_host():
    spec = fastrnn.LSTM(3, 4, seed=0, peephole=True).spec
    x = np.zeros((5, 2, 3), np.float32)
    network = KERNELS._ops.Network.of(spec, "float32")
    assert network.tape_bytes(x) >= sum(-(-n * 40 // 64) * 64 for n in _core.tape_widths(spec))


def test_sizes_that_are_symbols():
    """As `jax.export` has them: nobody knows which platform's tape is the larger one."""
    layer = fastrnn.LSTM(3, 4, num_layers=2, seed=0, dtype="float64")
    run = partial(KERNELS.lstm, num_layers=2)
    checks = [jax.export.DisabledSafetyCheck.custom_call(f"fastrnn_{way}") for way in ("forward", "backward")]
    x = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("T, B"), 3), "float64")
    program = jax.jit(jax.grad(lambda x: run(x, layer.parameters)[0].sum()))
    exported = jax.export.export(program, disabled_checks=checks)(x)
    for steps, batch in ((5, 2), (1, 1), (70, 3)):
        given = np.random.default_rng(0).normal(size=(steps, batch, 3))
        y, _, tape = layer.forward(given)
        np.testing.assert_allclose(exported.call(given), layer.backward(tape, np.ones_like(y)).x, rtol=1e-11)

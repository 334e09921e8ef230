"""JAX's transformations of `fastrnn.jax`: `jit`, `grad`, `vmap`, `scan`, `checkpoint`, several devices and threads."""

import os
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp  # noqa: E402
from jax import export  # noqa: E402

import fastrnn  # noqa: E402
import fastrnn.jax  # noqa: E402

KINDS = ("rnn", "gru", "lstm")
STEPS, BATCH, INPUT, HIDDEN = 6, 3, 4, 5


def weights_of(kind, **options):
    layer = getattr(fastrnn, kind.upper())(INPUT, HIDDEN, seed=0, **options)
    return {name: jnp.asarray(array) for name, array in layer.parameters.items()}


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def state_of(kind, *batch, layers=1):
    h = draw(layers, *batch, HIDDEN, seed=1)
    return (h, 2 * h) if kind == "lstm" else h


def calls_of(function, *arguments):
    """The result of a compiled call, and how many calls of the kernels it took."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    before = fastrnn.native_calls()
    return jax.block_until_ready(compiled(*arguments)), fastrnn.native_calls() - before


def assert_trees(found, expected, rtol=1e-5):
    """The same up to rounding: sums over rows are taken in another order."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


def in_turn(function, *arguments):
    """What a vmap over the first axis of all arguments means."""
    function = jax.jit(function)
    results = [function(*(jax.tree.map(lambda a, k=k: a[k], argument) for argument in arguments)) for k in range(4)]
    return jax.tree.map(lambda *parts: jnp.stack(parts), *results)


# --------------------------------------------------------------------------------------------------------------- vmap


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["one sequence", "time first", "batch first"])
def test_vmap_over_inputs_is_one_call(kind, layout):
    options = {"num_layers": 2, "bidirectional": True}
    weights = weights_of(kind, **options)
    batch = () if layout == "one sequence" else (BATCH,)
    axes = (BATCH, STEPS) if layout == "batch first" else (STEPS, *batch)
    run = partial(getattr(fastrnn.jax, kind), **options, batch_first=layout == "batch first")
    x, state = draw(4, *axes, INPUT), jax.tree.map(lambda s: draw(4, *s.shape), state_of(kind, *batch, layers=4))
    lengths = jnp.asarray(np.random.default_rng(0).integers(STEPS + 1, size=(4, *batch)))

    def full(x, state, lengths):
        return run(x, weights, state, lengths=lengths)

    found, calls = calls_of(jax.vmap(full), x, state, lengths)
    assert calls == 1
    assert_trees(found, in_turn(full, x, state, lengths))
    shared, calls = calls_of(jax.vmap(lambda s: run(x[0], weights, s)), state)
    assert calls == 1
    assert_trees(shared, in_turn(lambda s: run(x[0], weights, s), state))
    alone, calls = calls_of(jax.vmap(lambda x: run(x, weights), in_axes=1, out_axes=1), jnp.moveaxis(x, 0, 1))
    assert calls == 1
    right = in_turn(lambda x: run(x, weights), x)
    assert_trees(alone, jax.tree.map(lambda a: jnp.moveaxis(a, 0, 1), right))


def test_vmap_of_vmap():
    weights = weights_of("lstm")
    x, state = draw(4, 2, STEPS, INPUT), state_of("lstm", 2)

    def run(x, h, c):
        return fastrnn.jax.lstm(x, weights, (h, c))

    h, c = (jnp.moveaxis(s, 1, 0) for s in state)
    inner = jax.vmap(run)
    found, calls = calls_of(jax.vmap(inner, in_axes=(0, None, None)), x, h, c)
    assert calls == 1
    assert_trees(found, in_turn(lambda x: inner(x, h, c), x))


@pytest.mark.parametrize(("size", "rows"), [(4, 0), (0, 3), (0, 0)])
def test_vmap_of_no_rows(size, rows):
    weights = weights_of("gru")
    y, h_n = jax.vmap(lambda x: fastrnn.jax.gru(x, weights))(draw(size, STEPS, rows, INPUT))
    assert y.shape == (size, STEPS, rows, HIDDEN)
    assert h_n.shape == (size, 1, rows, HIDDEN)


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_over_weights(kind):
    weights = jax.tree.map(lambda w: jnp.stack([w, -w, 2 * w, w / 2]), weights_of(kind))
    x = draw(STEPS, BATCH, INPUT)
    found, calls = calls_of(jax.vmap(lambda w: getattr(fastrnn.jax, kind)(x, w)), weights)
    assert calls == 4
    assert_trees(found, in_turn(lambda w: getattr(fastrnn.jax, kind)(x, w), weights))


@pytest.mark.parametrize("kind", KINDS)
def test_vmap_and_grad(kind):
    """Gradients of each sequence by itself, and those of all together."""
    weights = weights_of(kind)
    x = draw(4, STEPS, INPUT)

    def loss(weights, x):
        y, final = getattr(fastrnn.jax, kind)(x, weights)
        return (y**2).sum() + sum(s.sum() for s in jax.tree.leaves(final))

    each = jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=(None, 0))
    found = jax.jit(each)(weights, x)
    assert_trees(found, in_turn(lambda x: jax.grad(loss, argnums=(0, 1))(weights, x), x))
    summed = jax.jit(jax.grad(lambda w, x: jax.vmap(loss, in_axes=(None, 0))(w, x).sum()))(weights, x)
    assert_trees(summed, jax.tree.map(lambda g: g.sum(0), found[0]))
    _, pull = jax.vjp(lambda w: getattr(fastrnn.jax, kind)(x[0], w)[0], weights)
    rows = jax.jit(jax.vmap(pull))(draw(4, STEPS, HIDDEN))
    assert_trees(rows, in_turn(pull, draw(4, STEPS, HIDDEN)))


def test_vmap_of_dropout():
    """Each sequence has the masks that it would have alone."""
    weights, x = weights_of("gru", num_layers=2), draw(4, STEPS, INPUT)
    run = partial(fastrnn.jax.gru, num_layers=2, dropout=0.5)
    key = jax.random.key(0)
    same = jax.jit(jax.vmap(lambda x: run(x, weights, dropout_key=key)[0]))(x)
    assert_trees(same, in_turn(lambda x: run(x, weights, dropout_key=key)[0], x))
    keys = jax.random.split(key, 4)
    other = jax.jit(jax.vmap(lambda x, key: run(x, weights, dropout_key=key)[0]))(x, keys)
    assert_trees(other, in_turn(lambda x, key: run(x, weights, dropout_key=key)[0], x, keys))


# ------------------------------------------------------------------------------------------------------- control flow


@pytest.mark.parametrize("kind", KINDS)
def test_scan(kind):
    """A sequence in pieces, the state carried from one to the next, is the sequence; so are its gradients."""
    weights, x = weights_of(kind), draw(3 * STEPS, BATCH, INPUT)
    run = getattr(fastrnn.jax, kind)

    def in_pieces(weights, x, state):
        def step(state, piece):
            y, state = run(piece, weights, state)
            return state, y

        final, y = jax.lax.scan(step, state, x.reshape(3, STEPS, BATCH, INPUT))
        return y.reshape(3 * STEPS, BATCH, HIDDEN), final

    def loss(f, *arguments):
        y, final = f(*arguments)
        return (y**2).sum() + sum(s.sum() for s in jax.tree.leaves(final))

    state = state_of(kind, BATCH)
    whole = jax.value_and_grad(partial(loss, lambda w, x, s: run(x, w, s)), argnums=(0, 1, 2))
    pieces = jax.value_and_grad(partial(loss, in_pieces), argnums=(0, 1, 2))
    found, calls = calls_of(pieces, weights, x, state)
    assert calls == 6
    assert_trees(found, whole(weights, x, state), rtol=1e-4)


def test_checkpoint():
    weights, x = weights_of("lstm"), draw(STEPS, BATCH, INPUT)

    def loss(weights, x):
        return (fastrnn.jax.lstm(x, weights)[0] ** 2).sum()

    found, calls = calls_of(jax.grad(jax.checkpoint(loss)), weights, x)
    assert calls in (2, 3)  # the second forward pass may be found to be the first
    assert_trees(found, jax.grad(loss)(weights, x))


def test_branches():
    """Of which one runs."""
    weights, x = weights_of("rnn"), draw(STEPS, BATCH, INPUT)

    def either(x, deep):
        return jax.lax.cond(deep, lambda x: fastrnn.jax.rnn(x, weights)[0], lambda x: x[..., :1] * jnp.ones(HIDDEN), x)

    for deep, expected in ((True, 1), (False, 0)):
        _, calls = calls_of(either, x, deep)
        assert calls == expected
    step = jax.value_and_grad(lambda x, deep: (either(x, deep) ** 2).sum())
    arguments = draw(4, STEPS, BATCH, INPUT), jnp.array([True, False, True, False])
    assert_trees(jax.jit(jax.vmap(step))(*arguments), in_turn(step, *arguments))


def test_many_calls_in_one_program():
    """Layers of different kinds, one after the other and side by side, with other operations between them."""
    first, second, third = weights_of("gru"), weights_of("lstm"), weights_of("rnn")
    x = draw(STEPS, BATCH, INPUT)

    def model(x):
        a = fastrnn.jax.gru(x, first)[0][..., :INPUT]
        b = jnp.tanh(fastrnn.jax.lstm(a, second)[0])[..., :INPUT]
        return fastrnn.jax.rnn(b, third)[0] + fastrnn.jax.rnn(x, third, nonlinearity="relu")[0]

    found, calls = calls_of(jax.value_and_grad(lambda x: (model(x) ** 2).sum()), x)
    assert calls == 8
    assert_trees(found, jax.value_and_grad(lambda x: (model(x) ** 2).sum())(x))
    _, gradient = found
    direction, step = draw(*x.shape, seed=5), 1e-2
    numeric = ((model(x + step * direction) ** 2).sum() - (model(x - step * direction) ** 2).sum()) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(numeric), rel=1e-2)


def test_shapes_without_a_call():
    weights = weights_of("lstm", proj_size=2)
    before = fastrnn.native_calls()
    y, (h_n, c_n) = jax.eval_shape(lambda x: fastrnn.jax.lstm(x, weights), jax.ShapeDtypeStruct((9, 7, INPUT), "f4"))
    assert (y.shape, h_n.shape, c_n.shape) == ((9, 7, 2), (1, 7, 2), (1, 7, HIDDEN))
    assert y.dtype == c_n.dtype == jnp.float32
    assert fastrnn.native_calls() == before


@pytest.mark.parametrize("kind", KINDS)
def test_export(kind):
    """A program of a training step, kept as bytes, for any number of steps and rows."""
    weights = weights_of(kind, num_layers=2)

    def loss(weights, x, lengths):
        return (getattr(fastrnn.jax, kind)(x, weights, lengths=lengths, num_layers=2)[0] ** 2).sum()

    steps, rows = export.symbolic_shape("T, B")
    arguments = weights, jax.ShapeDtypeStruct((steps, rows, INPUT), "f4"), jax.ShapeDtypeStruct((rows,), "i4")
    checks = [export.DisabledSafetyCheck.custom_call(f"fastrnn_{way}") for way in ("forward", "backward")]
    exported = export.export(jax.jit(jax.grad(loss)), disabled_checks=checks)(*arguments)
    program = export.deserialize(exported.serialize())
    for batch in (BATCH, 1):
        x, lengths = draw(STEPS, batch, INPUT), jnp.arange(1, batch + 1, dtype=jnp.int32)
        assert_trees(program.call(weights, x, lengths), jax.grad(loss)(weights, x, lengths))


def test_donated_arguments():
    weights, x = weights_of("gru"), draw(STEPS, BATCH, HIDDEN)[..., :INPUT]
    state = state_of("gru", BATCH)
    expected = fastrnn.jax.gru(x, weights, state)
    compiled = jax.jit(lambda x, state: fastrnn.jax.gru(x, weights, state), donate_argnums=1)
    for _ in range(3):
        assert_trees(compiled(x, state + 0), expected)


def test_forward_mode_and_second_derivatives_are_refused():
    weights, x = weights_of("rnn"), draw(STEPS, BATCH, INPUT)

    def loss(x):
        return (fastrnn.jax.rnn(x, weights)[0] ** 2).sum()

    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(loss, (x,), (x,))
    with pytest.raises(ValueError, match=r"fastrnn_\w+. cannot be differentiated"):
        jax.grad(lambda x: jax.grad(loss)(x).sum())(x)


# ------------------------------------------------------------------------------------------------ devices and threads


ON_TWO_DEVICES = """
import jax
import jax.numpy as jnp
import numpy as np
import fastrnn
import fastrnn.jax

P = jax.sharding.PartitionSpec
devices = jax.devices()
mesh = jax.sharding.Mesh(np.array(devices), ("rows",))
x = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4, 4)), jnp.float32)
rows, shared = P(None, "rows"), P()

def compare(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)

for kind in ("gru", "lstm"):
    run = getattr(fastrnn.jax, kind)
    weights = jax.tree.map(jnp.asarray, dict(getattr(fastrnn, kind.upper())(4, 5, seed=0).parameters))

    def loss(weights, x):
        y, final = run(x, weights)
        return (y**2).sum() + sum(s.sum() for s in jax.tree.leaves(final))

    def summed(weights, x):
        return jax.lax.psum(loss(weights, x), "rows")

    def gradient(f):
        return jax.jit(jax.value_and_grad(f, argnums=(0, 1)))

    alone = gradient(loss)(weights, x)
    for check in (True, False):
        spread = jax.shard_map(summed, mesh=mesh, in_specs=(shared, rows), out_specs=shared, check_vma=check)
        compare(gradient(spread)(weights, x), alone)
    halves = jax.shard_map(lambda w, x: run(x, w)[0], mesh=mesh, in_specs=(shared, rows), out_specs=rows)
    y = jax.jit(halves)(weights, x)
    assert len(y.sharding.device_set) == 2
    compare(y, run(x, weights)[0])
    placed = jax.device_put(x, jax.sharding.NamedSharding(mesh, rows))
    compare(gradient(loss)(weights, placed), alone)
    copies = jax.pmap(jax.value_and_grad(loss, argnums=(0, 1)), in_axes=(None, 0))(weights, jnp.stack([x, x]))
    for k in range(2):
        compare(jax.tree.map(lambda a: a[k], copies), alone)
    print(len(devices), "devices agree on", kind)

compare(halves(weights, x), y)  # not compiled as a whole

# Where types tell how arrays are split, those of results and derivatives do.
if hasattr(jax, "set_mesh"):  # before, such types are an experiment of JAX'
    explicit = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))

    def place(tree, spec):
        return jax.device_put(tree, jax.sharding.NamedSharding(explicit, spec))

    typed, parts = place(x, rows), place(weights, shared)
    parts["weight_ih_l0"] = place(weights["weight_ih_l0"], rows)
    found = gradient(loss)(parts, typed)
    compare(found, alone)
    assert jax.tree.map(jax.typeof, found[1]) == jax.tree.map(jax.typeof, (parts, typed))
    with jax.set_mesh(explicit):
        compare(gradient(loss)(weights, typed), alone)
    in_pieces = jax.jit(lambda w, x, s: jax.lax.scan(lambda s, x: run(x, w, s)[::-1], s, x))
    zeros = place(jnp.zeros((1, 4, 5)), rows)
    final, y = in_pieces(parts, typed.reshape(2, 3, 4, 4), (zeros, zeros))
    compare((y.reshape(6, 4, 5), final), run(x, weights))
    y, final = jax.jit(lambda w, x: run(x, w, batch_first=True))(parts, place(x.swapaxes(0, 1), P("rows")))
    assert jax.typeof(y).sharding.spec == P("rows", None, None)
    assert all(jax.typeof(s).sharding.spec == P(None, "rows", None) for s in final)
    compare((y.swapaxes(0, 1), final), run(x, weights))
"""


def test_two_devices():
    """Rows dealt out to devices, by `shard_map`, `pmap` and by where arrays lie: derivatives with respect to what the
    devices share are added up."""
    program = [sys.executable, "-c", ON_TWO_DEVICES]
    settings = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, env=settings)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"2 devices agree on {kind}" for kind in ("gru", "lstm")]


def test_threads():
    """Programs that run at once share the kernels' threads, and give the same bits."""
    weights, x = weights_of("lstm"), draw(40, 16, INPUT)
    step = jax.jit(jax.value_and_grad(lambda w, x: (fastrnn.jax.lstm(x, w)[0] ** 2).sum()))
    inputs = [x * (1 + k) for k in range(4)]
    expected = [jax.tree.map(np.asarray, step(weights, x)) for x in inputs]
    wrong = []

    def work(k):
        for _ in range(20):
            found = jax.tree.map(np.asarray, step(weights, inputs[k]))
            if not all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(expected[k]))):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)

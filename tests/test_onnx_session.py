"""fastrnn.onnx.InferenceSession beside ONNX Runtime's own: the same models, results and interface."""

import contextlib
import gc
import itertools
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import helper  # noqa: E402

import fastrnn  # noqa: E402
import onnx_cases as models  # noqa: E402
from fastrnn.onnx import InferenceSession  # noqa: E402
from fastrnn.onnx._rewrite import rewrite  # noqa: E402

CPU = ["CPUExecutionProvider"]
OPERATORS = ("RNN", "LSTM", "GRU")
every_operator = pytest.mark.parametrize("operator", OPERATORS)


def stock(model, **options):
    return onnxruntime.InferenceSession(model.SerializeToString(), settings(**options), CPU)


def ours(model, **options):
    return InferenceSession(model, settings(**options), CPU)


def settings(**options):
    made = onnxruntime.SessionOptions()
    for name, value in options.items():
        setattr(made, name, value)
    return made


def assert_same(session, other, feed, calls=None):
    """The results of both, of which the first made so many calls of the kernels."""
    before = fastrnn.native_calls()
    found = session.run(None, feed)
    if calls is not None:
        assert fastrnn.native_calls() == before + calls
    before = fastrnn.native_calls()
    wanted = other.run(None, feed)
    assert fastrnn.native_calls() == before
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- models


@every_operator
def test_inputs_and_outputs_in_all_combinations(operator):
    """Absent ones, and weights that are constant or not."""
    names = models.OUTPUTS[operator]
    wanted = [list(kept) for kept in itertools.product(*[(name, "") for name in names]) if any(kept)]
    for seed, outputs in enumerate(wanted):
        for direction, lengths, fixed in (
            ("forward", False, ("W", "R", "B", "P")),
            ("reverse", True, ("W", "R", "B", "P")),
            ("bidirectional", True, ("W", "B")),
            ("bidirectional", False, ()),
        ):
            call = models.make_call(
                operator, direction=direction, lengths=lengths, initial=seed % 2 == 0, bias=seed % 3 > 0, seed=seed
            )
            while not outputs[-1]:
                outputs.pop()
            model = models.single(call, fixed, outputs)
            session = ours(model)
            assert session.replaced.swapped == {"the_node": operator}
            assert_same(session, stock(model), models.feed(call, fixed), 1)


@every_operator
def test_what_onnxruntime_does_not_compute(operator):
    """Batch first, float64 and 16-bit numbers: to the bit as the functions."""
    function = getattr(fastrnn.onnx, operator.lower())
    for layout, dtype in ((1, "float32"), (0, "float64"), (1, "float64"), (0, "float16"), (1, "float16")):
        for direction in ("forward", "reverse", "bidirectional"):
            call = models.make_call(operator, layout=layout, dtype=dtype, direction=direction, lengths=True)
            for fixed, sized in itertools.product((("W", "R", "B"), ()), (False, True)):
                found = ours(models.single(call, fixed, sized=sized)).run(None, models.feed(call, fixed))
                for a, b in zip(found, function(**call.inputs, **call.attributes), strict=True):
                    assert a.dtype == dtype
                    np.testing.assert_array_equal(a, b)


OPTIONS = {
    "RNN": {"clip": 0.7, "activations": ["LeakyRelu"], "activation_alpha": [0.3]},
    "LSTM": {"clip": 0.7, "peephole": True, "activations": ["HardSigmoid", "Softsign", "Elu"], "input_forget": 1},
    "GRU": {"clip": 0.7, "activations": ["HardSigmoid", "ScaledTanh"], "activation_alpha": [0.3, 0.8],
            "activation_beta": [0.4, 0.9]},
}  # fmt: skip


@every_operator
def test_options(operator):
    """Clipping, other activations, peepholes, coupled gates: as in ONNX Runtime, and to the bit as the functions."""
    function = getattr(fastrnn.onnx, operator.lower())
    for options in (OPTIONS[operator], {"clip": 0.5}, {"peephole": True} if operator == "LSTM" else {}):
        call = models.make_call(operator, lengths=True, **options)
        for fixed in (("W", "R", "B", "P"), ()):
            model, feed = models.single(call, fixed), models.feed(call, fixed)
            session = ours(model)
            assert session.replaced.swapped
            assert_same(session, stock(model), feed, 1)
            for a, b in zip(session.run(None, feed), function(**call.inputs, **call.attributes), strict=True):
                np.testing.assert_array_equal(a, b)


def test_bfloat16():
    """Which ONNX Runtime's Python does not take from NumPy: cast in the model."""
    call = models.make_call("LSTM", direction="bidirectional")
    model = models.single(call, ())
    casts, brain = [], onnx.TensorProto.BFLOAT16
    for name in model.graph.node[0].input:
        if name:
            casts.append(helper.make_node("Cast", [name], [f"{name}_16"], to=brain))
    model.graph.node[0].input[:] = [f"{name}_16" if name else "" for name in model.graph.node[0].input]
    model.graph.node[0].output[:] = ["Y_16"]
    casts.append(helper.make_node("Cast", ["Y_16"], ["Y"], to=onnx.TensorProto.FLOAT))
    nodes = [*casts[:-1], model.graph.node[0], casts[-1]]
    whole = models.make_model(nodes, model.graph.input, model.graph.output[:1])
    (y,) = ours(whole).run(None, call.inputs)
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    exact = fastrnn.onnx.lstm(**{name: a.astype(bfloat16) for name, a in call.inputs.items()}, **call.attributes)[0]
    np.testing.assert_array_equal(y, exact.astype(np.float32))


def test_a_tagger():
    model = models.tagger()
    session = ours(model)
    assert session.replaced.swapped == {"lstm0": "LSTM", "lstm1": "LSTM"}
    assert str(session.replaced) == "swapped lstm0: LSTM, lstm1: LSTM"
    assert_same(session, stock(model), models.tagger_feed(), 2)


@pytest.mark.parametrize("outer", [True, False])
def test_a_loop(outer):
    model = models.stream(outer=outer)
    assert_same(ours(model), stock(model), models.stream_feed(T=6), 6)


def test_weights_go_where_they_are_used():
    """ONNX Runtime shows a kernel only constants of its own graph; weights of the graphs around would be packed again
    in each step. An own copy each, and none that nobody uses; overridable ones stay."""
    model, _ = rewrite(models.stream(), 0)
    (body,) = (a.g for node in model.graph.node for a in node.attribute if a.name == "body")
    names = [tensor.name for tensor in body.initializer]
    assert len(names) == len(set(names)) == 3
    (step,) = (node for node in body.node if node.op_type == "GRU")
    assert set(names) <= set(step.input)
    assert {tensor.name for tensor in model.graph.initializer} == {"first", "axis"}
    model = models.stream()
    model.graph.input.append(models.describe("W", np.zeros((1, 48, 8), np.float32)))
    model, _ = rewrite(model, 0)
    assert {tensor.name for tensor in model.graph.initializer} == {"first", "axis", "W"}


@every_operator
def test_weights_of_a_body_hide_those_around_it(operator):
    """Names are looked up from the inside."""
    call = models.make_call(operator, initial=False)
    model = models.scan(call)
    for name, array in call.inputs.items():
        if name != "X":
            model.graph.initializer.append(onnx.numpy_helper.from_array(-array, name))
    sequences = np.random.default_rng(0).normal(size=(4, 5, 4)).astype(np.float32)
    assert_same(ours(model), stock(model), {"sequences": sequences}, 4)


def with_constant_nodes(model):
    """In place of initializers."""
    nodes = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in model.graph.initializer]
    nodes += model.graph.node
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize("version", [3, 4])
def test_constants_around_a_loop(version):
    """They become initializers of the body, but not in version 3 of the format, where those have to be inputs too."""
    model = with_constant_nodes(models.stream())
    model.ir_version = version
    assert_same(ours(model), stock(model), models.stream_feed(T=6), 6)
    rewritten, _ = rewrite(model, 0)
    left = {node.output[0] for node in rewritten.graph.node if node.op_type == "Constant"}
    assert left == ({"first", "axis", "W", "R", "B"} if version == 3 else {"first", "axis"})


@every_operator
def test_an_if(operator):
    call = models.make_call(operator, direction="bidirectional")
    model = models.branches(call)
    session = ours(model)
    assert session.replaced.swapped == {"yes": operator, "no": operator}
    for positive in (True, False):
        assert_same(session, stock(model), models.feed(call) | {"positive": np.array(positive)}, 1)


@every_operator
def test_a_scan(operator):
    call = models.make_call(operator, initial=False)
    model = models.scan(call)
    sequences = np.random.default_rng(0).normal(size=(4, 5, 4)).astype(np.float32)
    assert_same(ours(model), stock(model), {"sequences": sequences}, 4)


@every_operator
def test_a_function(operator):
    call = models.make_call(operator, direction="reverse")
    for attributes in ({}, {"hidden_size": 6}, {"direction": "reverse"}):
        model = models.in_function(call, **attributes)
        session = ours(model)
        assert list(session.replaced.swapped.values()) == [operator]
        assert_same(session, stock(model), models.feed(call), 1)


def test_defaults_of_functions():
    """Attributes that a call leaves out; where it hands one on that its own function may lack, nothing is swapped."""
    call = models.make_call("GRU", direction="reverse")
    model = models.in_function(call, hidden_size=6, direction="reverse")
    model.ir_version = 9
    (layer,), (outer,) = model.functions, model.graph.node
    layer.attribute_proto.extend(outer.attribute)
    del layer.attribute[:], outer.attribute[:]
    assert_same(ours(model), stock(model), models.feed(call), 1)
    outer.attribute.append(helper.make_attribute("direction", "forward"))
    assert_same(ours(model), stock(model), models.feed(call), 1)
    del outer.attribute[:]
    handing = helper.make_node("Layer", list(layer.input), list(layer.output), "inner", domain="own")
    handing.attribute.append(
        onnx.AttributeProto(name="direction", type=onnx.AttributeProto.STRING, ref_attr_name="where")
    )
    around = helper.make_function("own", "Around", layer.input, layer.output, [handing], model.opset_import, ["where"])
    model.functions.append(around)
    outer.op_type = "Around"
    with pytest.warns(UserWarning, match="the_node: it is in the function Layer"):
        session = ours(model)
    assert session.replaced.left == {"the_node": "it is in the function Layer"}
    assert_same(session, stock(model), models.feed(call), 0)
    around.attribute_proto.append(helper.make_attribute("where", "reverse"))
    del around.attribute[:]
    model.functions[1].CopyFrom(around)
    assert_same(ours(model), stock(model), models.feed(call), 1)


def test_other_opsets():
    for opset in (7, 13, 14, 22):
        call = models.make_call("LSTM", layout=None if opset < 14 else 0)
        model = models.single(call, opset=opset)
        session = ours(model)
        assert session.replaced.swapped
        assert_same(session, stock(model), models.feed(call), 1)


def negation():
    x, y = (models.describe(name, np.zeros(3, np.float32)) for name in "xy")
    return models.make_model([helper.make_node("Neg", ["x"], ["y"])], [x], [y])


def test_a_model_without_recurrent_nodes():
    session = ours(negation())
    assert str(session.replaced) == "swapped nothing"
    assert session.run(None, {"x": np.float32([1, 2])})[0].tolist() == [-1, -2]


# ----------------------------------------------------------------------------------------------------- ways to give it


def test_paths_and_bytes(tmp_path):
    model = models.tagger()
    before = model.SerializeToString()
    path = tmp_path / "modèle.onnx"
    onnx.save(model, path)
    for given in (model, before, path, str(path)):
        session = InferenceSession(given, providers=CPU)
        assert len(session.replaced.swapped) == 2
        assert_same(session, stock(model), models.tagger_feed(), 2)
    assert model.SerializeToString() == before == path.read_bytes()


def test_external_data(tmp_path, monkeypatch):
    """Found beside the model, wherever the program runs; weights of a node and of others, in bodies too."""
    monkeypatch.chdir(tmp_path)
    options = settings()
    for name, model, feed, calls in (
        ("tagger", models.tagger(), models.tagger_feed(), 2),
        ("stream", models.stream(), models.stream_feed(T=3), 3),
    ):
        folder = tmp_path / name
        folder.mkdir()
        kept = onnx.ModelProto()
        kept.CopyFrom(model)
        onnx.save(kept, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
        assert (folder / "weights.bin").exists()
        for path in (folder / "model.onnx", f"{name}/model.onnx"):
            session = InferenceSession(path, options, CPU)
            assert session.replaced.swapped
            assert_same(session, stock(model), feed, calls)
            session.set_providers(CPU)
            assert_same(session, stock(model), feed, calls)
        plain = models.tagger()  # the options say nothing of the folder any more
        assert_same(InferenceSession(plain, options, CPU), stock(plain), models.tagger_feed(), 2)
        (folder / "weights.bin").unlink()
        with pytest.raises(Exception, match=r"weights\.bin"):
            InferenceSession(folder / "model.onnx", options, CPU)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_makes_sessions_though_another_thread_was_making_one(tmp_path, monkeypatch):
    model, path = models.tagger(), tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    options = settings()
    making, go_on = threading.Event(), threading.Event()
    make = onnxruntime.InferenceSession.__init__

    def slowly(*arguments, **keywords):
        making.set()
        assert go_on.wait(60)
        make(*arguments, **keywords)

    thread = threading.Thread(target=lambda: InferenceSession(path, options, CPU))
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime.InferenceSession, "__init__", slowly)
        thread.start()
        assert making.wait(60)
    other = InferenceSession(path, settings(), CPU)  # which waits for nobody
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(60)  # its end, where it hangs
            for own in (options, settings()):
                InferenceSession(path, own, CPU)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    go_on.set()
    thread.join()
    assert status == 0
    assert_same(other, stock(models.tagger()), models.tagger_feed(), 2)


def test_external_data_of_constant_nodes(tmp_path):
    model = with_constant_nodes(models.tagger())
    plain = stock(model)
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", convert_attribute=True)
    assert_same(InferenceSession(path, providers=CPU), plain, models.tagger_feed(), 2)


def linked(folder, model, threshold):
    """The path of a model that is a link, as is its data: the files lie elsewhere, side by side, under other names."""
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=threshold)
    files, links = folder / "files", folder / "links"
    for made in (files, links):
        made.mkdir()
    for number, name in enumerate(("model.onnx", "w.bin")):
        (folder / name).rename(files / str(number))
        (links / name).symlink_to(files / str(number))
    return links / "model.onnx"


@pytest.mark.parametrize("threshold", [0, 400])
def test_links_to_a_model_and_its_data(tmp_path, threshold):
    """As a cache of downloads has them."""
    model = models.tagger()
    plain = stock(model)
    session = InferenceSession(linked(tmp_path, model, threshold), providers=CPU)
    assert_same(session, plain, models.tagger_feed(), 2)


def test_links_out_of_the_folders(tmp_path):
    """To data anywhere are followed as ONNX Runtime does: not by newer versions."""
    path = linked(tmp_path, models.tagger(), 400)
    (tmp_path / "files/1").rename(tmp_path / "elsewhere")
    path.with_name("w.bin").unlink()
    path.with_name("w.bin").symlink_to(tmp_path / "elsewhere")
    said = []
    for session in (InferenceSession, onnxruntime.InferenceSession):
        try:
            session(path, providers=CPU)
        except Exception as error:
            said.append("w.bin" in str(error))
        else:
            said.append(None)
    assert said in ([None, None], [True, True])


def test_options_can_be_used_again():
    options = settings(intra_op_num_threads=1)
    call = models.make_call("GRU")
    model = models.single(call)
    for _ in range(3):
        assert_same(InferenceSession(model, options, CPU), stock(model), models.feed(call), 1)


def test_a_saved_model_runs_again(tmp_path):
    """What ONNX Runtime saves after it has optimised a model has fastrnn's operators."""
    path = str(tmp_path / "optimised.onnx")
    model = models.tagger()
    ours(model, optimized_model_filepath=path)
    assert_same(InferenceSession(path, providers=CPU), stock(model), models.tagger_feed(), 2)


# ------------------------------------------------------------------------------------------------------- the interface


def test_the_interface():
    model = models.tagger()
    session, other = ours(model), stock(model)
    assert isinstance(session, onnxruntime.InferenceSession)
    for of in ("get_inputs", "get_outputs"):
        for a, b in zip(getattr(session, of)(), getattr(other, of)(), strict=True):
            assert (a.name, a.type, a.shape) == (b.name, b.type, b.shape)
    assert session.get_providers() == CPU
    feed = models.tagger_feed()
    (scores,) = session.run(["scores"], feed)
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("scores")
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], scores)


@every_operator
def test_shapes_are_inferred(operator):
    """Of outputs that the model does not describe: as ONNX Runtime's own operators do."""
    for direction in ("forward", "bidirectional"):
        call = models.make_call(operator, direction=direction)
        model = models.single(call)
        for described, shape in zip(model.graph.input, (("T", 3, 4), (1, None, 6)), strict=False):
            for dim, size in zip(described.type.tensor_type.shape.dim, shape, strict=True):
                if isinstance(size, str):
                    dim.dim_param = size
                elif size is not None:
                    dim.dim_value = size
        for described in model.graph.output:
            described.type.tensor_type.ClearField("shape")
        session, other = ours(model), stock(model)
        shapes = [output.shape for output in session.get_outputs()]
        assert shapes == [output.shape for output in other.get_outputs()]
        assert shapes[0] == ["T", len(call.inputs["W"]), 3, 6]


def test_threads():
    """The kernels use no more than the session may, nor than fastrnn's own setting."""
    model = models.tagger(H=64)
    feed = models.tagger_feed(T=20, N=8)
    wanted = ours(model, intra_op_num_threads=1).run(None, feed)
    for threads in (0, 2, 3):
        fastrnn.set_num_threads(2)
        np.testing.assert_array_equal(ours(model, intra_op_num_threads=threads).run(None, feed), wanted)


@pytest.mark.parametrize("version", ["1.31.1", "1.26.0", "1.22.1"])
def test_idle_threads_do_not_spin_for_long(version, monkeypatch):
    """On the cores that the kernels need; the caller's own setting stays, and models without recurrent nodes theirs."""
    monkeypatch.setattr(onnxruntime, "__version__", version)
    spinning, duration = "session.intra_op.allow_spinning", "session.intra_op.spin_duration_us"

    def entries(options):
        found = {}
        for name in (spinning, duration):
            with contextlib.suppress(RuntimeError):  # it is not set
                found[name] = options.get_session_config_entry(name)
        return found

    options = settings()
    InferenceSession(negation(), options, CPU)
    assert not entries(options)
    InferenceSession(models.tagger(), options, CPU)
    assert entries(options) == ({spinning: "0"} if version == "1.22.1" else {duration: "30"})
    for name in (spinning, duration):
        options = settings()
        options.add_session_config_entry(name, "1")
        InferenceSession(models.tagger(), options, CPU)
        assert entries(options) == {name: "1"}


def test_many_threads_at_once():
    """One session in several threads, while others are made on the same options and thrown away."""
    model, options = models.tagger(), settings(intra_op_num_threads=1)
    session = InferenceSession(model, options, CPU)
    feeds = [models.tagger_feed(T=5 + k, seed=k) for k in range(6)]
    wanted = [session.run(None, feed)[0] for feed in feeds]
    failures = []

    def work(k):
        try:
            for turn in range(20):
                feed = (k + turn) % len(feeds)
                np.testing.assert_array_equal(session.run(None, feeds[feed])[0], wanted[feed])
                if turn % 7 == k:
                    np.testing.assert_array_equal(
                        InferenceSession(model, options, CPU).run(None, feeds[feed])[0], wanted[feed]
                    )
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_sessions_give_their_memory_back():
    model = models.tagger(H=128)  # 1.6 MB of weights
    feed = models.tagger_feed()

    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    if sys.platform != "linux":
        pytest.skip("needs /proc")
    for _ in range(5):
        ours(model, intra_op_num_threads=1).run(None, feed)
    gc.collect()
    before = resident()
    for _ in range(40):
        ours(model, intra_op_num_threads=1).run(None, feed)
    gc.collect()
    assert resident() - before < 30e6  # kept weights alone would be 64e6


# ------------------------------------------------------------------------------------------------------------- refusals


def test_a_function_of_another_opset():
    """ONNX does not inline it: ONNX Runtime runs it, and the session says so."""
    call = models.make_call("GRU")
    model = models.in_function(call)
    model.functions[0].opset_import[0].version = 13
    model.functions[0].node[0].attribute.remove(
        next(a for a in model.functions[0].node[0].attribute if a.name == "layout")
    )
    with pytest.warns(UserWarning, match="ONNX Runtime runs these nodes itself: the_node: it is in the function Layer"):
        session = ours(model)
    assert session.replaced.left == {"the_node": "it is in the function Layer"}
    assert_same(session, stock(model), models.feed(call), 0)


def test_what_stays_with_onnxruntime():
    """And why."""
    call = models.make_call("GRU", layout=None)
    model = models.single(call)
    model.graph.node[0].attribute.append(helper.make_attribute("activation_alpha", [1.0]))
    model.graph.node[0].attribute.append(helper.make_attribute("activations", ["Affine", "Tanh"]))
    with pytest.warns(UserWarning, match="the_node: activations") as caught:
        session = ours(model)
    assert [warning.filename for warning in caught] == [__file__]
    assert not session.replaced.swapped
    assert "Affine needs an activation_alpha" in session.replaced.left["the_node"]
    assert str(session.replaced).startswith("swapped nothing; left to ONNX Runtime the_node: activations")
    assert_same(session, stock(model), models.feed(call), 0)


def test_an_opset_before_the_present_operators():
    call = models.make_call("LSTM", layout=None)
    model, replaced = rewrite(models.single(call, opset=6), 0)
    assert replaced.left == {"the_node": "it is of opset 6, before 7"}
    assert not replaced.swapped
    assert model.graph.node[0].domain == ""


def refusal(session, model):
    """The error's type and message."""
    try:
        session(model, providers=CPU)
    except Exception as error:
        return type(error), str(error)
    pytest.fail(f"{model!r} is no model")


def test_wrong_models(tmp_path):
    for bad in (None, 3, ["model"]):
        with pytest.raises(TypeError, match=r"path_or_bytes must be a path, bytes or an onnx\.ModelProto"):
            InferenceSession(bad)
    with pytest.raises(TypeError, match=r"sess_options must be an onnxruntime\.SessionOptions"):
        InferenceSession(models.tagger(), CPU)
    with pytest.raises(ValueError, match="ONNX Runtime's own format"):
        InferenceSession(b"\x00\x00\x00\x00ORTM" + bytes(100))
    for bad in (b"", b"no model", tmp_path / "missing.onnx", str(tmp_path)):
        assert refusal(InferenceSession, bad) == refusal(onnxruntime.InferenceSession, bad)


def test_wrong_tensors():
    """Each with a message that names it; the session goes on."""
    call = models.make_call("LSTM", lengths=True)
    session = ours(models.single(call, ()))
    wrong = {
        "X": np.zeros((5, 3, 9), np.float32),
        "W": np.zeros((1, 24, 5), np.float32),
        "R": np.zeros((2, 24, 6), np.float32),
        "B": np.zeros((1, 24), np.float32),
        "initial_h": np.zeros((1, 4, 6), np.float32),
        "initial_c": np.zeros((1, 3, 5), np.float32),
        "sequence_lens": np.array([1, 2, 6], np.int32),
    }
    for name, array in wrong.items():
        with pytest.raises(Exception, match=rf"{'X' if name == 'W' else name}: expected"):
            session.run(None, call.inputs | {name: array})
    with pytest.raises(Exception, match=r"sequence_lens: expected values in 0 ... 5, got -1 at index 1"):
        session.run(None, call.inputs | {"sequence_lens": np.array([1, -1, 2], np.int32)})
    assert_same(session, stock(models.single(call, ())), call.inputs, 1)
    bad = models.make_call("LSTM")
    bad.inputs["W"] = np.zeros((1, 23, 4), np.float32)
    with pytest.raises(Exception, match=r"W: expected shape \(1, 24, 4\), got \(1, 23, 4\)"):
        ours(models.single(bad))


@every_operator
def test_tensors_of_no_elements(operator):
    """Which ONNX Runtime may give without memory."""
    call = models.make_call(operator, peephole=operator == "LSTM")
    session = ours(models.single(call, ()))
    for name, array in call.inputs.items():
        for axis in range(array.ndim):
            empty = np.zeros([0 if k == axis else size for k, size in enumerate(array.shape)], np.float32)
            if name == "X" and axis == 0:
                assert session.run(None, call.inputs | {name: empty})[0].shape == (0, 1, 3, 6)
            else:
                with pytest.raises(Exception, match=r": expected"):
                    session.run(None, call.inputs | {name: empty})
    assert_same(session, stock(models.single(call, ())), call.inputs, 1)


def test_nodes_that_share_a_name():
    """As those of two bodies may."""
    model = models.branches(models.make_call("GRU"))
    for attribute in model.graph.node[0].attribute:
        attribute.g.node[-1].name = "same"
    assert list(ours(model).replaced.swapped) == ["same", "same (yes_Y)"]


def test_forged_nodes():
    """Of our own operators, with attributes that no rewriting gives."""
    call = models.make_call("GRU", hidden_size=None)
    model, _ = rewrite(models.single(call), 0)
    assert_same(ours(model), stock(models.single(models.make_call("GRU"))), models.feed(call), 1)
    for name, value, message in (
        ("cell", "lstm", "cell: expected a name that begins with gru"),
        ("cell", "", "cell: expected a name"),
        ("hidden_size", -6, "R: expected a hidden size of at least 1"),
        ("hidden_size", 2**62, "R: expected a hidden size of 4611686018427387904"),
        ("bidirectional", 1, r"W: expected shape \(2"),
        ("present", 0, "W: expected 3 axes"),
        ("options", 1, "clip"),
    ):
        forged = onnx.ModelProto()
        forged.CopyFrom(model)
        (attribute,) = (a for a in forged.graph.node[0].attribute if a.name == name)
        attribute.CopyFrom(helper.make_attribute(name, value))
        with pytest.raises(Exception, match=message):
            ours(forged).run(None, models.feed(call))
    for name in {a.name for a in model.graph.node[0].attribute} - {"outputs"}:  # which is for inferring shapes alone
        forged = onnx.ModelProto()
        forged.CopyFrom(model)
        kept = [a for a in forged.graph.node[0].attribute if a.name != name]
        del forged.graph.node[0].attribute[:]
        forged.graph.node[0].attribute.extend(kept)
        with pytest.raises(Exception, match=name):
            ours(forged)

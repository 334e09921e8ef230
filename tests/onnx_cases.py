"""ONNX' recurrent operators: calls with all that they can have, their equations in NumPy, and models around them."""

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = {"RNN": ("Y", "Y_h"), "LSTM": ("Y", "Y_h", "Y_c"), "GRU": ("Y", "Y_h")}
GATES = {"RNN": 1, "LSTM": 4, "GRU": 3}
FUNCTIONS = {"RNN": ("Tanh",), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}
OPSET, IR = 14, 8  # the operators are the same since; layout came with it


@dataclass
class Call:
    """Arguments of an operator."""

    operator: str
    inputs: dict  # name -> array, without those that are absent
    attributes: dict = field(default_factory=dict)

    @property
    def outputs(self):
        return OUTPUTS[self.operator]


def make_call(
    operator,
    *,
    T=5,
    N=3,
    width=4,
    H=6,
    dtype="float32",
    seed=0,
    direction="forward",
    layout=0,
    bias=True,
    lengths=False,
    initial=True,
    peephole=False,
    scale=1.0,
    **attributes,
):
    """Random tensors for an operator. `lengths`: with a 0 and a T, if there are rows enough."""
    rng = np.random.default_rng(seed)
    D, G = 1 + (direction == "bidirectional"), GATES[operator]

    def draw(*shape):
        return (scale * rng.normal(size=shape)).astype(dtype)

    inputs = {"X": draw(T, N, width), "W": draw(D, G * H, width), "R": draw(D, G * H, H) / np.sqrt(H).astype(dtype)}
    if bias:
        inputs["B"] = draw(D, 2 * G * H)
    if lengths:
        inputs["sequence_lens"] = rng.permutation([T, 0, *rng.integers(T + 1, size=N)][:N]).astype(np.int32)
    if initial:
        inputs["initial_h"] = draw(D, N, H)
    if operator == "LSTM" and initial:
        inputs["initial_c"] = draw(D, N, H)
    if operator == "LSTM" and peephole:
        inputs["P"] = draw(D, 3 * H)
    if layout:
        inputs |= {
            name: np.ascontiguousarray(inputs[name].swapaxes(0, 1))
            for name in ("X", "initial_h", "initial_c")
            if name in inputs
        }
    chosen = {"direction": direction, "layout": layout, "hidden_size": H} | attributes
    return Call(operator, inputs, {name: value for name, value in chosen.items() if value is not None})


# -------------------------------------------------------------------------------------------------------- the equations


ACTIVATIONS = {  # by ONNX' names in lower case: function, defaults of alpha and beta
    "affine": (lambda a, alpha, beta: alpha * a + beta, (None, None)),
    "elu": (lambda a, alpha: np.where(a >= 0, a, alpha * np.expm1(np.minimum(a, 0))), (1.0,)),
    "hardsigmoid": (lambda a, alpha, beta: np.clip(alpha * a + beta, 0, 1), (0.2, 0.5)),
    "leakyrelu": (lambda a, alpha: np.where(a >= 0, a, alpha * a), (0.01,)),
    "relu": (lambda a: np.maximum(a, 0), ()),
    "scaledtanh": (lambda a, alpha, beta: alpha * np.tanh(beta * a), (None, None)),
    "sigmoid": (lambda a: 1 / (1 + np.exp(-a)), ()),
    "softplus": (lambda a: np.logaddexp(0, a), ()),
    "softsign": (lambda a: a / (1 + np.abs(a)), ()),
    "tanh": (np.tanh, ()),
    "thresholdedrelu": (lambda a, alpha: np.where(a > alpha, a, 0), (1.0,)),
}


def activations(call, directions):
    """The functions of each direction."""
    names = call.attributes.get("activations") or FUNCTIONS[call.operator] * directions
    alphas, betas = (iter(call.attributes.get(f"activation_{name}") or ()) for name in ("alpha", "beta"))
    made = []
    for name in names:
        function, defaults = ACTIVATIONS[name.lower()]
        arguments = [next(given, default) for given, default in zip((alphas, betas), defaults, strict=False)]
        made.append(lambda a, function=function, arguments=arguments: function(a, *arguments))
    each = len(FUNCTIONS[call.operator])
    return [made[d * each : (d + 1) * each] for d in range(directions)]


def step(call, functions, d, x, h, c):
    """One time step of one row: the specification's equations, with ONNX Runtime's reading of `clip`."""
    bound = call.attributes.get("clip") or np.inf
    weights = {name: call.inputs[name][d].astype(np.float64) for name in ("W", "R", "B", "P") if name in call.inputs}
    W, R = weights["W"], weights["R"]
    H, G = R.shape[1], GATES[call.operator]
    Wb, Rb = np.split(weights.get("B", np.zeros(2 * G * H)), 2)

    def clipped(a):
        return np.clip(a, -bound, bound)

    if call.operator == "RNN":
        (f,) = functions
        return f(clipped(W @ x + R @ h + Wb + Rb)), c
    if call.operator == "GRU":
        f, g = functions
        (Wz, Wr, Wh), (Rz, Rr, Rh) = np.split(W, 3), np.split(R, 3)
        (bz, br, bh), (cz, cr, ch) = np.split(Wb, 3), np.split(Rb, 3)
        z = f(clipped(Wz @ x + Rz @ h + bz + cz))
        r = f(clipped(Wr @ x + Rr @ h + br + cr))
        if call.attributes.get("linear_before_reset"):
            n = g(clipped(Wh @ x + r * (Rh @ h + ch) + bh))
        else:
            n = g(clipped(Wh @ x + Rh @ (r * h) + ch + bh))
        return (1 - z) * n + z * h, c
    f, g, out = functions
    i, o, forget, n = np.split(W @ x + R @ h + Wb + Rb, 4)
    pi, po, pf = np.split(weights.get("P", np.zeros(3 * H)), 3)
    i = f(clipped(i + pi * c))
    forget = 1 - i if call.attributes.get("input_forget") else f(clipped(forget + pf * c))
    c = forget * c + i * g(clipped(n))
    return f(clipped(o + po * c)) * out(c), c


def expected(call):
    """The outputs in float64, by name."""
    layout, direction = call.attributes.get("layout", 0), call.attributes.get("direction", "forward")
    states = {name: call.inputs.get(name) for name in ("initial_h", "initial_c")}
    x = call.inputs["X"].astype(np.float64)
    if layout:
        x = x.swapaxes(0, 1)
        states = {name: None if array is None else array.swapaxes(0, 1) for name, array in states.items()}
    T, N, _ = x.shape
    D, _, H = call.inputs["R"].shape
    lengths = call.inputs.get("sequence_lens", np.full(N, T))
    y, h_n, c_n = np.zeros((T, D, N, H)), np.zeros((D, N, H)), np.zeros((D, N, H))
    for d, functions in enumerate(activations(call, D)):
        for n in range(N):
            h, c = (np.zeros(H) if s is None else s[d, n].astype(np.float64) for s in states.values())
            times = range(lengths[n])
            for t in reversed(times) if d or direction == "reverse" else times:
                h, c = step(call, functions, d, x[t, n], h, c)
                y[t, d, n] = h
            if lengths[n]:
                h_n[d, n], c_n[d, n] = h, c
    if layout:
        y, h_n, c_n = y.transpose(2, 0, 1, 3), h_n.swapaxes(0, 1), c_n.swapaxes(0, 1)
    return dict(zip(call.outputs, (y, h_n, c_n), strict=False))


# --------------------------------------------------------------------------------------------------------------- models


def describe(name, array, sized=False):
    """A tensor of the array's type; sizes of axes are left open where not `sized`."""
    dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, dtype, array.shape if sized else [None] * array.ndim)


def node(call, outputs=None, name="the_node", **names):
    """The node, whose tensors have the operator's own names or those given."""
    inputs = [names.get(each, each) if each in call.inputs else "" for each in INPUTS]
    while not inputs[-1]:
        inputs.pop()
    return helper.make_node(
        call.operator, inputs, call.outputs if outputs is None else outputs, name, **call.attributes
    )


def constants(call, names=("W", "R", "B", "P")):
    return [onnx.numpy_helper.from_array(call.inputs[name], name) for name in names if name in call.inputs]


def feed(call, fixed=("W", "R", "B", "P")):
    return {name: array for name, array in call.inputs.items() if name not in fixed}


def make_model(nodes, inputs, outputs, initializers=(), opset=OPSET, functions=(), imports=()):
    """`inputs` and `outputs`: what describes them."""
    graph = helper.make_graph(nodes, "graph", list(inputs), list(outputs), list(initializers))
    opsets = [helper.make_opsetid("", opset), *imports]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR, functions=list(functions))


def single(call, fixed=("W", "R", "B", "P"), outputs=None, opset=OPSET, sized=False):
    """A model of the one node, with `fixed` tensors as initializers, and inputs whose sizes are known or not."""
    dtype = helper.np_dtype_to_tensor_dtype(call.inputs["X"].dtype)
    outputs = call.outputs if outputs is None else outputs
    ranks = dict(zip(OUTPUTS["LSTM"], (4, 3, 3), strict=True))
    return make_model(
        [node(call, outputs)],
        [describe(name, array, sized) for name, array in feed(call, fixed).items()],
        [helper.make_tensor_value_info(name, dtype, [None] * ranks[name]) for name in outputs if name],
        constants(call, fixed),
        opset,
    )


def _tensors(**arrays):
    return [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def _value(name, shape, dtype=np.float32):
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)


def tagger(words=50, E=8, H=16, layers=2, labels=5, seed=0):
    """Token numbers (T, N) and lengths: embedding, bidirectional LSTMs, a dense layer."""
    rng = np.random.default_rng(seed)
    weights = {"table": rng.normal(size=(words, E)).astype(np.float32)}
    nodes = [helper.make_node("Gather", ["table", "tokens"], ["x0"])]
    for k in range(layers):
        call = make_call("LSTM", width=2 * H if k else E, H=H, direction="bidirectional", seed=seed + k, scale=0.5)
        weights |= {f"{name}{k}": call.inputs[name] for name in "WRB"}
        inputs = [f"x{k}", f"W{k}", f"R{k}", f"B{k}", "lengths"]
        nodes += [
            helper.make_node("LSTM", inputs, [f"Y{k}"], f"lstm{k}", hidden_size=H, direction="bidirectional"),
            helper.make_node("Transpose", [f"Y{k}"], [f"turned{k}"], perm=[0, 2, 1, 3]),
            helper.make_node("Reshape", [f"turned{k}", "side_by_side"], [f"x{k + 1}"]),
        ]
    weights |= {"side_by_side": np.array([0, 0, -1]), "dense": rng.normal(size=(2 * H, labels)).astype(np.float32)}
    nodes.append(helper.make_node("MatMul", [f"x{layers}", "dense"], ["scores"]))
    inputs = [_value("tokens", ["T", "N"], np.int64), _value("lengths", ["N"], np.int32)]
    return make_model(nodes, inputs, [_value("scores", ["T", "N", labels])], _tensors(**weights))


def tagger_feed(T=7, N=3, words=50, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(words, size=(T, N))
    return {"tokens": tokens, "lengths": rng.permutation([T, *rng.integers(1, T + 1, size=N - 1)]).astype(np.int32)}


def stream(width=8, H=16, seed=0, outer=True):
    """x (T, N, I) and h0 (1, N, H) through a GRU, step by step in a Loop; its weights are the graph's or the body's."""
    call = make_call("GRU", width=width, H=H, seed=seed, linear_before_reset=1, scale=0.5)
    attributes = {"hidden_size": H, "linear_before_reset": 1}
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["running"], ["still"]),
            helper.make_node("Unsqueeze", ["t", "axis"], ["which"]),
            helper.make_node("Gather", ["x", "which"], ["x_t"], axis=0),
            helper.make_node("GRU", ["x_t", "W", "R", "B", "", "h"], ["", "h_next"], "step", **attributes),
            helper.make_node("Squeeze", ["h_next", "axis"], ["y_t"]),
        ],
        "body",
        [_value("t", [], np.int64), _value("running", [], bool), _value("h", [1, "N", H])],
        [_value("still", [], bool), _value("h_next", [1, "N", H]), _value("y_t", ["N", H])],
        [] if outer else constants(call),
    )  # fmt: skip
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["T"]),
        helper.make_node("Loop", ["T", "", "h0"], ["h_n", "y"], body=body),
    ]
    initializers = _tensors(first=np.array(0), axis=np.array([0])) + (constants(call) if outer else [])
    inputs = [_value("x", ["T", "N", width]), _value("h0", [1, "N", H])]
    return make_model(nodes, inputs, [_value("y", ["T", "N", H]), _value("h_n", [1, "N", H])], initializers)


def stream_feed(T=6, N=2, width=8, H=16, seed=0):
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(T, N, width)).astype(np.float32), "h0": rng.normal(size=(1, N, H)).astype(np.float32)}


def branches(call):
    """An If whose branches run the operator on X, and on -X."""

    def branch(name, first):
        nodes = [helper.make_node(first, ["X"], [f"{name}_X"]), node(call, [f"{name}_Y"], name, X=f"{name}_X")]
        return helper.make_graph(nodes, name, [], [_value(f"{name}_Y", [None] * 4)])

    choice = helper.make_node(
        "If", ["positive"], ["Y"], then_branch=branch("yes", "Identity"), else_branch=branch("no", "Neg")
    )
    inputs = [_value("positive", [], bool), *(describe(name, array) for name, array in feed(call).items())]
    return make_model([choice], inputs, [_value("Y", [None] * 4)], constants(call))


def scan(call):
    """A Scan over sequences (S, T, I), each on its own through the operator."""
    body = helper.make_graph(
        [
            helper.make_node("Unsqueeze", ["sequence", "axis"], ["X"]),
            node(call, ["Y"]),
            helper.make_node("Squeeze", ["Y"], ["y"]),
        ],
        "body",
        [_value("sequence", [None, None])],
        [_value("y", [None, None])],
        [*constants(call), *_tensors(axis=np.array([1]))],
    )
    nodes = [helper.make_node("Scan", ["sequences"], ["ys"], body=body, num_scan_inputs=1)]
    return make_model(nodes, [_value("sequences", [None] * 3)], [_value("ys", [None] * 3)])


def in_function(call, **attributes):
    """The operator in a function of the model's own; attributes are those of the function."""
    inner = node(call)
    for name in attributes:
        (attribute,) = (a for a in inner.attribute if a.name == name)
        attribute.CopyFrom(onnx.AttributeProto(name=name, type=attribute.type, ref_attr_name=name))
    inputs = [name for name in inner.input if name]
    opsets = [helper.make_opsetid("", OPSET)]
    function = helper.make_function("own", "Layer", inputs, list(call.outputs), [inner], opsets, list(attributes))
    outer = helper.make_node("Layer", inputs, list(call.outputs), "outer", domain="own", **attributes)
    return make_model(
        [outer],
        [describe(name, array) for name, array in feed(call).items()],
        [_value(name, [None] * rank) for name, rank in zip(call.outputs, (4, 3, 3), strict=False)],
        constants(call),
        functions=[function],
        imports=[helper.make_opsetid("own", 1)],
    )

"""The classes of `fastrnn.torch` beside those of `torch.nn`, with the same weights."""

import copy
from dataclasses import dataclass

import pytest

torch = pytest.importorskip("torch")

import fastrnn  # noqa: E402
import fastrnn.torch  # noqa: E402
from cases import covering  # noqa: E402
from conftest import TOLERANCES, relative_error  # noqa: E402

KINDS = ("RNN", "LSTM", "GRU")
OURS = {name: getattr(fastrnn.torch, name) for name in KINDS}
STOCK = {name: getattr(torch.nn, name) for name in KINDS}
EXTRAS = {"RNN": {"nonlinearity": "sigmoid"}, "GRU": {"reset_after": False}}  # what torch.nn does not have


def as_tuple(state):
    return tuple(state) if isinstance(state, (tuple, list)) else (state,)


def as_state(arrays):
    return arrays[0] if len(arrays) == 1 else tuple(arrays)


def flat(result):
    """(output, h_n) or (output, (h_n, c_n)) as one tuple."""
    return result[0], *as_tuple(result[1])


def failure(call, *arguments, **options):
    """The type and the message of the error that a call raises."""
    with pytest.raises(Exception) as error:  # noqa: PT011
        call(*arguments, **options)
    return type(error.value), str(error.value)


def twins(kind, *sizes, dtype=torch.float32, seed=0, **options):
    """torch.nn's module and ours with its weights."""
    torch.manual_seed(seed)
    stock = STOCK[kind](*sizes, dtype=dtype, **options)
    ours = OURS[kind](*sizes, dtype=dtype, **options)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def in_float64(module):
    """A copy, to be the exact one."""
    return copy.deepcopy(module).double()


@dataclass(frozen=True)
class Case:
    """A module and the shape of a call."""

    kind: str
    inputs: int
    hidden: int
    layers: int
    steps: int
    batch: int | None  # None: one sequence
    dtype: str
    initial: bool
    options: tuple  # of (name, value)

    def __str__(self):
        flags = "-".join(f"{name}={value}" for name, value in self.options)
        return (
            f"{self.kind}-{self.inputs}-{self.hidden}-L{self.layers}-T{self.steps}-B{self.batch}-{self.dtype}-{flags}"
        )

    def modules(self):
        options = dict(self.options)
        return twins(self.kind, self.inputs, self.hidden, self.layers, dtype=getattr(torch, self.dtype), **options)

    def data(self, seed=1):
        """The input and a state, or None."""
        torch.manual_seed(seed)
        options, dtype = dict(self.options), getattr(torch, self.dtype)
        batch = () if self.batch is None else (self.batch,)
        axes = (self.steps,) if self.batch is None else (self.steps, self.batch)
        if options["batch_first"] and self.batch is not None:
            axes = axes[::-1]
        x = torch.randn(*axes, self.inputs, dtype=dtype)
        states = state_shapes(self.kind, self.hidden, self.layers, options, batch)
        return x, [torch.randn(shape, dtype=dtype) for shape in states] if self.initial else None


def state_shapes(kind, hidden, layers, options, batch):
    widths = [options.get("proj_size") or hidden] + [hidden] * (kind == "LSTM")
    return [(layers * (1 + options.get("bidirectional", False)), *batch, width) for width in widths]


def all_cases():
    factors = {
        "kind": KINDS,
        "hidden": (1, 5, 16, 33),
        "layers": (1, 2, 3),
        "shape": ((1, 1), (7, 3), (4, 16), (5, None)),
        "dtype": ("float32", "float64"),
        "initial": (False, True),
        "bias": (True, False),
        "batch_first": (False, True),
        "bidirectional": (False, True),
        "option": (None, "proj_size", "relu"),
    }

    def valid(kind, hidden, option, **others):
        return (
            option is None
            or (kind, option) == ("RNN", "relu")
            or ((kind, option) == ("LSTM", "proj_size") and hidden > 1)
        )

    for c in covering(factors, valid):
        options = [(name, c[name]) for name in ("bias", "batch_first", "bidirectional")]
        options += [("proj_size", max(1, c["hidden"] // 2))] if c["option"] == "proj_size" else []
        options += [("nonlinearity", "relu")] if c["option"] == "relu" else []
        steps, batch = c["shape"]
        yield Case(c["kind"], 6, c["hidden"], c["layers"], steps, batch, c["dtype"], c["initial"], tuple(options))


def assert_same(which, results, expected, width, steps):
    """Tensors by position, ours against torch.nn's in float64, by the table of tolerances."""
    assert len(results) == len(expected)
    for index, (ours, exact) in enumerate(zip(results, expected, strict=True)):
        dtype = str(ours.dtype).removeprefix("torch.")
        tolerance = TOLERANCES[dtype][which](width, max(steps, 1))
        error = relative_error(ours.detach().numpy(), exact.detach().double().numpy())
        assert error <= tolerance, f"{which} {index}: error {error:.2e}, tolerance {tolerance:.2e}"


def gradients(module, x, states, call=None, seed=2):
    """Those of a random loss of all results, with respect to the input, the state and the parameters."""
    x = x.detach().requires_grad_()
    states = None if states is None else [s.detach().requires_grad_() for s in states]
    call = call or (lambda m, x, state: m(x, state))
    results = flat(call(module, x, None if states is None else as_state(states)))
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(r.shape, generator=generator, dtype=torch.float64).to(r.dtype) for r in results]
    return torch.autograd.grad(results, [x, *(states or []), *module.parameters()], weights)

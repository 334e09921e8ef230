"""`RNN`, `LSTM` and `GRU` as PyTorch has them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from operator import is_
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch._C import _get_tracing_state, _is_any_autocast_enabled, _len_torch_dispatch_stack
from torch._C._functorch import peek_interpreter_stack
from torch._subclasses import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.nn import Parameter, RNNBase
from torch.nn.utils.rnn import PackedSequence

from .. import _core
from .._checks import check_bool, check_choice, check_int, check_probability, check_unmasked, warn_caller
from .._spec import MAX_LAYERS, gru_cell
from ..reference import CELLS
from . import _call, _cells, _eager, _network, _ops, _packed, _transforms
from ._network import Network

# As they are before anybody patches them.
STOCK = {"RNN": torch.nn.RNN, "LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU}

_PLAIN = (Tensor, Parameter)
_TRACED = (FakeTensor, FunctionalTensor)
_WITH_OPERATOR = ("rnn_tanh", "rnn_relu", "lstm", "gru")  # cells that torch.nn has
_SIZES = {"input_size", "hidden_size", "num_layers", "proj_size"}
_CONFIG = _SIZES | {"bias", "batch_first", "dropout", "bidirectional", "mode", "reset_after"}  # what makes a Network
_MODES = {kind: [cell.upper() for cell in CELLS if cell.startswith(kind.lower())] for kind in ("RNN", "LSTM")}
_warned: set[str] = set()


def _compiler_is_here() -> bool:
    """Whether a function under `torch._disable_dynamo`, at which graphs break, has to be called in place of its twin:
    the call imports the compiler, which takes a second, and `torch.compiler.disable` does so in decorating.
    """
    return torch.compiler.is_compiling() or "torch._dynamo" in sys.modules


@torch._disable_dynamo
def _stock_lstm_uncompiled(module: Any, x: Tensor, hx: Any) -> Any:
    """The compiler cannot take oneDNN's LSTM into its graph: it breaks there, as it does for `torch.nn.LSTM` itself."""
    return STOCK["LSTM"].forward(module, x, hx)


class _Recurrent(RNNBase):
    """What the three classes have in common.

    A call takes one of three ways. Plain tensors on the CPU in plain Python go to the kernels directly (`_direct`).
    What PyTorch traces, compiles or transforms goes to the same kernels through `torch.ops.fastrnn` (`_traced`), and so
    do CUDA tensors to theirs.
    What the kernels do not serve, and what is wrong, goes to PyTorch's own path (`_stock`), which computes it or raises
    its own error.
    """

    _kind: ClassVar[str]
    _own_option: ClassVar[str]  # the one that the others do not have
    _packed: _core.Prepared | None = None  # the weights, where they can no longer change

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _CONFIG:
            self.__dict__.pop("_networks", None)
        super().__setattr__(name, value)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        state.pop("_networks", None)
        return state

    def _cell(self) -> str:
        """The cell's name among the kernels."""
        return check_choice("mode", self.mode, _MODES[self._kind]).lower()

    def _network(self, dtype: torch.dtype) -> Network:
        """What describes the network now, with dropout in training."""
        networks: dict[Any, Network] = self.__dict__.setdefault("_networks", {})
        key = dtype, self.training
        if key not in networks:
            networks[key] = self._described(dtype)
        return networks[key]

    def _described(self, dtype: torch.dtype) -> Network:
        """The same anew. Raises TypeError or ValueError, with its name, for an attribute that no network can have."""
        hidden_size = check_int("hidden_size", self.hidden_size, 1)
        return _network.network(
            self._cell(),
            check_int("input_size", self.input_size, 1),
            hidden_size,
            check_int("num_layers", self.num_layers, 1, MAX_LAYERS),
            check_bool("bias", self.bias),
            check_bool("batch_first", self.batch_first),
            check_probability("dropout", self.dropout) if self.training else 0.0,
            check_bool("bidirectional", self.bidirectional),
            check_int("proj_size", self.proj_size, 0, hidden_size - 1),
            dtype,
        )

    def _weights(self) -> list[Tensor]:
        """Those that are in place now: parametrizations, pruning and `functional_call` replace them, and programs that
        know `torch.nn` put others in `_flat_weights`, which count until a parameter is replaced."""
        parameters = self._parameters
        try:
            named = [parameters[name] for name in self._flat_weights_names]
        except KeyError:
            return [getattr(self, name) for name in self._flat_weights_names]
        if torch.compiler.is_compiling() or all(map(is_, named, self._flat_weights)) or self._weights_have_changed():
            return named
        return list(self._flat_weights)

    def prepare(self) -> Prepared:
        """The network with its present weights, copied and packed once: for streams of single steps, which take less
        time than packing does. Later changes of the module do not show in it, and there is no dropout.

        Returns:
            What is called as the module is: `output, state = prepared(input, state, lengths=lengths)`.

        Raises:
            ValueError: the weights are not all float32, or all float64, on the CPU.
        """
        weights = [w.detach().clone(memory_format=torch.contiguous_format) for w in self._weights()]
        dtype = weights[0].dtype
        if dtype not in _network.DTYPES or any(w.dtype is not dtype or not w.is_cpu for w in weights):
            found = sorted({f"{w.dtype} on {w.device}" for w in weights})
            raise ValueError(f"prepare: weights must be all float32 or all float64 on the CPU, got {', '.join(found)}")
        options = {name: getattr(self, name) for name in ("bias", "batch_first", "bidirectional", self._own_option)}
        sizes = self.input_size, self.hidden_size, self.num_layers
        kept = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}[self._kind](*sizes, **options, device="meta", dtype=dtype).eval()
        kept.load_state_dict(dict(zip(self._flat_weights_names, weights, strict=True)), assign=True)
        kept.requires_grad_(False)._packed = _core.prepare(kept._network(dtype).spec, [w.numpy() for w in weights])
        return Prepared(kept)

    # ------------------------------------------------------------------------------------------------- the three ways

    # torch.onnx's older exporter passes every argument by position, lengths too.
    def forward(self, input: Any, hx: Any = None, lengths: Any = None) -> Any:  # noqa: A002
        """As `torch.nn`'s, and `lengths` beside it.

        Sizes: T time steps, B rows of the batch, I `input_size`, H `hidden_size`, L `num_layers`, D directions (2 if
        bidirectional, else 1), H_out the width of h (an LSTM's `proj_size` where given, else H).

        Args:
            input: (T, B, I); (B, T, I) with `batch_first`; one sequence (T, I); or a PackedSequence.
            hx: h_0 (L*D, B, H), for an LSTM (h_0, c_0) with h_0 (L*D, B, H_out); without B if the input has none.
                None is zeros.
            lengths: None, or (B,) integers in 0…T, in any order; for one sequence an int. Past a row's length the
                output is 0, the input is not read, and h_n, c_n are the states after the row's own last step. In place
                of a PackedSequence, not with one. (In a CUDA graph: a tensor on the GPU, of which nobody looks whether
                it is in range; what is not counts as the nearest that is.)

        Returns:
            output, (T, B, D*H_out) in the layout of the input, or a PackedSequence; and h_n, or (h_n, c_n).

        Raises:
            RuntimeError, ValueError: those of `torch.nn`, with its messages; ValueError or TypeError for lengths.
        """
        if not torch.compiler.is_compiling() and type(input) in _PLAIN:
            result = self._direct(input, hx, lengths)
            if result is not None:
                return result
        if isinstance(input, PackedSequence):
            over_packed = self._over_packed_uncompiled if _compiler_is_here() else self._over_packed
            return over_packed(input, hx, lengths)
        if isinstance(input, torch.fx.Proxy):  # a leaf of symbolic traces, as what is torch.nn's
            keywords = {} if lengths is None else {"lengths": lengths}
            tracer = input.tracer
            given = (input,) if hx is None else (input, hx)  # what goes through a graph may know no None
            return tracer.create_proxy("call_module", tracer.path_of_module(self), given, keywords)
        return self._general(input, hx, lengths)

    def _direct(self, x: Tensor, hx: Any, lengths: Any, batch_sizes: Tensor | None = None) -> Any:
        """The kernels on plain tensors, x with `batch_sizes` a PackedSequence's data; None where anything is out of the
        ordinary."""
        dtype = x.dtype
        if (
            dtype not in _network.DTYPES
            or not x.is_cpu
            or x.layout is not torch.strided
            or x.is_neg()  # a view whose memory has the other sign, as of a conjugate's imaginary part
            or _len_torch_dispatch_stack()
            or peek_interpreter_stack() is not None
            or _is_any_autocast_enabled()
            or _get_tracing_state() is not None
            or forward_ad._current_level >= 0
        ):
            return None
        net = self._network(dtype)
        try:
            shape = x.shape
            if batch_sizes is not None:
                steps = len(batch_sizes)
            elif len(shape) in (2, 3):
                steps = shape[1 if net.batch_first and len(shape) == 3 else 0]
            else:
                return None
            if shape[-1] != net.input or not steps:
                return None

            weights = self._weights()
            if self._packed is None or weights[0].dtype is not dtype:
                if len(weights) != len(net.shapes):
                    return None
                for weight, wanted in zip(weights, net.shapes, strict=True):
                    if (
                        type(weight) not in _PLAIN
                        or weight.dtype is not dtype
                        or weight.shape != wanted
                        or not weight.is_cpu
                        or not weight.is_contiguous()
                        or weight.is_neg()
                    ):
                        return None

            states: Any = ()
            if hx is not None:
                states = hx if net.has_cell else (hx,)
                if not isinstance(states, (tuple, list)) or len(states) != 1 + net.has_cell:
                    return None
                batch = _network.batch_axis(net, shape, batch_sizes)
                for state, width in zip(states, (net.output, net.hidden), strict=False):
                    if (
                        type(state) not in _PLAIN
                        or state.dtype is not dtype
                        or state.shape != (net.states, *batch, width)
                        or not state.is_cpu
                    ):
                        return None
                states = [state.contiguous().resolve_neg() for state in states]
        except RuntimeError:  # nested and sparse tensors have no such notions
            return None
        h0, c0 = (*states, None, None)[:2]
        if lengths is not None:
            lengths = _lengths(lengths, shape, net.batch_first, x.device)

        try:
            if net.drops or (torch.is_grad_enabled() and any(t.requires_grad for t in (x, *weights, *states))):
                seed = int(_call.draw_seed()) if net.drops else 0
                y, *finals = _eager.Fused.apply(net, x, h0, c0, lengths, batch_sizes, seed, *weights)
            else:
                y, *finals = _call.run(net, self._packed or weights, x, h0, c0, lengths, batch_sizes)
        except _core.UnreadableError:  # what a transform left behind, or zeros without memory: PyTorch knows
            return None
        return y, tuple(finals) if net.has_cell else finals[0]

    def _general(self, x: Any, hx: Any, lengths: Any) -> Any:
        """Everything else: the operators where the kernels serve the call, or PyTorch's own path."""
        states = self._states(hx)
        right = all(isinstance(t, Tensor) for t in (x, *states, *self._weights())) and x.dim() in (2, 3)
        if not right or any(s.dim() != x.dim() for s in states) or (hx is not None and not states):
            return STOCK[self._kind].forward(self, x, hx)  # raises
        if lengths is not None:
            lengths = _lengths(lengths, x.shape, self.batch_first, x.device)
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            return self._autocast(x, hx, states, lengths)
        self._check_weights()
        reason = unserved(x, states, self._weights())
        if reason is not None:
            result = self._stock(x, hx, states, lengths)
            _warn_once(self._kind, reason)
            return result
        return self._traced(x, hx, states, lengths)

    def _states(self, hx: Any) -> tuple[Any, ...]:
        """What a call has in place of h and, in an LSTM, c."""
        pair = self._kind == "LSTM" and isinstance(hx, (tuple, list))
        return () if hx is None else tuple(hx) if pair else (hx,)

    def _check_weights(self) -> None:
        """Raises RuntimeError unless the weights in place are of one type and of the module's own sizes: where they are
        not, `torch.nn.LSTM` may crash."""
        if torch.compiler.is_compiling():
            return  # the operator looks
        weights = self._weights()
        dtype, device = weights[0].dtype, weights[0].device
        wanted = self._network(dtype).spec.parameter_shapes()
        if len(weights) != len(wanted):
            raise RuntimeError(f"there must be {len(wanted)} weights, got {len(weights)}")
        for weight, (name, shape) in zip(weights, wanted, strict=True):
            if weight.dtype != dtype or weight.device != device or tuple(weight.shape) != shape:
                raise RuntimeError(
                    f"{name} must be {dtype} {shape} on {device}, "
                    f"got {weight.dtype} {tuple(weight.shape)} on {weight.device}"
                )

    def _state_shapes(self, rows: Any) -> list[tuple[Any, ...]]:
        """Of h and, in an LSTM, c."""
        widths = [self.proj_size or self.hidden_size] + [self.hidden_size] * (self._kind == "LSTM")
        return [(self.num_layers * (1 + self.bidirectional), rows, width) for width in widths]

    def _traced(self, x: Tensor, hx: Any, states: tuple[Tensor, ...], lengths: Tensor | None) -> Any:
        """The kernels as operators."""
        axis = 0 if self.batch_first else 1
        batch, initial = x, states
        if x.dim() == 2:
            batch, initial = x.unsqueeze(axis), tuple(s.unsqueeze(1) for s in states)
        weights = self._weights()
        shapes = self._state_shapes(batch.shape[axis])
        if (
            batch.shape[-1] != self.input_size
            or batch.shape[1 - axis] == 0
            or any(t.dtype != weights[0].dtype or t.device != weights[0].device for t in (x, *states))
            or len(states) not in (0, len(shapes))
            or any(tuple(initial[k].shape) != shapes[k] for k in range(len(initial)))
        ):
            return self._stock(x, hx, states, lengths)  # raises, or knows better
        h0, c0 = (*initial, None, None)[:2]
        drops = self.training and self.dropout > 0 and self.num_layers > 1
        seed = _call.draw_seed() if drops else None
        options = self._cell(), self.num_layers, self.bidirectional, self.batch_first, self.dropout if drops else 0.0
        y, *finals = operate(batch, weights, h0, c0, lengths, seed, *options)
        return self._results(y, tuple(finals[: len(shapes)]), x.dim() == 3)

    def _results(self, y: Tensor, finals: tuple[Tensor, ...], batched: bool) -> Any:
        if not batched:
            y, finals = y.squeeze(0 if self.batch_first else 1), tuple(f.squeeze(1) for f in finals)
        return y, finals if self._kind == "LSTM" else finals[0]

    def _stock(self, x: Tensor, hx: Any, states: tuple[Tensor, ...], lengths: Tensor | None) -> Any:
        """PyTorch's own operator; in others of its operators what it has none for."""
        forward_mode = forward_ad._current_level >= 0
        if lengths is None and self._cell() in _WITH_OPERATOR and not forward_mode:
            breaks = self._kind == "LSTM" and _compiler_is_here()
            return _stock_lstm_uncompiled(self, x, hx) if breaks else STOCK[self._kind].forward(self, x, hx)
        axis = 0 if self.batch_first else 1
        batch = x if x.dim() == 3 else x.unsqueeze(axis)
        initial = tuple(s if x.dim() == 3 else s.unsqueeze(1) for s in states)
        initial = initial or tuple(batch.new_zeros(shape) for shape in self._state_shapes(batch.shape[axis]))
        self._update_flat_weights()
        self.check_forward_args(batch, initial if self._kind == "LSTM" else initial[0], None)
        y, finals = _cells.run(
            self._cell(),
            batch.transpose(0, 1) if self.batch_first else batch,
            initial,
            self._weights(),
            num_layers=self.num_layers,
            bias=self.bias,
            bidirectional=self.bidirectional,
            lengths=lengths if lengths is None else lengths.to(x.device),
            dropout=lambda inputs, _: torch.dropout(inputs, self.dropout, self.training),
        )
        return self._results(y.transpose(0, 1) if self.batch_first else y, finals, x.dim() == 3)

    def _autocast(self, x: Tensor, hx: Any, states: tuple[Tensor, ...], lengths: Tensor | None) -> Any:
        """In an autocast region results have the dtype that `torch.nn`'s have; between, all is done in float32."""
        low = torch.get_autocast_dtype("cpu")
        tensors = (x, *states)
        lowered = all(t.dtype in (torch.float32, low) for t in tensors)
        with torch.autocast("cpu", enabled=False):
            if not lowered or any(w.dtype != torch.float32 for w in self._weights()):
                if all(t.dtype == torch.float64 for t in (*tensors, *self._weights())):
                    return self._general(x, hx, lengths)
                with torch.autocast("cpu", dtype=low):
                    result = self._stock(x, hx, states, lengths)
                _warn_once(self._kind, f"an autocast region with weights of {self._weights()[0].dtype}")
                return result
            raised = tuple(s.float() for s in states)
            y, finals = self.forward(
                x.float(), (raised if self._kind == "LSTM" else raised[0]) if raised else None, lengths=lengths
            )
        # A GRU mixes its old state with the new: PyTorch promotes to the wider of the two.
        dtype = torch.promote_types(low, tensors[-1].dtype) if self._kind == "GRU" else low
        return y.to(dtype), tuple(f.to(dtype) for f in finals) if self._kind == "LSTM" else finals.to(dtype)

    def _over_packed(self, packed: PackedSequence, hx: Any, lengths: Any) -> Any:
        """A PackedSequence: the kernels take its data as it is, and the operators by way of padded rows, whose padding
        is neither read nor computed."""
        if lengths is not None:
            raise ValueError("lengths: a PackedSequence has its own")
        data, batch_sizes, sorted_indices, unsorted_indices = packed
        states = self._states(hx)
        right = all(isinstance(t, Tensor) for t in (data, batch_sizes, *states, *self._weights()))
        if (
            not right
            or data.dim() != 2
            or data.shape[1] != self.input_size
            or batch_sizes.dim() != 1
            or batch_sizes.dtype != torch.int64
            or (hx is not None and [tuple(s.shape) for s in states] != self._state_shapes(int(batch_sizes[0])))
        ):
            return STOCK[self._kind].forward(self, packed, hx)  # raises
        if not _is_any_autocast_enabled():
            if any(t.dtype != self._weights()[0].dtype for t in (data, *states)):
                return STOCK[self._kind].forward(self, packed, hx)  # raises
            self._check_weights()
        reason = unserved(data, states, self._weights())
        if reason is not None and self._cell() in _WITH_OPERATOR:
            result = STOCK[self._kind].forward(self, packed, hx)
            _warn_once(self._kind, reason)
            return result
        if hx is not None:
            hx = self.permute_hidden(hx, sorted_indices)
        rows = int(batch_sizes[0])
        if rows and not torch.compiler.is_compiling() and type(data) in _PLAIN and _plain_sizes(batch_sizes):
            result = self._direct(data, hx, None, batch_sizes)
            if result is not None:
                y = PackedSequence(result[0], batch_sizes, sorted_indices, unsorted_indices)
                return y, self.permute_hidden(result[1], unsorted_indices)
        if rows == int(batch_sizes[-1]):  # all of one length: the rows lie as in a batch
            axes = data.unflatten(0, (len(batch_sizes), rows))
            y, finals = self.forward(axes.transpose(0, 1) if self.batch_first else axes, hx)
            output = (y.transpose(0, 1) if self.batch_first else y).flatten(0, 1)
        else:
            padding = _packed.Padding.of(batch_sizes, self.batch_first)
            y, finals = self.forward(padding.pad(data), hx, lengths=padding.lengths)
            output = padding.unpad(y)
        y = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
        return y, self.permute_hidden(finals, unsorted_indices)

    _over_packed_uncompiled = torch._disable_dynamo(_over_packed)  # its sizes are data, at which a graph breaks anyway

    def __prepare_scriptable__(self) -> torch.nn.Module:
        """For `torch.jit.script`: PyTorch's own module with the same parameters."""
        if self._cell() not in _WITH_OPERATOR:
            raise NotImplementedError(f"torch.jit.script: torch.nn has no {self._cell()}")
        stock = STOCK[self._kind].__new__(STOCK[self._kind])
        stock.__dict__.update(self.__dict__)
        return stock


def _plain_sizes(batch_sizes: Tensor) -> bool:
    """Whether these are what PyTorch makes: an integer for each step, on the CPU."""
    return (
        type(batch_sizes) is Tensor
        and batch_sizes.is_cpu
        and batch_sizes.dtype is torch.int64
        and batch_sizes.dim() == 1
        and batch_sizes.is_contiguous()
    )


def unserved(x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> str | None:
    """Why the kernels cannot serve a call, or None."""
    dtype, device = weights[0].dtype, x.device.type
    on_cuda = device == "cuda" and _ops.serves_cuda()
    if dtype not in (_network.CUDA_DTYPES if on_cuda else _network.DTYPES):
        return f"weights of {dtype} (the kernels take float32 and float64)"
    if device not in ("cpu", "meta") and not on_cuda:
        return f"tensors on {device} (this build has kernels for the CPU)"
    if on_cuda and torch.is_autocast_enabled("cuda"):
        return "an autocast region on a GPU"
    if torch.compiler.is_compiling():
        return "an export to ONNX, which knows PyTorch's operators alone" if torch.onnx.is_in_onnx_export() else None
    if _get_tracing_state() is not None:
        return "torch.jit.trace, whose programs run without Python"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation, which runs in PyTorch's own operators"
    for tensor in (x, *states, *weights):
        if type(tensor) not in _PLAIN and not isinstance(tensor, _TRACED):  # first: one may refuse to be asked more
            return f"a tensor of {type(tensor).__name__}"
        if tensor.layout is not torch.strided:
            return f"a tensor of layout {tensor.layout}"
        if tensor.is_nested:
            return "a nested tensor"
    return None


def operate(
    x: Tensor,
    weights: Sequence[Tensor],
    h0: Tensor | None,
    c0: Tensor | None,
    lengths: Tensor | None,
    seed: Tensor | None,
    *options: Any,
) -> list[Tensor]:
    """y, h_n and c_n of `torch.ops.fastrnn.forward`, with derivatives, in whatever PyTorch is doing."""
    known = [t for t in (x, h0, c0, *weights) if t is not None]
    transformed = not torch.compiler.is_compiling() and peek_interpreter_stack() is not None
    if transformed and _transforms.differentiated(known):
        *results, _ = _transforms.Forward.apply(x, h0, c0, lengths, seed, options, *weights)
    else:
        tape = torch.is_grad_enabled() and any(t.requires_grad for t in known)
        *results, _ = _ops.forward(x, weights, h0, c0, lengths, seed, *options, tape or seed is not None)
    return results


def _lengths(value: Any, shape: torch.Size, batch_first: bool, device: torch.device) -> Tensor:
    """As a tensor of int64, on the CPU for an input there.

    Raises TypeError or ValueError unless there is an integer for each row.
    """
    check_unmasked("lengths", value)
    if isinstance(value, np.ndarray):  # a copy: PyTorch takes no negative strides, and warns of memory to be read only
        value = np.array(value, order="C")
    try:
        lengths = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise TypeError(f"lengths must be integers, got {type(value).__name__}") from error
    if lengths.is_floating_point() and lengths.numel() == 0:
        lengths = lengths.long()  # PyTorch's type for []
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype is torch.bool:
        raise TypeError(f"lengths must be integers, got {lengths.dtype}")
    batched = len(shape) == 3
    rows = shape[0 if batch_first else 1] if batched else 1
    if lengths.dim() == 0 and not batched:
        lengths = lengths.unsqueeze(0)
    if lengths.dim() != 1 or lengths.shape[0] != rows:
        raise ValueError(f"lengths must have shape ({rows},), got {tuple(lengths.shape)}")
    return lengths.to("cpu" if device.type == "cpu" else lengths.device, torch.int64).contiguous()


def _warn_once(kind: str, reason: str) -> None:
    if reason in _warned:
        return
    _warned.add(reason)
    message = f"fastrnn.torch.{kind}: PyTorch's own path ran, not fastrnn's kernels, for {reason}"
    warn_caller(message, "fastrnn", "torch")


# A compiled program warns while it is traced. This is all that `torch.compiler.assume_constant_result` does, beside
# importing the compiler.
_warn_once._dynamo_marked_constant = True  # type: ignore[attr-defined]


class Prepared:
    """A network with packed weights that stay as they are; `prepare` makes it. It is called as the module was."""

    def __init__(self, module: _Recurrent) -> None:
        self._module = module

    def __call__(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:  # noqa: A002
        return self._module.forward(input, hx, lengths=lengths)

    def __repr__(self) -> str:
        return f"Prepared({self._module})"


class RNN(_Recurrent):
    """An Elman network in place of `torch.nn.RNN`: the same arguments, attributes, parameters and results.

    h' = f(W_ih x + b_ih + W_hh h + b_hh), f one of tanh, relu and, which `torch.nn` does not have, sigmoid.

    Args:
        input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True, batch_first=False, dropout=0.0,
            bidirectional=False, device=None, dtype=None: as `torch.nn.RNN`'s.

    A call is `output, h_n = rnn(input, h_0, lengths=lengths)`; `help(RNN.forward)` has its shapes. What the kernels do
    not serve, such as half precision on the CPU and, unless fastrnn was built with CUDA, a GPU, runs in PyTorch's own
    operators, and a warning says why, once. Weights are packed in each call, so that every write to them, `.data`
    included, takes effect.
    """

    _kind = "RNN"
    _own_option = "nonlinearity"
    nonlinearity = "tanh"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        nonlinearity = args[3] if len(args) > 3 else kwargs.pop("nonlinearity", "tanh")
        if nonlinearity not in ("tanh", "relu", "sigmoid"):
            raise ValueError(f"Unknown nonlinearity {nonlinearity!r}. Select from 'tanh', 'relu' or 'sigmoid'.")
        super().__init__("RNN_RELU" if nonlinearity == "relu" else "RNN_TANH", *args[:3], *args[4:], **kwargs)
        self.nonlinearity = nonlinearity
        self.mode = f"RNN_{nonlinearity.upper()}"

    def extra_repr(self) -> str:
        return super().extra_repr() + (", nonlinearity=sigmoid" if self.nonlinearity == "sigmoid" else "")


class LSTM(_Recurrent):
    """A long short-term memory in place of `torch.nn.LSTM`: the same arguments, attributes, parameters and results.

    Args:
        input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False,
            proj_size=0, device=None, dtype=None: as `torch.nn.LSTM`'s.

    A call is `output, (h_n, c_n) = lstm(input, (h_0, c_0), lengths=lengths)`; all else is as for `RNN`.
    """

    _kind = "LSTM"
    _own_option = "proj_size"
    check_forward_args = STOCK["LSTM"].check_forward_args
    get_expected_cell_size = STOCK["LSTM"].get_expected_cell_size
    permute_hidden = STOCK["LSTM"].permute_hidden

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__("LSTM", *args, **kwargs)


class GRU(_Recurrent):
    """A gated recurrent unit in place of `torch.nn.GRU`: the same arguments, attributes, parameters and results.

    Args:
        input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0, bidirectional=False,
            device=None, dtype=None: as `torch.nn.GRU`'s.
        reset_after: False is the variant of Cho et al. 2014, where the reset gate acts before the recurrent product,
            n = tanh(W_in x + b_in + W_hn (r * h) + b_hn), which `torch.nn` does not have. By keyword alone.

    A call is `output, h_n = gru(input, h_0, lengths=lengths)`; all else is as for `RNN`.
    """

    _kind = "GRU"
    _own_option = "reset_after"
    reset_after = True

    def __init__(self, *args: Any, reset_after: bool = True, **kwargs: Any) -> None:
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        cell = gru_cell(reset_after)
        super().__init__("GRU", *args, **kwargs)
        self.reset_after = cell == "gru"

    def _cell(self) -> str:
        return gru_cell(self.reset_after)

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.reset_after else ", reset_after=False")

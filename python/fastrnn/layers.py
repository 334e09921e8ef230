"""Recurrent networks as objects: `RNN`, `LSTM` and `GRU`, with PyTorch's constructor, layout and parameter names.

Sizes: T time steps, B rows (sequences) in the batch, I `input_size`, H `hidden_size`, L `num_layers`, D directions
(2 if bidirectional, else 1), G gates (1 in an RNN, 4 in an LSTM, 3 in a GRU), H_out the width of h: `proj_size` where
given, else H. All arrays of one network have one dtype, float32 or float64. A state is h, or an LSTM's pair (h, c).
"""

from __future__ import annotations

import os
import reprlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from . import _core, _files
from ._checks import check_int, check_names, got
from ._dropout import Seeds
from ._gradients import Gradients, backward
from ._options import PUBLISHED, Activation, Options, shown_activations
from ._spec import SPEC_FIELDS, Array, State, check_parameters, gru_cell, make_spec, rnn_cell

_Self = TypeVar("_Self", bound="_Layer")


class _Layer:
    """What the three networks have in common."""

    _engine: Any = _core  # infer, forward, backward, check, prepare, Tape
    _cells: ClassVar[tuple[str, ...]]  # that a network of the class can have
    _options: ClassVar[dict[str, Any]] = {  # what a constructor takes beside the two sizes, with its default
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "dtype": "float32",
        "clip": None,
    }

    spec: _core.Spec
    _parameters: dict[str, Array]

    @property
    def parameters(self) -> dict[str, Array]:
        """Name -> array, in PyTorch's names and layout: all weights. Write into an array, or put a new one in its
        place: it takes effect at the next call. Setting it takes a mapping of names to arrays.
        """
        return self._parameters

    @parameters.setter
    def parameters(self, parameters: Mapping[str, Array]) -> None:
        if not isinstance(parameters, Mapping):
            raise TypeError(f"parameters must be a mapping of names to NumPy arrays, {got(parameters)}")
        for name, array in parameters.items():
            if not isinstance(name, str):
                raise TypeError(f"a name in parameters must be a str, {got(name)}")
            if not isinstance(array, np.ndarray):
                raise TypeError(f"parameters: {name} must be a NumPy array, {got(array)}")
        self._parameters = parameters if isinstance(parameters, dict) else dict(parameters)

    @property
    def input_size(self) -> int:
        """I, numbers in one time step of the input."""
        return self.spec.input_size

    @property
    def hidden_size(self) -> int:
        """H, units in a layer."""
        return self.spec.hidden_size

    @property
    def num_layers(self) -> int:
        """L, layers on top of each other."""
        return self.spec.num_layers

    @property
    def bias(self) -> bool:
        """Whether there are b_ih and b_hh."""
        return self.spec.bias

    @property
    def batch_first(self) -> bool:
        """Whether x and y are (B, T, …) instead of (T, B, …)."""
        return self.spec.batch_first

    @property
    def dropout(self) -> float:
        """The probability with which `forward` drops what goes from one layer to the next."""
        return self.spec.dropout

    @property
    def bidirectional(self) -> bool:
        """Whether a second set of weights per layer reads the sequence from its end."""
        return self.spec.bidirectional

    @property
    def dtype(self) -> str:
        """ "float32" or "float64", of all arrays."""
        return self.spec.dtype

    @property
    def clip(self) -> float | None:
        """The gates' sums are clipped to -clip … clip before their functions; None: they are not."""
        return Options(*(self.spec.options or ())).clip

    @property
    def activations(self) -> tuple[Activation, ...]:
        """The functions of the cell, each a name or (name, alpha) or (name, alpha, beta), in the order of its
        equations; twice as many where those of the two directions differ.
        """
        options = self.spec.options
        return shown_activations(self.spec.cell, 1 + self.bidirectional, options and Options(*options))

    def __init__(self, spec: _core.Spec, seed: int | None) -> None:
        if seed is not None:
            seed = check_int("seed", seed, 0, 2**64 - 1)
        if spec.dropout > 0 and spec.num_layers == 1:
            warnings.warn(
                f"dropout={spec.dropout} has no effect with num_layers=1: it acts between layers", stacklevel=3
            )
        random = np.random.default_rng(seed)
        bound = 1 / np.sqrt(spec.hidden_size)
        parameters = {
            name: random.uniform(-bound, bound, shape).astype(spec.dtype) for name, shape in spec.parameter_shapes()
        }
        self._set_up(spec, parameters, Seeds(int(random.integers(2**64, dtype=np.uint64))))

    def __call__(self, x: Array, state: State = None, *, lengths: Any = None) -> tuple[Array, State]:
        """Inference: no dropout, and nothing is kept for a backward pass.

        Sizes: T time steps, B rows, D directions, H_out the width of h (`proj_size` where given, else H). Denormal
        numbers count as zero in the kernels.

        Args:
            x: (T, B, I); (B, T, I) with `batch_first`; or one sequence (T, I). Of the layer's dtype; any strides.
            state: where to start from; None is zeros. h0 (L*D, B, H_out), and for an LSTM (h0, c0) with
                c0 (L*D, B, H), either of which may be None. Without B if x has none. Of the layer's dtype.
            lengths: None (all rows have T steps) or (B,) integers in 0…T, in any order; for one sequence an int.
                What lies past a row's length is never read; y is 0 there.

        Returns:
            y, (T, B, D*H_out) in x's layout, and the state after each row's last step, shaped as `state`.
            The reverse direction starts at a row's last step and ends at its first.

        Raises:
            TypeError, ValueError: an argument, or an array in `parameters`, has a wrong type, dtype, shape or value.
            MemoryError: there is no memory for the results.
        """
        return self._engine.infer(self.spec, self._weights(), x, state, lengths)  # type: ignore[no-any-return]

    def forward(
        self, x: Array, state: State = None, *, lengths: Any = None, dropout_seed: int | None = None
    ) -> tuple[Array, State, _core.Tape]:
        """Training: as a call, but with dropout, and with a tape for `backward`.

        Args:
            x, state, lengths: as in a call.
            dropout_seed: fixes the dropout masks. None takes the next of a series that the layer's `seed` determines.

        Returns:
            y and the state as in a call, and the tape. The tape refers to y, which is read-only therefore, to x and to
            the parameters: leave them unchanged until you are done with it. `tape.gates(layer, direction)` shows the
            activated gates, (T, B, G, H), `tape.cells(layer, direction)` the c of an LSTM, (T, B, H), and
            `tape.nbytes` its size in bytes; `help(tape)` has more.

        Raises:
            TypeError, ValueError, MemoryError: as a call. One that memory was too short for has used up its masks.
        """
        weights = self._weights()
        if dropout_seed is not None:
            seed = check_int("dropout_seed", dropout_seed, 0, 2**64 - 1)
        elif self.spec.dropout > 0 and self.spec.num_layers > 1:
            self._engine.check(self.spec, weights, x, state, lengths)  # wrong arguments must not use up a mask
            seed = self._seeds.draw()
        else:
            seed = 0
        return self._engine.forward(self.spec, weights, x, state, lengths, seed)  # type: ignore[no-any-return]

    def backward(self, tape: _core.Tape, dy: Array | None = None, dstate: State = None) -> Gradients:
        """Gradients of a loss, given those with respect to what `forward` returned.

        Args:
            tape: from this object's `forward`; it can be used any number of times.
            dy: the loss's derivative with respect to y, in y's shape and dtype. None is zeros.
                Past a row's length it is not read.
            dstate: the derivative with respect to the returned state, dh_n or (dh_n, dc_n); None in any place is zeros.

        Returns:
            Gradients, with the fields x, h0, c0 (None unless an LSTM) and parameters.

        Raises:
            TypeError, ValueError: `tape` is no tape, or another layer's; dy, dh_n or dc_n have a wrong type, dtype or
                shape.
            MemoryError: there is no memory for the gradients.
        """
        if isinstance(tape, self._engine.Tape) and tape.spec is not self.spec:
            raise ValueError("tape is from another layer's forward; use that layer's backward")
        return backward(self._engine, tape, dy, dstate)

    def prepare(self) -> _core.Prepared:
        """A snapshot for inference: `fast = layer.prepare(); y, state = fast(x, state)`.

        It packs the weights once, where a call of the layer does so each time, which is what counts for streams of
        short sequences. Later changes of `parameters` do not reach it. It can be used in many threads at once, and
        cannot be pickled: save the layer.

        Returns:
            What is called as the layer, `fast(x, state=None, *, lengths=None)`, with the same results and errors. It
            has the attributes `spec`, which describes the network, and `nbytes`, the memory that the weights take.

        Raises:
            TypeError, ValueError: an array in `parameters` has a wrong type, dtype or shape, or is missing.
        """
        return self._engine.prepare(self.spec, self._weights())  # type: ignore[no-any-return]

    @property
    def num_parameters(self) -> int:
        """How many numbers there are in `parameters`."""
        return sum(array.size for array in self.parameters.values())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters and configuration to a file. One that is there already is replaced when all is written: if
        anything fails, it stays as it was.

        Args:
            path: ends in .npz or, with the package safetensors installed, in .safetensors.

        Raises:
            ImportError: `path` ends in .safetensors, and the package is missing.
            OSError: the file cannot be written.
            TypeError: `path` is no str or os.PathLike.
            ValueError: it ends in something else, or an array in `parameters` is missing or has a wrong dtype or shape.
        """
        check_parameters("parameters", self.spec, self.parameters)
        config = {field: getattr(self.spec, field) for field in SPEC_FIELDS}
        seeds = {"dropout_base": self._seeds.base, "dropout_calls": self._seeds.calls}
        _files.write(path, config | seeds, self.parameters)

    @classmethod
    def load(cls: type[_Self], path: str | os.PathLike[str]) -> _Self:
        """The layer that `save` wrote: same configuration, same bits, same dropout masks to come.

        Raises:
            ImportError: `path` ends in .safetensors, and the package safetensors is missing.
            OSError: `path` cannot be opened or read.
            TypeError: it is no str or os.PathLike.
            ValueError: it is not a saved network, or one of another class.
        """
        config, parameters = _files.read(path)
        return cls._restore(f"path: {os.fspath(path)!r}", config, parameters)

    @classmethod
    def _restore(cls: type[_Self], what: str, config: dict[str, Any], parameters: dict[str, Array]) -> _Self:
        if config.get("cell") not in cls._cells:
            cell = reprlib.repr(config.get("cell"))
            raise ValueError(f"{what} holds a network of cell {cell}, which is no {cls.__name__}")
        config = {"options": None} | config  # files of version 0.1 may lack it
        check_names(what, config, (*SPEC_FIELDS, "dropout_base", "dropout_calls"))
        try:
            if config["options"] is not None:
                config["options"] = Options(*config["options"])
            spec = make_spec(*(config[field] for field in SPEC_FIELDS))
            seeds = Seeds(*(check_int(name, config[name], 0, 2**64 - 1) for name in ("dropout_base", "dropout_calls")))
        except (TypeError, ValueError) as error:  # of a file, a wrong type is a wrong value
            raise ValueError(f"{what}: {error}") from error
        check_parameters(what, spec, parameters)
        layer = cls.__new__(cls)
        layer._set_up(spec, {name: parameters[name] for name, _ in spec.parameter_shapes()}, seeds)
        return layer

    def _set_up(self, spec: _core.Spec, parameters: dict[str, Array], seeds: Seeds) -> None:
        self.spec = spec
        self.parameters = parameters
        self._names = tuple(parameters)
        self._seeds = seeds

    def _parameter_dtype(self, dtype: DTypeLike) -> DTypeLike:
        """Of a network that was asked for in this one."""
        return dtype

    def _weights(self) -> list[Array]:
        parameters = self._parameters
        check_names("parameters", parameters, self._names)
        return [parameters[name] for name in self._names]

    def __repr__(self) -> str:
        options = {name: getattr(self, name) for name in self._options}
        unusual = [f"{name}={value!r}" for name, value in options.items() if value != self._options[name]]
        if self.spec.options and self.activations != PUBLISHED[self.spec.cell]:
            unusual.append(f"activations={self.activations!r}")
        return f"{type(self).__name__}({', '.join([str(self.input_size), str(self.hidden_size), *unusual])})"

    def __getstate__(self) -> dict[str, Any]:  # for pickle and copy: a Spec goes as its fields
        return self.__dict__ | {"spec": [getattr(self.spec, field) for field in SPEC_FIELDS]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, spec=_core.make_spec(*state["spec"]))


class RNN(_Layer):
    """A plain recurrent network (Elman, "Finding structure in time", 1990):

        h' = f(W_ih x + b_ih + W_hh h + b_hh)

    Args:
        input_size: I, numbers in one time step of the input.
        hidden_size: H, units in a layer.
        num_layers: L, layers on top of each other.
        bias: whether there are b_ih and b_hh.
        batch_first: x and y are (B, T, …) instead of (T, B, …).
        dropout: the probability with which, in `forward`, each element that goes from one layer to the next is
            replaced by 0; the others are divided by 1 - dropout.
        bidirectional: a second set of weights per layer reads the sequence from its end; y has both side by side.
        dtype: float32 or float64. What a call is given must have this very dtype.
        seed: determines the initial weights, U(-1/sqrt(H), 1/sqrt(H)), and the dropout masks. None: by chance.
        nonlinearity: f, "tanh", "relu" or "sigmoid".
        clip: f's argument is clipped to -clip … clip. None: it is not.
        activations: f where it is another function: (f,), or (f, f) of the two directions, each a name or (name, alpha)
            or (name, alpha, beta). All that ONNX knows: tanh, sigmoid, relu, affine, leaky_relu, thresholded_relu,
            scaled_tanh, hard_sigmoid, elu, softsign and softplus, with the parameters and defaults of the ONNX
            operators (affine 1 and 0, scaled_tanh 1 and 1). None: what `nonlinearity` says.

    Attributes:
        parameters: dict of name -> array, to be read and written, for each layer k from 0 (D is 2 if bidirectional,
            else 1; those of the second direction end in `_reverse`):

            weight_ih_l{k}         (H, I), above the first layer (H, D*H)
            weight_hh_l{k}         (H, H)
            bias_ih_l{k}           (H,), if there are biases
            bias_hh_l{k}           (H,), likewise
        num_parameters: how many numbers these are.
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, nonlinearity, clip,
        activations: as given.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value; the message names it.
    """

    _cells = "rnn_tanh", "rnn_relu", "rnn_sigmoid"
    _options: ClassVar[dict[str, Any]] = _Layer._options | {"nonlinearity": "tanh"}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        *,
        nonlinearity: str = "tanh",
        clip: float | None = None,
        activations: Sequence[Activation] | None = None,
    ) -> None:
        sizes = input_size, hidden_size, num_layers
        cell, options = rnn_cell(nonlinearity), Options(activations, clip)
        dtype = self._parameter_dtype(dtype)
        spec = make_spec(cell, *sizes, bias, batch_first, dropout, bidirectional, dtype=dtype, options=options)
        super().__init__(spec, seed)

    @property
    def nonlinearity(self) -> str:
        """f, "tanh", "relu" or "sigmoid", unless `activations` names another."""
        return self.spec.cell.removeprefix("rnn_")


class LSTM(_Layer):
    """A long short-term memory (Hochreiter & Schmidhuber, "Long short-term memory", 1997) with the forget gate of
    Gers, Schmidhuber & Cummins ("Learning to forget", 2000):

        i, f, o = sigmoid(W_ih x + b_ih + W_hh h + b_hh)    each with its rows of the weights, in the order i, f, g, o
        g       = tanh(W_ih x + b_ih + W_hh h + b_hh)
        c'      = f * c + i * g
        h'      = o * tanh(c')

    and, with `proj_size`, the projection of Sak, Senior & Beaufays ("Long short-term memory recurrent neural network
    architectures for large scale acoustic modeling", 2014): h' = W_hr (o * tanh(c')).

    Args:
        input_size: I, numbers in one time step of the input.
        hidden_size: H, units in a layer.
        num_layers: L, layers on top of each other.
        bias: whether there are b_ih and b_hh.
        batch_first: x and y are (B, T, …) instead of (T, B, …).
        dropout: the probability with which, in `forward`, each element that goes from one layer to the next is
            replaced by 0; the others are divided by 1 - dropout.
        bidirectional: a second set of weights per layer reads the sequence from its end; y has both side by side.
        proj_size: the width of h, less than `hidden_size`; 0 for no projection.
        dtype: float32 or float64. What a call is given must have this very dtype.
        seed: determines the initial weights, U(-1/sqrt(H), 1/sqrt(H)), and the dropout masks. None: by chance.
        peephole: the gates see the cell state, through one weight a unit (Gers & Schmidhuber, "Recurrent nets that time
            and count", 2000): p_i * c is added in i and p_f * c in f, and p_o * c' in o.
        coupled_input_forget: f = 1 - i. The rows of f in the weights have no effect then, nor a gradient.
        clip: the sums that i, f, g and o are functions of, peepholes included, are clipped to -clip … clip; c is not.
            None: they are not.
        activations: other functions, (of i, f and o; of g; of c'), as in `RNN`, for one direction or both.

    Attributes:
        parameters: dict of name -> array, to be read and written, for each layer k from 0 (D is 2 if bidirectional,
            else 1; those of the second direction end in `_reverse`):

            weight_ih_l{k}         (4*H, I), above the first layer (4*H, D*H_out)
            weight_hh_l{k}         (4*H, H_out)
            bias_ih_l{k}           (4*H,), if there are biases
            bias_hh_l{k}           (4*H,), likewise
            weight_hr_l{k}         (H_out, H), if there is a projection
            weight_peephole_l{k}   (3*H,), of i, f and o, if there are peepholes

            H_out is `proj_size` where given, else H.
        num_parameters: how many numbers these are.
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size, dtype, peephole,
        coupled_input_forget, clip, activations: as given.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value; the message names it.
    """

    _cells = ("lstm",)
    _options: ClassVar[dict[str, Any]] = _Layer._options | {
        "proj_size": 0,
        "peephole": False,
        "coupled_input_forget": False,
    }

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        *,
        peephole: bool = False,
        coupled_input_forget: bool = False,
        clip: float | None = None,
        activations: Sequence[Activation] | None = None,
    ) -> None:
        sizes = input_size, hidden_size, num_layers
        options = Options(activations, clip, coupled_input_forget, peephole)
        dtype = self._parameter_dtype(dtype)
        spec = make_spec("lstm", *sizes, bias, batch_first, dropout, bidirectional, proj_size, dtype, options)
        super().__init__(spec, seed)

    @property
    def proj_size(self) -> int:
        """The width of h, or 0 where there is no projection."""
        return self.spec.proj_size

    @property
    def peephole(self) -> bool:
        """Whether the gates see the cell state."""
        return Options(*(self.spec.options or ())).peephole

    @property
    def coupled_input_forget(self) -> bool:
        """Whether f = 1 - i."""
        return Options(*(self.spec.options or ())).coupled_input_forget


class GRU(_Layer):
    """A gated recurrent unit (Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
    machine translation", 2014), by default in the variant of cuDNN, Keras and PyTorch, where the reset gate acts after
    the recurrent product:

        r, z = sigmoid(W_ih x + b_ih + W_hh h + b_hh)    each with its rows of the weights, in the order r, z, n
        n    = tanh(W_in x + b_in + r * (W_hn h + b_hn))         reset_after=True
        n    = tanh(W_in x + b_in + W_hn (r * h) + b_hn)         reset_after=False, as in the paper
        h'   = (1 - z) * n + z * h

    A text that writes h' = (1 - z) * h + z * n has the same model with the weights of z negated:
    `weights.textbook_gru` converts.

    Args:
        input_size: I, numbers in one time step of the input.
        hidden_size: H, units in a layer.
        num_layers: L, layers on top of each other.
        bias: whether there are b_ih and b_hh.
        batch_first: x and y are (B, T, …) instead of (T, B, …).
        dropout: the probability with which, in `forward`, each element that goes from one layer to the next is
            replaced by 0; the others are divided by 1 - dropout.
        bidirectional: a second set of weights per layer reads the sequence from its end; y has both side by side.
        dtype: float32 or float64. What a call is given must have this very dtype.
        seed: determines the initial weights, U(-1/sqrt(H), 1/sqrt(H)), and the dropout masks. None: by chance.
        reset_after: which variant.
        clip: the sums that r, z and n are functions of are clipped to -clip … clip. None: they are not.
        activations: other functions, (of r and z; of n), as in `RNN`, for one direction or both.

    Attributes:
        parameters: dict of name -> array, to be read and written, for each layer k from 0 (D is 2 if bidirectional,
            else 1; those of the second direction end in `_reverse`):

            weight_ih_l{k}         (3*H, I), above the first layer (3*H, D*H)
            weight_hh_l{k}         (3*H, H)
            bias_ih_l{k}           (3*H,), if there are biases
            bias_hh_l{k}           (3*H,), likewise
        num_parameters: how many numbers these are.
        input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, dtype, reset_after, clip,
        activations: as given.

    Raises:
        TypeError, ValueError: an argument has a wrong type or value; the message names it.
    """

    _cells = "gru", "gru_reset_before"
    _options: ClassVar[dict[str, Any]] = _Layer._options | {"reset_after": True}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = "float32",
        seed: int | None = None,
        *,
        reset_after: bool = True,
        clip: float | None = None,
        activations: Sequence[Activation] | None = None,
    ) -> None:
        sizes = input_size, hidden_size, num_layers
        cell, options = gru_cell(reset_after), Options(activations, clip)
        dtype = self._parameter_dtype(dtype)
        spec = make_spec(cell, *sizes, bias, batch_first, dropout, bidirectional, dtype=dtype, options=options)
        super().__init__(spec, seed)

    @property
    def reset_after(self) -> bool:
        """Whether the reset gate acts after the recurrent product."""
        return self.spec.cell == "gru"


def load(path: str | os.PathLike[str]) -> RNN | LSTM | GRU:
    """The layer that `save` wrote, of whichever class it was.

    Raises:
        ImportError, OSError, TypeError, ValueError: as `LSTM.load`.
    """
    config, parameters = _files.read(path)
    what = f"path: {os.fspath(path)!r}"
    for cls in (RNN, LSTM, GRU):
        if config.get("cell") in cls._cells:
            return cls._restore(what, config, parameters)
    raise ValueError(f"{what} holds a network of cell {reprlib.repr(config.get('cell'))}, which is no RNN, LSTM or GRU")

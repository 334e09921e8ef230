"""Parameters in the layouts of other libraries. All functions take and return NumPy arrays and copy what they change.

Ours are dicts by PyTorch's names, as in `layer.parameters`; what a function returns can go there by
`layer.parameters.update(…)`. `cell` is "rnn", "lstm" or "gru". Results have the dtype of what they are made of.

| layout | gate order | input weight, recurrent weight | biases |
|---|---|---|---|
| ours, PyTorch | i f g o; r z n | (G*H, I), (G*H, H) | two of (G*H,) |
| Keras | i f c o; z r h | (I, G*H), (H, G*H) | (G*H,); GRU with `reset_after` (2, G*H): input, recurrent |
| ONNX | i o f c; z r h | W (D, G*H, I), R (D, G*H, H) | B (D, 2*G*H): input, recurrent |

G is the number of gates (1 in an RNN, 4 in an LSTM, 3 in a GRU), H that of units, I that of a layer's inputs, D that of
directions. The layouts are documented at https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers,
https://keras.io/api/layers/recurrent_layers and https://onnx.ai/onnx/operators (RNN, LSTM, GRU).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._checks import check_bool, check_choice, check_int, check_names, got
from ._spec import Array, parameter_names, suffix

__all__ = ["from_keras", "from_onnx", "from_torch", "textbook_gru", "to_keras", "to_onnx", "to_torch"]

# the places in ours of a layout's gates, one after the other
_KERAS = {"rnn": [0], "lstm": [0, 1, 2, 3], "gru": [1, 0, 2]}
_ONNX = {"rnn": [0], "lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}
_ONNX_PEEPHOLES = [0, 2, 1]  # i, o, f from i, f, o; its own inverse


def from_torch(state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Array]:
    """Our parameters from the `state_dict()` of a torch.nn.RNN, LSTM or GRU, or of a model that has one as `prefix`.

    Args:
        state_dict: name -> tensor (on any device) or array. Names and shapes are ours (see `fastrnn.LSTM`).
        prefix: how the network's names begin in it, such as "encoder.lstm."; all others are left alone.

    Returns:
        Copies by name, in the flat order; shapes and dtypes as they were.

    Raises:
        TypeError: `state_dict` is no mapping by str, or holds something else than tensors and arrays under such names.
        ValueError: names are missing, or there are some that such a network does not have. It names them.
    """
    _check_mapping("state_dict", state_dict)
    _check_str("prefix", prefix)
    if prefix and not prefix.endswith(".") and any(name.startswith(f"{prefix}.") for name in state_dict):
        raise ValueError(f"prefix must be a whole one: did you mean prefix={f'{prefix}.'!r}? got {prefix!r}")
    arrays = {
        name.removeprefix(prefix): _to_numpy(name, tensor)
        for name, tensor in state_dict.items()
        if name.startswith(prefix)
    }
    names = _complete(arrays)
    check_names("state_dict", arrays, names)
    return {name: arrays[name] for name in names}


def to_torch(parameters: Mapping[str, Array], prefix: str = "") -> dict[str, Array]:
    """A state_dict of arrays, each name with `prefix` before it; `torch.from_numpy` makes them tensors.

    Args:
        parameters: all of a network, as in `layer.parameters`.
        prefix: how the names shall begin, such as "encoder.lstm.".

    Returns:
        Copies by name, in PyTorch's order; shapes and dtypes as they were.

    Raises:
        TypeError: `parameters` is no mapping of NumPy arrays by str.
        ValueError: names are missing, or unknown to PyTorch, as those of peepholes. It names them.
    """
    _check_mapping("parameters", parameters)
    _check_str("prefix", prefix)
    names = _complete(parameters)
    check_names("parameters", parameters, names)
    return {prefix + name: _check_ndarray(name, parameters[name]).copy(order="C") for name in names}


def from_keras(cell: str, weights: Sequence[Array], layer: int = 0, *, reset_after: bool = True) -> dict[str, Array]:
    """Our parameters of one layer from `get_weights()` of a Keras SimpleRNN, LSTM or GRU, or of a Bidirectional.

    Args:
        cell: "rnn", "lstm" or "gru".
        weights: kernel (I, G*H), recurrent_kernel (H, G*H) and, if there is one, bias (G*H,), of a GRU also (2, G*H);
            of a Bidirectional the forward layer's, then the backward layer's.
        layer: the place that they take in our stack.
        reset_after: the variant of a GRU, to be given to `fastrnn.GRU` too. Its bias is (2, 3*H) with True, (3*H,) with
            False; without one, both have the same weights.

    Returns:
        Parameters by name. Where Keras has one bias, ours are that one and zeros.

    Raises:
        TypeError: `weights` is no sequence of NumPy arrays of one dtype, float32 or float64; `cell` is no str, `layer`
            no int, `reset_after` no bool.
        ValueError: the arrays are not as many or not of the shapes that the cell has; a GRU's bias is of the other
            variant; two directions differ in shape; there is no such cell; `layer` is negative.
    """
    order = _inverse(_KERAS[check_choice("cell", cell, _KERAS)])
    two = check_bool("reset_after", reset_after) and cell == "gru"
    layer, gates = check_int("layer", layer, 0), len(order)
    if not isinstance(weights, Sequence):
        raise TypeError(f"weights must be a sequence of NumPy arrays, {got(weights)}")
    if len(weights) not in (2, 3, 4, 6):
        raise ValueError(f"weights must be 2 or 3 arrays, or twice as many of a Bidirectional, got {len(weights)}")
    parts = [weights] if len(weights) < 4 else [weights[: len(weights) // 2], weights[len(weights) // 2 :]]
    units = _check_array("recurrent_kernel", weights[1], None, None).shape[0]
    _check_array("recurrent_kernel", weights[1], units, gates * units)
    inputs = _check_array("kernel", weights[0], None, gates * units).shape[0]
    others = (gates * units,) if two else (2, gates * units)
    if cell == "gru" and len(parts[0]) == 3 and np.shape(weights[2]) == others:
        raise ValueError(
            f"bias of shape {others} is that of a GRU with reset_after={not two}: "
            f"give reset_after={not two} here and to fastrnn.GRU"
        )
    dtype, parameters = weights[0].dtype, {}
    for reverse, (kernel, recurrent, *bias) in enumerate(parts):
        end, of = suffix(layer, bool(reverse)), " of the backward layer" if reverse else ""
        _check_array("kernel" + of, kernel, inputs, gates * units, dtype=dtype)
        _check_array("recurrent_kernel" + of, recurrent, units, gates * units, dtype=dtype)
        parameters[f"weight_ih{end}"] = _reorder(kernel.T, order)
        parameters[f"weight_hh{end}"] = _reorder(recurrent.T, order)
        if bias:
            _check_array("bias" + of, bias[0], *((2, gates * units) if two else (gates * units,)), dtype=dtype)
            b_ih, b_hh = bias[0] if two else (bias[0], np.zeros_like(bias[0]))
            parameters[f"bias_ih{end}"] = _reorder(b_ih, order)
            parameters[f"bias_hh{end}"] = _reorder(b_hh, order)
    return parameters


def to_keras(cell: str, parameters: Mapping[str, Array], layer: int = 0, *, reset_after: bool = True) -> list[Array]:
    """What `set_weights` of a Keras SimpleRNN, LSTM or GRU takes, or of a Bidirectional if the layer has a reverse.

    Args:
        cell: "rnn", "lstm" or "gru".
        parameters: ours, with the shapes of `layer.parameters`; may hold other layers too.
        layer: which one.
        reset_after: the variant of a GRU.

    Returns:
        kernel (I, G*H), recurrent_kernel (H, G*H) and, if there are biases, bias (G*H,); of two directions one after
        the other. Where Keras has one bias, it is the sum of ours; a GRU with `reset_after` has both, (2, G*H).

    Raises:
        TypeError: `parameters` is no mapping of NumPy arrays of one dtype, float32 or float64; another argument has a
            wrong type.
        ValueError: parameters of the layer are missing or not of the shapes that the cell has; it has a projection or
            peepholes, which Keras does not know; two directions differ in shape; there is no such cell.
    """
    order = _KERAS[check_choice("cell", cell, _KERAS)]
    two = check_bool("reset_after", reset_after) and cell == "gru"
    weights = []
    for direction in _directions("Keras", len(order), parameters, layer):
        w_ih, w_hh, *bias = direction.values()
        weights += [_reorder(w_ih, order).T.copy(), _reorder(w_hh, order).T.copy()]
        if bias:
            b_ih, b_hh = (_reorder(b, order) for b in bias)
            weights.append(np.stack([b_ih, b_hh]) if two else b_ih + b_hh)
    return weights


def from_onnx(cell: str, weights: Mapping[str, Array], layer: int = 0) -> dict[str, Array]:
    """Our parameters of one layer from the inputs W, R and B of an ONNX RNN, LSTM or GRU operator.

    A GRU's `linear_before_reset=1` is our `reset_after=True`. A direction that comes alone gets forward's names, also
    if it is "reverse": then turn the sequences.

    Args:
        cell: "rnn", "lstm" or "gru".
        weights: "W" (D, G*H, I), "R" (D, G*H, H) and, if the operator has them, "B" (D, 2*G*H) and, of an LSTM, "P"
            (D, 3*H).
        layer: the place that they take in our stack.

    Returns:
        Parameters by name, with the shapes of `layer.parameters`.

    Raises:
        TypeError: `weights` is no mapping of NumPy arrays of one dtype, float32 or float64; `cell` is no str, `layer`
            no int.
        ValueError: names are missing or unknown; shapes are not those that the cell has; there is no such cell;
            `layer` is negative.
    """
    order = _inverse(_ONNX[check_choice("cell", cell, _ONNX)])
    layer, gates = check_int("layer", layer, 0), len(order)
    _check_mapping("weights", weights)
    optional = [name for name in ("B", "P") if name in weights and (name == "B" or cell == "lstm")]
    check_names("weights", weights, ["W", "R", *optional])
    directions, _, units = _check_array("R", weights["R"], None, None, None).shape
    if directions not in (1, 2):
        raise ValueError(f"R must have 1 or 2 directions, got {directions}")
    dtype = weights["R"].dtype
    _check_array("R", weights["R"], directions, gates * units, units)
    _check_array("W", weights["W"], directions, gates * units, None, dtype=dtype)
    if "B" in weights:
        _check_array("B", weights["B"], directions, 2 * gates * units, dtype=dtype)
    if "P" in optional:
        _check_array("P", weights["P"], directions, 3 * units, dtype=dtype)
    parameters = {}
    for d in range(directions):
        end = suffix(layer, d == 1)
        parameters[f"weight_ih{end}"] = _reorder(weights["W"][d], order)
        parameters[f"weight_hh{end}"] = _reorder(weights["R"][d], order)
        if "B" in weights:
            b_ih, b_hh = np.split(weights["B"][d], 2)
            parameters[f"bias_ih{end}"] = _reorder(b_ih, order)
            parameters[f"bias_hh{end}"] = _reorder(b_hh, order)
        if "P" in optional:
            parameters[f"weight_peephole{end}"] = _reorder(weights["P"][d], _ONNX_PEEPHOLES)
    return parameters


def to_onnx(cell: str, parameters: Mapping[str, Array], layer: int = 0) -> dict[str, Array]:
    """The inputs W, R and, if there are such, B (biases) and P (peepholes) of an ONNX operator for one layer, with
    all of its directions.

    Args:
        cell: "rnn", "lstm" or "gru".
        parameters: ours, with the shapes of `layer.parameters`; may hold other layers too.
        layer: which one.

    Returns:
        "W" (D, G*H, I), "R" (D, G*H, H) and, if there are biases, "B" (D, 2*G*H), if there are peepholes, "P" (D, 3*H).

    Raises:
        TypeError: `parameters` is no mapping of NumPy arrays of one dtype, float32 or float64; `cell` is no str,
            `layer` no int.
        ValueError: parameters of the layer are missing or not of the shapes that the cell has; it has a projection,
            which ONNX does not know; two directions differ in shape; there is no such cell.
    """
    order = _ONNX[check_choice("cell", cell, _ONNX)]
    directions = _directions(f"the {cell.upper()} of ONNX", len(order), parameters, layer, peephole=cell == "lstm")
    peepholes = [d.pop(name) for d in directions for name in list(d) if name.startswith("weight_peephole")]
    parts = [[_reorder(array, order) for array in direction.values()] for direction in directions]
    weights = {"W": np.stack([part[0] for part in parts]), "R": np.stack([part[1] for part in parts])}
    if len(parts[0]) > 2:
        weights["B"] = np.stack([np.concatenate(part[2:]) for part in parts])
    if peepholes:
        weights["P"] = np.stack([_reorder(array, _ONNX_PEEPHOLES) for array in peepholes])
    return weights


def textbook_gru(parameters: Mapping[str, Array]) -> dict[str, Array]:
    """From a GRU with h' = (1 - z) * h + z * n to ours with h' = (1 - z) * n + z * h, or back: it is its own inverse.

    The former is how Chung et al. write it ("Empirical evaluation of gated recurrent neural networks on sequence
    modeling", 2014, arXiv:1412.3555), the latter Cho et al. (2014, arXiv:1406.1078). Since 1 - sigmoid(a) =
    sigmoid(-a), it takes no more than the negative of all that makes z.

    Args:
        parameters: of one or more layers of a GRU, by our names and with our shapes.

    Returns:
        Copies by the same names, in the same order.

    Raises:
        TypeError: `parameters` is no mapping of NumPy arrays of one dtype, float32 or float64.
        ValueError: names are missing or unknown, or shapes are not those of a GRU.
    """
    _check_mapping("parameters", parameters)
    layers = sorted({int(match[3]) for match in map(_NAME.fullmatch, parameters) if match}) or [0]
    check_names(
        "parameters", parameters, [n for k in layers for d in _directions("a GRU", 3, parameters, k) for n in d]
    )
    turned = {}
    for name, array in parameters.items():
        r, z, n = np.split(array, 3)
        turned[name] = np.ascontiguousarray(np.concatenate([r, -z, n]))
    return turned


_NAME = re.compile(r"(weight|bias)_(ih|hh|hr)_l(\d{1,5})(_reverse)?")


def _check_mapping(name: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping by name, {got(value)}")
    for key in value:
        _check_str(f"a name in {name}", key)


def _check_str(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a str, {got(value)}")


def _check_ndarray(name: str, array: Any) -> Array:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, {got(array)}")
    checked: Array = array
    return checked


def _check_array(name: str, array: Any, *shape: int | None, dtype: Any = None) -> Array:
    """An array of that shape, where None is any size but 0, and of that dtype, None being float32 or float64."""
    checked = _check_ndarray(name, array)
    if checked.dtype not in ((np.float32, np.float64) if dtype is None else (dtype,)):
        raise TypeError(f"{name} must be of dtype {dtype or 'float32 or float64'}, got {checked.dtype}")
    fits = checked.ndim == len(shape) and 0 not in checked.shape
    if not fits or any(want not in (None, size) for want, size in zip(shape, checked.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must be of shape ({wanted}{',' * (len(shape) == 1)}), got {checked.shape}")
    return checked


def _inverse(order: Sequence[int]) -> list[int]:
    """The order that puts back what `order` has put elsewhere."""
    return [order.index(gate) for gate in range(len(order))]


def _reorder(array: Array, order: Sequence[int]) -> Array:
    """A copy with its gates, blocks of rows, in another order."""
    blocks = np.split(array, len(order))
    return np.ascontiguousarray(np.concatenate([blocks[gate] for gate in order]))


def _to_numpy(name: str, tensor: Any) -> Array:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().numpy()
    if not isinstance(tensor, np.ndarray):
        raise TypeError(f"{name} must be a tensor or a NumPy array, {got(tensor)}")
    return np.array(tensor, order="C")


def _complete(names: Mapping[str, Any]) -> list[str]:
    """All names of the smallest network that has those of these names which a network can have."""
    found = [match for match in map(_NAME.fullmatch, names) if match]
    return parameter_names(
        num_layers=1 + max((int(m[3]) for m in found), default=0),
        bidirectional=any(m[4] for m in found),
        bias=any(m[1] == "bias" for m in found),
        projected=any(m[1] + m[2] == "weighthr" for m in found),
    )


def _directions(
    other: str, gates: int, parameters: Mapping[str, Array], layer: int, peephole: bool = False
) -> list[dict[str, Array]]:
    """weight_ih, weight_hh and, if there are, bias_ih, bias_hh of each direction of one layer of a cell, by name; where
    `peephole` allows it, and they are there, weight_peephole.

    They have the shapes that such a cell's have. `other` is the name of what they are for. It knows no projections.
    """
    layer = check_int("layer", layer, 0)
    _check_mapping("parameters", parameters)
    ends = [suffix(layer), suffix(layer, reverse=True)]
    own = {name: array for name, array in parameters.items() if name.endswith(tuple(ends))}
    unknown = {"weight_hr": "a projection"} | ({} if peephole else {"weight_peephole": "peepholes"})
    for stem, what in unknown.items():
        if any(name.startswith(stem) for name in own):
            raise ValueError(f"parameters: layer {layer} has {what} ({stem}), which {other} does not know")
    if not any(name.endswith(ends[1]) for name in own):
        del ends[1]
    stems = ["weight_ih", "weight_hh"]
    if any(name.startswith("bias") for name in own):
        stems += ["bias_ih", "bias_hh"]
    if peephole and any(name.startswith("weight_peephole") for name in own):
        stems += ["weight_peephole"]
    check_names(f"parameters of layer {layer}", own, [stem + end for end in ends for stem in stems])
    first = {stem: _check_array(stem + ends[0], own[stem + ends[0]], None, None) for stem in stems[:2]}
    inputs, units = (array.shape[1] for array in first.values())
    shapes = {
        "weight_ih": (gates * units, inputs),
        "weight_hh": (gates * units, units),
        "weight_peephole": (3 * units,),
    }
    for end, stem in itertools.product(ends, stems):
        shape = shapes.get(stem, (gates * units,))
        _check_array(stem + end, own[stem + end], *shape, dtype=first["weight_ih"].dtype)
    return [{stem + end: own[stem + end] for stem in stems} for end in ends]

"""Parameters in the layouts of other libraries. All functions take and return NumPy arrays and copy what they change.

Ours are dicts by PyTorch's names, as in `layer.parameters`; what a function returns can go there by
`layer.parameters.update(…)`. `cell` is "rnn", "lstm" or "gru".

| layout | gate order | input weight, recurrent weight | biases |
|---|---|---|---|
| ours, PyTorch | i f g o; r z n | (G*H, I), (G*H, H) | two of (G*H,) |
| Keras | i f c o; z r h | (I, G*H), (H, G*H) | (G*H,); GRU with `reset_after` (2, G*H): input, recurrent |
| ONNX | i o f c; z r h | W (D, G*H, I), R (D, G*H, H) | B (D, 2*G*H): input, recurrent |
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._checks import check_bool, check_choice, check_int, check_names, got
from ._spec import GATES, Array, parameter_names, suffix

__all__ = ["from_keras", "from_onnx", "from_torch", "textbook_gru", "to_keras", "to_onnx", "to_torch"]

# where the gates of a layout stand in ours
_KERAS = {"rnn": [0], "lstm": [0, 1, 2, 3], "gru": [1, 0, 2]}
_ONNX = {"rnn": [0], "lstm": [0, 3, 1, 2], "gru": [1, 0, 2]}


def from_torch(state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Array]:
    """Our parameters from the `state_dict()` of a torch.nn.RNN, LSTM or GRU, or of a model that has one as `prefix`.

    Args:
        state_dict: name -> tensor (on any device) or array.
        prefix: how the network's names begin in it, such as "encoder.lstm."; all others are left alone.

    Raises:
        ValueError: names are missing, or there are some that such a network does not have. It lists them.
    """
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

    Raises:
        ValueError: names are missing or unknown. It lists them.
    """
    names = _complete(parameters)
    check_names("parameters", parameters, names)
    return {prefix + name: np.array(parameters[name], order="C") for name in names}


def from_keras(cell: str, weights: Sequence[Array], layer: int = 0) -> dict[str, Array]:
    """Our parameters of one layer from `get_weights()` of a Keras SimpleRNN, LSTM or GRU, or of a Bidirectional.

    Args:
        cell: "rnn", "lstm" or "gru".
        weights: kernel, recurrent_kernel and, if there are, bias; of a Bidirectional the forward layer's, then the
            backward layer's.
        layer: the place that they take in our stack.

    Returns:
        Parameters by name. Where Keras has one bias, ours are that one and zeros. A GRU's bias tells its variant:
        (2, 3*H) belongs to `reset_after=True`, (3*H,) to `reset_after=False`; without one, both have the same weights.

    Raises:
        TypeError, ValueError: the arrays are not such weights.
    """
    gates = GATES[_check_cell(cell)]
    layer = check_int("layer", layer, 0)
    if len(weights) not in (2, 3, 4, 6):
        raise ValueError(f"weights must be 2 or 3 arrays, or twice as many of a Bidirectional, got {len(weights)}")
    parts = [weights] if len(weights) < 4 else [weights[: len(weights) // 2], weights[len(weights) // 2 :]]
    parameters = {}
    for reverse, (kernel, recurrent, *bias) in enumerate(parts):
        end = suffix(layer, bool(reverse))
        units = len(_check_array("recurrent_kernel", recurrent, None, None))
        _check_array("recurrent_kernel", recurrent, units, gates * units)
        _check_array("kernel", kernel, None, gates * units)
        parameters[f"weight_ih{end}"] = _reorder(kernel.T, _KERAS[cell])
        parameters[f"weight_hh{end}"] = _reorder(recurrent.T, _KERAS[cell])
        if bias:
            two = cell == "gru" and np.ndim(bias[0]) == 2
            _check_array("bias", bias[0], *((2, gates * units) if two else (gates * units,)))
            b_ih, b_hh = bias[0] if two else (bias[0], np.zeros_like(bias[0]))
            parameters[f"bias_ih{end}"] = _reorder(b_ih, _KERAS[cell])
            parameters[f"bias_hh{end}"] = _reorder(b_hh, _KERAS[cell])
    return parameters


def to_keras(cell: str, parameters: Mapping[str, Array], layer: int = 0, *, reset_after: bool = True) -> list[Array]:
    """What `set_weights` of a Keras SimpleRNN, LSTM or GRU takes, or of a Bidirectional if the layer has a reverse.

    Args:
        cell: "rnn", "lstm" or "gru".
        parameters: ours; may hold other layers too.
        layer: which one.
        reset_after: the variant of a GRU.

    Returns:
        kernel, recurrent_kernel and, if there are biases, bias; of two directions one after the other. Where Keras has
        one bias, it is the sum of ours.

    Raises:
        ValueError: parameters of the layer are missing, or it has a projection, which Keras does not know.
    """
    order = _KERAS[_check_cell(cell)]
    two = check_bool("reset_after", reset_after) and cell == "gru"
    weights = []
    for w_ih, w_hh, *bias in _directions("Keras", parameters, layer):
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
        weights: "W", "R" and, if the operator has it, "B". Peepholes ("P") have no place in our cells.
        layer: the place that they take in our stack.

    Raises:
        TypeError, ValueError: names are missing or unknown, or shapes do not fit.
    """
    gates = GATES[_check_cell(cell)]
    layer = check_int("layer", layer, 0)
    check_names("weights", weights, ("W", "R", "B") if "B" in weights else ("W", "R"))
    order = np.argsort(_ONNX[cell]).tolist()
    directions, _, units = _check_array("R", weights["R"], None, None, None).shape
    if directions not in (1, 2):
        raise ValueError(f"R must have 1 or 2 directions, got {directions}")
    _check_array("R", weights["R"], directions, gates * units, units)
    _check_array("W", weights["W"], directions, gates * units, None)
    if "B" in weights:
        _check_array("B", weights["B"], directions, 2 * gates * units)
    parameters = {}
    for d in range(directions):
        end = suffix(layer, d == 1)
        parameters[f"weight_ih{end}"] = _reorder(weights["W"][d], order)
        parameters[f"weight_hh{end}"] = _reorder(weights["R"][d], order)
        if "B" in weights:
            b_ih, b_hh = np.split(weights["B"][d], 2)
            parameters[f"bias_ih{end}"] = _reorder(b_ih, order)
            parameters[f"bias_hh{end}"] = _reorder(b_hh, order)
    return parameters


def to_onnx(cell: str, parameters: Mapping[str, Array], layer: int = 0) -> dict[str, Array]:
    """The inputs W, R and, if there are biases, B of an ONNX operator for one layer, with all of its directions.

    Args:
        cell: "rnn", "lstm" or "gru".
        parameters: ours; may hold other layers too.
        layer: which one.

    Raises:
        ValueError: parameters of the layer are missing, or it has a projection, which ONNX does not know.
    """
    order = _ONNX[_check_cell(cell)]
    parts = [[_reorder(a, order) for a in arrays] for arrays in _directions("ONNX", parameters, layer)]
    weights = {"W": np.stack([part[0] for part in parts]), "R": np.stack([part[1] for part in parts])}
    if len(parts[0]) > 2:
        weights["B"] = np.stack([np.concatenate(part[2:]) for part in parts])
    return weights


def textbook_gru(parameters: Mapping[str, Array]) -> dict[str, Array]:
    """From a GRU with h' = (1 - z) * h + z * n to ours with h' = (1 - z) * n + z * h, or back: it is its own inverse.

    Since 1 - sigmoid(a) = sigmoid(-a), it takes no more than the negative of all that makes z.
    """
    turned = {}
    for name, array in parameters.items():
        if len(array) % 3:
            raise ValueError(f"parameters: {name} is not a GRU's: 3 gates cannot share {len(array)} rows")
        r, z, n = np.split(array, 3)
        turned[name] = np.ascontiguousarray(np.concatenate([r, -z, n]))
    return turned


def _check_cell(cell: str) -> str:
    return check_choice("cell", cell, tuple(GATES))


def _check_array(name: str, array: Any, *shape: int | None) -> Array:
    """An array of that shape, where None is any size."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} must be a NumPy array, {got(array)}")
    if array.ndim != len(shape) or any(want not in (None, size) for want, size in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must be of shape ({wanted}), got {array.shape}")
    return array


def _reorder(array: Array, order: Sequence[int]) -> Array:
    """A copy with its gates, blocks of rows, in another order."""
    return np.ascontiguousarray(np.concatenate([np.split(array, len(order))[gate] for gate in order]))


def _to_numpy(name: str, tensor: Any) -> Array:
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().numpy()
    if not isinstance(tensor, np.ndarray):
        raise TypeError(f"{name} must be a tensor or a NumPy array, {got(tensor)}")
    return np.array(tensor, order="C")


def _complete(names: Mapping[str, Any]) -> list[str]:
    """All names of the smallest network that has those of these names which a network can have."""
    found = [m for m in (re.fullmatch(r"(weight|bias)_(ih|hh|hr)_l(\d{1,5})(_reverse)?", name) for name in names) if m]
    return parameter_names(
        num_layers=1 + max((int(m[3]) for m in found), default=0),
        bidirectional=any(m[4] for m in found),
        bias=any(m[1] == "bias" for m in found),
        projected=any(m[1] + m[2] == "weighthr" for m in found),
    )


def _directions(library: str, parameters: Mapping[str, Array], layer: int) -> list[list[Array]]:
    """weight_ih, weight_hh and, if there are, bias_ih, bias_hh of each direction of one layer."""
    layer = check_int("layer", layer, 0)
    ends = [suffix(layer), suffix(layer, reverse=True)]
    own = {name: array for name, array in parameters.items() if name.endswith(tuple(ends))}
    if any(name.startswith("weight_hr") for name in own):
        raise ValueError(f"parameters: layer {layer} has a projection (weight_hr), which {library} does not know")
    if not any(name.endswith(ends[1]) for name in own):
        del ends[1]
    stems = ["weight_ih", "weight_hh"]
    if any(name.startswith("bias") for name in own):
        stems += ["bias_ih", "bias_hh"]
    check_names(f"parameters of layer {layer}", own, [stem + end for end in ends for stem in stems])
    return [[own[stem + end] for stem in stems] for end in ends]

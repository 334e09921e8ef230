"""The CUDA kernels, in builds with FASTRNN_CUDA. Addresses are of the device's memory, 0 for what is absent; nothing is
checked here. Work is queued on the given stream."""

from collections.abc import Callable, Sequence

class Network:
    def __init__(
        self,
        cell: str,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: str,
    ) -> None: ...

class Arguments:
    """What forward and backward have in common: x (T, B, I), or (B, T, I) with batch_first; y contiguous."""

    def __init__(
        self,
        x: int,
        sizes: Sequence[int],
        strides: Sequence[int],
        lengths: int,
        h0: int,
        c0: int,
        y: int,
        tape: int,
        seed: int,
    ) -> None: ...

class Memory:
    """Of the current device."""

    def __init__(self, bytes: int) -> None: ...  # noqa: A002
    @property
    def address(self) -> int: ...
    def upload(self, data: bytes) -> None: ...
    def download(self) -> bytes: ...

def synchronize(stream: int) -> None: ...
def current_device() -> int: ...
def device_of(address: int) -> int: ...  # where memory lies; the current one, if it is no device's
def device() -> object: ...  # a capsule: csrc/device.h
def tape_widths(network: Network) -> list[tuple[int, int]]: ...
def forward_at(
    network: Network,
    weights: Sequence[int],
    arguments: Arguments,
    h_n: int,
    c_n: int,
    allocate: Callable[[int], int],
    device: int,
    stream: int,
) -> None: ...
def backward_at(
    network: Network,
    weights: Sequence[int],
    arguments: Arguments,
    dy: int,
    dh_n: int,
    dc_n: int,
    dx: int,
    dh0: int,
    dc0: int,
    gradients: Sequence[int],
    allocate: Callable[[int], int],
    device: int,
    stream: int,
) -> None: ...
def set_way(way: str) -> None: ...
def set_tf32(on: bool) -> None: ...
def explain_plan(network: Network, steps: int, rows: int, backward: bool) -> str: ...
def describe_device() -> str: ...

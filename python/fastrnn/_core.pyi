"""The native kernels. Arrays are checked here; the public, documented interface is in `layers` and `functional`."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

# Activations (name, alpha, beta) by direction, clip, coupled_input_forget, peephole.
Options: TypeAlias = tuple[Sequence[tuple[str, float, float]] | None, float | None, bool, bool]

class Spec:
    """Immutable description of a network."""

    @property
    def cell(self) -> str: ...
    @property
    def input_size(self) -> int: ...
    @property
    def hidden_size(self) -> int: ...
    @property
    def num_layers(self) -> int: ...
    @property
    def bias(self) -> bool: ...
    @property
    def batch_first(self) -> bool: ...
    @property
    def dropout(self) -> float: ...
    @property
    def bidirectional(self) -> bool: ...
    @property
    def proj_size(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def options(self) -> Options | None: ...
    def parameter_shapes(self) -> list[tuple[str, tuple[int, ...]]]: ...

class Tape:
    """What one forward call leaves for its backward calls; it refers to x and to the weights, it does not copy them."""

    @property
    def spec(self) -> Spec: ...
    @property
    def x(self) -> NDArray[Any]: ...
    @property
    def nbytes(self) -> int: ...
    def gates(self, layer: int, direction: int = 0) -> NDArray[Any]: ...
    def cells(self, layer: int, direction: int = 0) -> NDArray[Any]: ...

class Prepared:
    """A snapshot of the weights, packed once, for inference."""

    @property
    def spec(self) -> Spec: ...
    @property
    def nbytes(self) -> int: ...
    def __call__(self, x: NDArray[Any], state: Any = None, *, lengths: Any = None) -> tuple[NDArray[Any], Any]: ...

def make_spec(
    cell: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bias: bool = True,
    batch_first: bool = False,
    dropout: float = 0.0,
    bidirectional: bool = False,
    proj_size: int = 0,
    dtype: str = "float32",
    options: Options | None = None,
) -> Spec: ...
def prepare(spec: Spec, weights: Sequence[NDArray[Any]]) -> Prepared: ...
def check(spec: Spec, weights: Sequence[NDArray[Any]], x: NDArray[Any], state: Any, lengths: Any) -> None: ...
def infer(
    spec: Spec, weights: Sequence[NDArray[Any]], x: NDArray[Any], state: Any, lengths: Any
) -> tuple[NDArray[Any], Any]: ...
def forward(
    spec: Spec, weights: Sequence[NDArray[Any]], x: NDArray[Any], state: Any, lengths: Any, dropout_seed: int
) -> tuple[NDArray[Any], Any, Tape]: ...
def backward(
    tape: Tape, dy: NDArray[Any] | None, dstate: Any
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None, list[NDArray[Any]]]: ...

# Calls on addresses (0: none), for tensors that a framework owns and has checked; sizes and strides (in elements) of x.
# With batch_sizes, the rows that each of so many steps has, x (N, I), y and the tape have those rows alone.
def tape_widths(spec: Spec) -> list[int]: ...
def forward_at(
    spec: Spec,
    weights: Sequence[int] | Prepared,
    threads: int,
    x: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    batch_sizes: int,
    steps: int,
    lengths: int,
    h0: int,
    c0: int,
    y: int,
    h_n: int,
    c_n: int,
    tape: int,
    dropout_seed: int,
) -> None: ...
def backward_at(
    spec: Spec,
    weights: Sequence[int],
    threads: int,
    x: int,
    sizes: Sequence[int],
    strides: Sequence[int],
    batch_sizes: int,
    steps: int,
    lengths: int,
    h0: int,
    c0: int,
    y: int,
    tape: int,
    dropout_seed: int,
    dy: int,
    dh_n: int,
    dc_n: int,
    dx: int,
    dh0: int,
    dc0: int,
    gradients: Sequence[int],
) -> None: ...

# ONNX' operators on C-contiguous arrays of the element type, float16 and bfloat16 as uint16. Inputs: X, W, R, B,
# initial_h, initial_c, P, None where absent.
def run_onnx(
    spec: Spec,
    element: str,
    reverse: bool,
    inputs: Sequence[NDArray[Any] | None],
    sequence_lens: NDArray[Any] | None,
) -> list[NDArray[Any]]: ...
def use_openmp(parallel: int, thread_num: int, num_threads: int, in_parallel: int) -> None: ...

# For JAX; without jaxlib's headers a build has no handlers. Of the interface that they were compiled for: major, minor.
def xla_handlers() -> dict[str, object]: ...
def xla_version() -> tuple[int, int]: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def native_calls() -> int: ...
def isa() -> str: ...
def available_isas() -> list[str]: ...
def set_isa(name: str) -> None: ...
def compiler() -> str: ...
def set_partition(name: str) -> None: ...
def explain_plan(spec: Spec, steps: int, rows: int, backward: bool) -> str: ...
def forward_scratch(spec: Spec, steps: int, rows: int, training: bool, prepared: bool) -> int: ...
def backward_scratch(spec: Spec, steps: int, rows: int) -> int: ...
def fma_rate(dtype: str, threads: int, seconds: float) -> float: ...
def weight_rate(dtype: str, rows: int, depth: int, threads: int, seconds: float) -> float: ...

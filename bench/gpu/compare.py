"""Times the CUDA kernels beside torch.nn with cuDNN, in one process. `make bench-gpu` runs this.

    compare.py LIBRARY --exchange PROGRAM     LIBRARY and PROGRAM are what CMake builds for it

Each case is checked first: both are held against torch.nn in float64, and a case in which ours is too far from that is
not timed. Then the two take turns, and the median of CUDA event times counts, of plain calls and of calls replayed as a
CUDA graph; with --ways also of each way that serves the sizes. What the plan expects of them is written beside. A run
goes on where the last one with the same --output has ended. It ends with 1 if a case was not exact enough.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

try:
    import torch
    from library import DTYPES, WAYS, Library, Network
except ImportError as error:
    sys.exit(f"bench-gpu: {error}; it compares with PyTorch")

TOLERANCES = {"float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}  # ||a - b|| / ||b||, as issued for a GPU
MODULES: dict[str, Callable[..., torch.nn.RNNBase]] = {  # what cuDNN has as well
    "lstm": torch.nn.LSTM,
    "gru": torch.nn.GRU,
    "rnn_tanh": torch.nn.RNN,
    "rnn_relu": partial(torch.nn.RNN, nonlinearity="relu"),
}
DEVICE = "cuda"


@dataclass(frozen=True)
class Case:
    cell: str
    dtype: str
    hidden: int  # as many inputs
    rows: int
    steps: int
    bidirectional: bool
    ragged: bool  # lengths of 1 ... T, drawn uniformly


def grid(full: bool) -> Iterator[Case]:
    rows, hidden = (1, 16, 64, 256), (128, 256, 512, 768, 1024, 2048)
    kinds = itertools.product((False, True), (False, True)) if full else [(False, False)]
    for (bidirectional, ragged), cell, dtype in itertools.product(list(kinds), MODULES, TOLERANCES):
        for h, b, t in itertools.product(hidden, rows, (256, 1024) if full else (1024,)):
            yield Case(cell, dtype, h, b, t, bidirectional, ragged)


class Torch:
    """The same network and batch in torch.nn; lengths as users have them, from and to a padded batch."""

    def __init__(self, module: torch.nn.RNNBase, x: torch.Tensor, dy: torch.Tensor, lengths: Any) -> None:
        self.module, self.x, self.dy = module, x, dy
        self.lengths = None if lengths is None else lengths.cpu()
        self.parameters = dict(module.named_parameters())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.lengths is None:
            return self.module(x)[0]
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, self.lengths, enforce_sorted=False)
        y, _ = self.module(packed)
        return torch.nn.utils.rnn.pad_packed_sequence(y, total_length=len(x))[0]

    def infer(self) -> torch.Tensor:
        with torch.no_grad():
            return self.forward(self.x)

    def train(self) -> dict[str, torch.Tensor]:
        x = self.x.detach().requires_grad_()
        y = self.forward(x)
        gradients = torch.autograd.grad(y, [x, *self.parameters.values()], self.dy)
        names = ("dx", *(f"d{name}" for name in self.parameters))
        return {"y": y.detach()} | dict(zip(names, gradients, strict=True))


def error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b).norm() / b.norm())


def errors_of(case: Case, results: dict[str, dict[str, torch.Tensor]], exact: Torch) -> dict[str, float]:
    """Each one's greatest error. Of many relus one lies at its kink, and gradients beside it say nothing."""
    names = ["y"] if case.cell == "rnn_relu" else None
    expected = exact.train()
    return {
        who: max(error(arrays[name], expected[name]) for name in names or expected) for who, arrays in results.items()
    }


def graph_of(call: Callable[[], Any]) -> Callable[[], None]:
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def median_ms(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Of CUDA event times, the calls taking turns."""
    readings: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    spent = 0.0
    while spent < seconds * 1e3 * len(calls) or len(next(iter(readings.values()))) < 5:
        for name, call in calls.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            readings[name].append(start.elapsed_time(end))
            spent += readings[name][-1]
    return {name: statistics.median(times) for name, times in readings.items()}


def ways_of(ours: Network) -> dict[str, Callable[[], Any]]:
    """A call for each way that serves the sizes, by name."""
    calls: dict[str, Callable[[], Any]] = {}
    for way, mode in itertools.product(WAYS[1:], ("infer", "train")):
        one = ours.by(way)
        try:
            getattr(one, mode)()
        except RuntimeError as error:
            if "does not serve" not in str(error):
                raise
            continue
        calls[f"fastrnn {mode} by {way}"] = graph_of(getattr(one, mode))
    return calls


def measure(library: Library, case: Case, seconds: float, ways: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    dtype = DTYPES[case.dtype]
    module = MODULES[case.cell](case.hidden, case.hidden, bidirectional=case.bidirectional).to(DEVICE)
    x = torch.randn(case.steps, case.rows, case.hidden, device=DEVICE).to(dtype)
    lengths = torch.randint(1, case.steps + 1, (case.rows,), device=DEVICE) if case.ragged else None
    module = module.to(dtype)
    ours = Network(library, case.cell, module, x, lengths)
    ours.dy.copy_(torch.randn_like(ours.dy, dtype=torch.float32) / ours.dy.shape[-1])
    if lengths is not None:
        past = torch.arange(case.steps, device=DEVICE)[:, None] >= lengths
        ours.dy[past] = 0
    theirs = Torch(module, x, ours.dy, lengths)
    wide = MODULES[case.cell](case.hidden, case.hidden, bidirectional=case.bidirectional).to(DEVICE).double()
    wide.load_state_dict({name: w.double() for name, w in module.state_dict().items()})
    exact = Torch(wide, x.double(), ours.dy.double(), lengths)
    ours.train()
    torch.cuda.synchronize()
    row = asdict(case) | {"errors": errors_of(case, {"fastrnn": ours.results, "torch": theirs.train()}, exact)}
    row["plan"] = {mode: ours.plan(backward=mode == "train").splitlines() for mode in ("infer", "train")}
    if not row["errors"]["fastrnn"] <= TOLERANCES[case.dtype]:
        return row | {"wrong": f"{TOLERANCES[case.dtype]:.1e} is allowed"}
    del wide, exact
    calls: dict[str, Callable[[], Any]] = {}
    for mode in ("infer", "train"):
        calls[f"fastrnn {mode}"] = getattr(ours, mode)
        calls[f"fastrnn {mode} as a graph"] = graph_of(getattr(ours, mode))
        calls[f"torch {mode}"] = getattr(theirs, mode)
    if ways:
        calls |= ways_of(ours)
    return row | {"ms": median_ms(calls, seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--exchange", type=Path, help="the program that times how blocks reach one another")
    parser.add_argument("--full", action="store_true", help="both directions, lengths and T = 256 too")
    parser.add_argument("--ways", action="store_true", help="each way of running too")
    parser.add_argument("--only", nargs="+", default=[], help="cells and dtypes, of which a case must have one")
    parser.add_argument("--minutes", type=float, default=math.inf, help="after which no case is begun")
    parser.add_argument("--seconds", type=float, default=0.05, help="for each reading of a case")
    parser.add_argument("--output", type=Path, default=Path("build/bench-gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench-gpu: there is no GPU here; what it needs was built, and nothing was timed")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    results: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "cuda": torch.version.cuda,
        "cases": [],
    }
    if options.exchange:
        said = subprocess.run([options.exchange], capture_output=True, text=True, check=True).stdout
        results["exchange"] = said.splitlines()
        print(said)
    run(Library(options.library), results, options)


def run(library: Library, results: dict[str, Any], options: argparse.Namespace) -> None:
    """Measures what the output does not have yet, and writes it after each case."""
    end = time.monotonic() + 60 * options.minutes
    if options.output.exists():
        before = json.loads(options.output.read_text())
        if before["gpu"] != results["gpu"]:
            sys.exit(f"bench-gpu: {options.output} is of {before['gpu']}, and this is {results['gpu']}: move it away")
        results["cases"] = before["cases"]
    done = {Case(**{field: row[field] for field in Case.__annotations__}) for row in results["cases"]}
    for case in grid(options.full):
        if case in done or (options.only and not {case.cell, case.dtype} & set(options.only)):
            continue
        if time.monotonic() > end:
            print("the time is over; the same command goes on from here")
            break
        try:
            row = measure(library, case, options.seconds, options.ways)
        except torch.cuda.OutOfMemoryError:
            row = asdict(case) | {"errors": "does not fit into memory"}
            torch.cuda.empty_cache()
        results["cases"].append(row)
        ms = {name: round(reading, 3) for name, reading in row.get("ms", {}).items()}
        print(case, ms or (row["errors"], row.get("wrong")), flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    if wrong := [row for row in results["cases"] if "wrong" in row]:
        sys.exit(f"bench-gpu: {len(wrong)} cases are not exact enough, the first with {wrong[0]['errors']}")


if __name__ == "__main__":
    main()

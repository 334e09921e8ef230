"""Times the CUDA kernels beside torch.nn with cuDNN, in one process. `make bench-gpu` runs this.

    compare.py LIBRARY --exchange PROGRAM     LIBRARY and PROGRAM are what CMake builds for it

Each case is checked first: both must be as near to torch.nn in float64 as the suite asks of the kernels. Then the two
take turns, and the median of CUDA event times counts, of plain calls and of calls replayed as a CUDA graph.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

try:
    import torch
    from library import DTYPES, Library, Network
except ImportError as error:
    sys.exit(f"bench-gpu: {error}; it compares with PyTorch")

TOLERANCES = {"float32": 1e-5, "float16": 3e-3, "bfloat16": 2e-2}  # ||a - b|| / ||b||, as issued for a GPU
MODULES = {"rnn_tanh": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}  # what cuDNN has as well


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


def check(case: Case, ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], exact: Torch) -> dict[str, float]:
    """The greatest errors of the two. Ends the run if ours is wrong."""
    expected = exact.train()
    worst = {"fastrnn": 0.0, "torch": 0.0}
    for name, array in expected.items():
        for who, results in (("fastrnn", ours), ("torch", theirs)):
            worst[who] = max(worst[who], error(results[name], array))
    bound = TOLERANCES[case.dtype]
    if not worst["fastrnn"] <= bound:
        sys.exit(f"bench-gpu: {case}: a relative error of {worst['fastrnn']:.1e}, and {bound:.1e} is allowed")
    return worst


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


def measure(library: Library, case: Case, seconds: float) -> dict[str, Any]:
    torch.manual_seed(0)
    dtype = DTYPES[case.dtype]
    module = MODULES[case.cell](case.hidden, case.hidden, bidirectional=case.bidirectional).cuda()
    x = torch.randn(case.steps, case.rows, case.hidden, device="cuda").to(dtype)
    lengths = torch.randint(1, case.steps + 1, (case.rows,), device="cuda") if case.ragged else None
    module = module.to(dtype)
    ours = Network(library, case.cell, module, x, lengths)
    ours.dy.copy_(torch.randn_like(ours.dy, dtype=torch.float32) / ours.dy.shape[-1])
    if lengths is not None:
        past = torch.arange(case.steps, device="cuda")[:, None] >= lengths
        ours.dy[past] = 0
    theirs = Torch(module, x, ours.dy, lengths)
    wide = MODULES[case.cell](case.hidden, case.hidden, bidirectional=case.bidirectional).cuda().double()
    wide.load_state_dict({name: w.double() for name, w in module.state_dict().items()})
    exact = Torch(wide, x.double(), ours.dy.double(), lengths)
    ours.train()
    torch.cuda.synchronize()
    errors = check(case, ours.results, theirs.train(), exact)
    del wide, exact
    calls: dict[str, Callable[[], Any]] = {}
    for mode in ("infer", "train"):
        calls[f"fastrnn {mode}"] = getattr(ours, mode)
        calls[f"fastrnn {mode} as a graph"] = graph_of(getattr(ours, mode))
        calls[f"torch {mode}"] = getattr(theirs, mode)
    return asdict(case) | {"errors": errors, "ms": median_ms(calls, seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", type=Path)
    parser.add_argument("--exchange", type=Path, help="the program that times how blocks reach one another")
    parser.add_argument("--full", action="store_true", help="both directions, lengths and T = 256 too")
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
    library = Library(options.library)
    for case in grid(options.full):
        try:
            row = measure(library, case, options.seconds)
        except torch.cuda.OutOfMemoryError:
            row = asdict(case) | {"errors": "does not fit into memory"}
            torch.cuda.empty_cache()
        results["cases"].append(row)
        ms = row.get("ms", {})
        print(case, {name: round(time, 3) for name, time in ms.items()} or row["errors"], flush=True)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

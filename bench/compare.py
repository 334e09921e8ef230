"""Times fastrnn beside other libraries, on the same numbers, after it has checked that all give the same answer.

    python bench/compare.py                                     the default grid, in half an hour or more
    python bench/compare.py --quick --cells gru                 a first impression
    python bench/compare.py --shapes 8x200 8x40x200 --modes training --threads 4
    python bench/compare.py --picture-only bench/results/NAME.json bench/results/OTHER.json
    python bench/compare.py --markdown-only bench/results/NAME.json

Results go to bench/results/: a JSON file with every reading, and a picture. README.md tells how it is measured.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import options

if __name__ == "__main__":
    OPTIONS = options.parse()
    options.limit_threads(OPTIONS.threads)  # BLAS and OpenMP look when they are loaded, which is now

import fastrnn
import machine
import report
from grid import PACKED, Case
from peers import LAYER, REGISTRY, MissingError, load
from peers.base import Peer
from problem import Problem, WrongAnswerError
from roofline import meeting, peak
from timing import QUICK, Effort, Timed, measure

RESULTS = Path(__file__).parent / "results"


class UserError(Exception):
    """Something the user can mend; its message is all they need to see."""


def load_peers(
    wanted: Sequence[str] | None, threads: int, modes: Collection[str] = ()
) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers, in the registry's order, and of those that are not installed, why they are missing.

    The forms of fastrnn that nothing is compared without, in these modes, are always among them.
    """
    needed = {LAYER} | {report.HEADLINES[mode] for mode in modes if mode in PACKED}
    loaded, missing = {}, {}
    for name in REGISTRY:
        if wanted is None or name in wanted or name in needed:
            try:
                loaded[name] = load(name, threads)
            except MissingError as error:
                if wanted is not None or name in needed:
                    raise UserError(str(error)) from None
                missing[name] = str(error)
    return loaded, missing


def checked(problem: Problem, peers: dict[str, Peer]) -> tuple[dict[str, Timed], dict[str, dict[str, float]]]:
    """What to time, and the errors of the answers that it gives. Raises WrongAnswerError if they are not right."""
    functions, errors = {}, {}
    for name, peer in peers.items():
        if (peer.packs or not problem.case.packed) and peer.supports(problem.case):
            call = peer.prepare(problem)
            context = partial(peer.context, problem.case)
            with context():
                for _ in range(problem.calls_to_check):
                    begin = time.perf_counter()
                    given = call()
                    first = time.perf_counter() - begin
            errors[name] = problem.errors(REGISTRY[name].label, peer.answer(problem, given))
            functions[name] = Timed(call, context, peer.slow, first)
    return functions, errors


def run_case(case: Case, peers: dict[str, Peer], threads: int, effort: Effort, best: float = 0.0) -> dict[str, Any]:
    """The case's entry in the results. Raises WrongAnswerError, before anything is timed."""
    problem = Problem.of(case)
    functions, errors = checked(problem, peers)
    meetings = []

    def now() -> float:
        reached = peak(case.dtype, threads, effort)
        meetings.append(meeting(threads))
        return reached

    ceiling = statistics.median(measure(functions, effort, now, best))
    results = {
        name: report.result(timed.readings, timed.calls, problem.flops, ceiling, errors[name])
        for name, timed in functions.items()
    }
    return report.case_entry(case, problem.flops, ceiling, statistics.median(meetings), results)


def measure_unsteady_again(
    cases: list[dict[str, Any]],
    chosen: Sequence[Case],
    peers: dict[str, Peer],
    threads: int,
    effort: Effort,
    say: Callable[..., None],
) -> None:
    """Up to twice more the cases where the machine was below its best or had cores far apart: the best try counts."""
    best, nearest = max(entry["peak"] for entry in cases), min(entry["meeting"] for entry in cases)

    def state(entry: dict[str, Any]) -> tuple[bool, float]:
        return entry["meeting"] <= report.FAR * nearest, entry["peak"] / best

    for place, case in [*enumerate(chosen), *enumerate(chosen)]:
        near, share = state(cases[place])
        if not near or share < effort.steady:
            far = "" if near else ", and cores far apart"
            say(f"again, since the machine had {share:.0%} of its best{far}: {case}", flush=True)
            cases[place] = max(run_case(case, peers, threads, effort, best), cases[place], key=state)


def compare(
    chosen: Sequence[Case],
    peers: dict[str, Peer],
    missing: dict[str, str],
    threads: int,
    effort: Effort,
    say: Callable[..., None] = print,
) -> report.Document:
    """Run all cases. If the user breaks off, the document has those that are done."""
    config = fastrnn.show_config("dict") or {}
    dtype, steps = chosen[0].dtype, max(case.steps for case in chosen)
    document: report.Document = {
        "format": 3,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "complete": False,
        "fastrnn": {name: config[name] for name in ("version", "compiler", "isa")} | {"commit": commit()},
        "machine": machine.describe(),
        "settings": {"threads": threads, "dtype": dtype, "steps": steps} | asdict(effort),
        "peers": {
            name: {"label": REGISTRY[name].label, "version": peer.version} | peer.details()
            for name, peer in peers.items()
        },
        "missing": missing,
        "others": None,
        "peak": None,
        "meeting": None,
        "cases": [],
    }
    say(report.machine_line(document))
    say(report.software_line(document))
    for message in missing.values():
        say(message)

    before = machine.usage()
    try:
        for number, case in enumerate(chosen, 1):
            elapsed = int(time.monotonic() - before.wall)
            say(f"[{number:>3}/{len(chosen)} {elapsed // 60:>3}:{elapsed % 60:02}] {case}:", end=" ", flush=True)
            best = max((entry["peak"] for entry in document["cases"]), default=0.0)
            document["cases"].append(run_case(case, peers, threads, effort, best))
            say(report.progress(document, document["cases"][-1]), flush=True)
        measure_unsteady_again(document["cases"], chosen, peers, threads, effort, say)
        document["complete"] = True
    except KeyboardInterrupt:
        say("broken off")
    document["others"] = machine.others(before, machine.usage())
    report.conclude(document)
    return document


def commit() -> str:
    """Of the checkout that this file is in, with a plus sign if there are changes."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def read(path: Path) -> report.Document:
    try:
        document = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("format") != 3:
        raise UserError(f"{path} is not a file of results")
    return document


def draw(documents: Sequence[report.Document], names: Sequence[Path]) -> str:
    """A picture of each and, named by the first, one of fastrnn.torch in all of them. Returns what to tell the user."""
    if importlib.util.find_spec("matplotlib") is None:
        return "no picture was drawn, for want of matplotlib; pip install matplotlib"
    import plot

    figures = {
        name.with_name(f"{name.name}.png"): plot.draw(document) for name, document in zip(names, documents, strict=True)
    }
    if drop_in := plot.draw_drop_in(documents):
        figures[names[0].with_name(f"{names[0].name}-torch.png")] = drop_in
    for path, figure in figures.items():
        plot.save(figure, path)
    return "\n".join(f"wrote {path}" for path in figures)


def main(chosen: options.Options) -> None:
    if chosen.markdown_only:
        print(report.markdown(read(chosen.markdown_only)))
        return
    if chosen.picture_only:
        print(draw([*map(read, chosen.picture_only)], [path.with_suffix("") for path in chosen.picture_only]))
        return

    output = chosen.output or RESULTS / f"cpu-{datetime.now(timezone.utc):%Y-%m-%d}"
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror}") from None
    peers, missing = load_peers(chosen.peers, chosen.threads, {case.mode for case in chosen.cases})
    document = compare(chosen.cases, peers, missing, chosen.threads, QUICK if chosen.quick else Effort())
    if not document["cases"]:
        return
    print(f"\n{report.tables(document)}\n")
    for warning in report.warnings(document):
        print(f"Beware: {warning}.")
    data = Path(f"{output}.json")
    data.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {data}")
    print(draw([document], [output]))


if __name__ == "__main__":
    try:
        main(OPTIONS)
    except (UserError, WrongAnswerError) as mistake:
        sys.exit(f"compare: {mistake}")

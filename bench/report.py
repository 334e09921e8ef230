"""From readings to figures: the results document, the tables on the terminal, and those for a README.

A document is what the JSON file holds:

    format          3
    date            of the start, UTC
    complete        whether all cases were measured
    fastrnn         version, compiler, isa, and the checkout's commit
    machine         see machine.py
    settings        threads, dtype, steps, and how long was measured
    peak            multiply-adds, in floating-point operations a second: `median`, `least` and `most` over the cases
    meeting         of all threads at a barrier, in seconds, likewise
    peers           by name: label, version, details
    missing         by name: why a peer was left out
    summary         see `summary`
    others          how many processors were busy with other programs during the cases, on average; null if unknown
    cases           a list, each with
        cell, mode, batch, input, hidden, steps, dtype
        flops       of the matrix products of one call
        peak        the median of the blocks of multiply-adds among this case's
        meeting     likewise; 0 with one thread
        results     by peer: median, q1, q3 (seconds a call, over the blocks), readings (each block's), calls (in a
                    block), flops_per_second, peak_share, errors (of each array, relative to float64)
        speedup     of fastrnn, of fastrnn prepared, and of the adapters, over each other peer: its median over theirs
        best        the fastest of the other peers but the NumPy reference; null if there is none
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from grid import CELLS, MODES, PACKED, STREAMING, Case, Shape
from peers import DROP_INS, LAYER, ORIENTATION, OURS, PREPARED, REGISTRY, TORCH
from timing import quartiles

Document = dict[str, Any]
CELL_LABELS = {
    "lstm": "LSTM",
    "gru": "GRU",
    "gru_reset_before": "GRU, reset before",
    "rnn_tanh": "RNN, tanh",
    "rnn_relu": "RNN, ReLU",
    "rnn_sigmoid": "RNN, sigmoid",
}


# Who streams prepares the network first; the format of packed rows is PyTorch's. Else it is the layer.
HEADLINES = {STREAMING: PREPARED} | dict.fromkeys(PACKED, TORCH)

# Threads that take so many times as long to meet as at best are on cores far apart. On one and the same pair of cores
# it differs by two.
FAR = 3


# ---------------------------------------------------------------------------------------------------------- figures


def result(readings: list[float], calls: int, flops: int, peak: float, errors: dict[str, float]) -> dict[str, Any]:
    q1, median, q3 = quartiles(readings)
    return {
        "median": median,
        "q1": q1,
        "q3": q3,
        "readings": readings,
        "calls": calls,
        "flops_per_second": flops / median,
        "peak_share": flops / median / peak,
        "errors": errors,
    }


def case_entry(
    case: Case, flops: int, peak: float, meeting: float, results: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    speedup = {
        ours: {peer: theirs["median"] / results[ours]["median"] for peer, theirs in results.items() if peer not in OURS}
        for ours in OURS
        if ours in results
    }
    shape = case.shape
    return {
        "cell": case.cell,
        "mode": case.mode,
        "batch": shape.batch,
        "input": shape.input,
        "hidden": shape.hidden,
        "steps": case.steps,
        "dtype": case.dtype,
        "flops": flops,
        "peak": peak,
        "meeting": meeting,
        "results": results,
        "speedup": speedup,
        "best": best(results),
    }


def best(results: dict[str, dict[str, Any]]) -> str | None:
    """The fastest peer of a case's results."""
    rivals = [peer for peer in results if peer not in (*OURS, ORIENTATION)]
    return min(rivals, key=lambda peer: results[peer]["median"], default=None)


def gain(case: dict[str, Any], ours: str, rival: str | None = None) -> tuple[float, str] | None:
    """The speed-up over a peer, or over the best, and which that is; None if either was not measured."""
    rival = rival or best(case["results"])
    measured = rival in case["results"] and ours in case["results"]
    return (case["speedup"][ours][rival], rival) if rival and measured else None


def summary(document: Document) -> list[dict[str, Any]]:
    """For each mode and cell, of the form of fastrnn that the mode's figures are about:

    mode, cell, fastrnn    the form: "fastrnn", "fastrnn-prepared" or "fastrnn-torch"
    gain                   the geometric mean of the speed-ups over each case's best peer; null without peers
    least                  the lowest of them, its `shape` and `peer`; null without peers
    share                  median and least share of the peak where B >= 16 and H >= 256; null without such a shape
    """
    found = []
    for mode in modes(document):
        ours = headline(mode, document)
        for cell in cells(document):
            cases = [case for case in of_mode(document, mode) if case["cell"] == cell and ours in case["results"]]
            gains = [(*over, shape_label(shape_of(case))) for case in cases if (over := gain(case, ours))]
            shares = [
                case["results"][ours]["peak_share"] for case in cases if case["batch"] >= 16 and case["hidden"] >= 256
            ]
            if not cases:
                continue
            entry: dict[str, Any] = {"mode": mode, "cell": cell, "fastrnn": ours}
            entry |= {"gain": None, "least": None, "share": None}
            if gains:
                least, peer, shape = min(gains)
                entry["gain"] = statistics.geometric_mean(over for over, *_ in gains)
                entry["least"] = {"gain": least, "peer": peer, "shape": shape}
            if shares:
                entry["share"] = {"median": statistics.median(shares), "least": min(shares)}
            found.append(entry)
    return found


def drop_in(document: Document, ours: str, rival: str) -> list[list[str]]:
    """For each mode and cell: how much faster a program becomes with fastrnn in it, as rows of a table."""
    rows = []
    for mode in modes(document):
        for cell in cells(document):
            cases = [case for case in of_mode(document, mode) if case["cell"] == cell]
            gains = [(*over, shape_label(shape_of(case))) for case in cases if (over := gain(case, ours, rival))]
            if gains:
                least, _, shape = min(gains)
                mean = statistics.geometric_mean(over for over, *_ in gains)
                rows.append([f"{mode}, {CELL_LABELS[cell]}", ratio(mean), f"{ratio(least)} at {shape}"])
    return rows


def conclude(document: Document) -> None:
    """Enter what follows from the cases."""
    for name in ("peak", "meeting"):
        if values := [case[name] for case in document["cases"]]:
            document[name] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    document["summary"] = summary(document)


def warnings(document: Document, noisy: float = 0.2) -> list[str]:
    """What speaks against the figures: a machine that was not quiet."""
    found = []
    peak = document["peak"]
    if peak["least"] < 0.9 * peak["most"]:
        found.append(f"the machine's peak lay between {_giga(peak['least'])} and {_giga(peak['most'])}")
    meeting = document["meeting"]
    if meeting["most"] > FAR * meeting["least"]:
        found.append(f"threads met in {duration(meeting['least'])} to {duration(meeting['most'])}")
    others = document["others"] or 0
    if others > 0.05:
        found.append(f"other programs took {others:.2f} of {_count(document['machine']['processors'], 'processor')}")
    shaky = [
        (case, peer)
        for case in document["cases"]
        for peer, entry in case["results"].items()
        if entry["q3"] - entry["q1"] > noisy * entry["median"]
    ]
    if shaky:
        of = sum(len(case["results"]) for case in document["cases"])
        found.append(f"{len(shaky)} of {of} medians have quartiles more than {noisy:.0%} apart")
    return found


# ----------------------------------------------------------------------------------------------------------- access


def headline(mode: str, document: Document) -> str:
    """Which form of fastrnn a mode's figures are about."""
    ours = HEADLINES.get(mode, LAYER)
    return ours if any(ours in case["results"] for case in of_mode(document, mode)) else LAYER


def of_mode(document: Document, mode: str) -> list[dict[str, Any]]:
    return [case for case in document["cases"] if case["mode"] == mode]


def modes(document: Document) -> list[str]:
    return [mode for mode in MODES if of_mode(document, mode)]


def cells(document: Document) -> list[str]:
    present = {case["cell"] for case in document["cases"]}
    return [cell for cell in CELLS if cell in present]


def shapes(cases: Iterable[dict[str, Any]]) -> list[Shape]:
    return sorted({shape_of(case) for case in cases})


def shape_of(case: dict[str, Any]) -> Shape:
    return Shape(case["batch"], case["hidden"], case["input"])


def others(document: Document) -> list[str]:
    """The peers beside fastrnn, in the registry's order."""
    return [peer for peer in REGISTRY if peer in document["peers"] and peer not in OURS]


def find(document: Document, mode: str, cell: str, shape: Shape) -> dict[str, Any] | None:
    for case in document["cases"]:
        if (case["mode"], case["cell"], shape_of(case)) == (mode, cell, shape):
            found: dict[str, Any] = case
            return found
    return None


def label(document: Document, peer: str, version: bool = False) -> str:
    entry = document["peers"][peer]
    text: str = entry["label"]
    if version and peer != PREPARED:
        text += f" {entry['version'].split('+')[0]}"
    return text


# ------------------------------------------------------------------------------------------------------------- text


def machine_line(document: Document) -> str:
    machine, settings = document["machine"], document["settings"]
    parts = [
        machine["cpu"],
        f"{machine['cores']} cores{', virtual' if machine.get('virtual') else ''}",
        document["fastrnn"]["isa"],
        _count(settings["threads"], "thread"),
        settings["dtype"],
    ]
    return ", ".join(parts)


def peak_line(document: Document) -> str:
    meeting = document["meeting"]["median"]
    return f"FMA peak {_giga(document['peak']['median'])}" + (
        f", threads meet in {duration(meeting)}" if meeting else ""
    )


def software_line(document: Document) -> str:
    return ", ".join(
        [label(document, LAYER, version=True), *(label(document, peer, version=True) for peer in others(document))]
    )


def progress(document: Document, case: dict[str, Any]) -> str:
    """One case on one line."""
    ours = headline(case["mode"], {"cases": [case]})
    parts = []
    for peer, entry in case["results"].items():
        of_peer = duration(entry["median"]) if peer in OURS else ratio(case["speedup"][ours][peer])
        parts.append(f"{label(document, peer)} {of_peer}")
    return " | ".join(parts)


def tables(document: Document) -> str:
    """For the terminal: a summary, then each mode's times, their spread, share of peak and what others take."""
    lines = [machine_line(document), software_line(document), peak_line(document)]
    rows = [SUMMARY_HEAD, *_summary_rows(document)]
    lines += ["", f"fastrnn over the best peer of each case; {LARGE}", *_aligned(rows)]
    for ours, rival in DROP_INS.items():
        if rows := drop_in(document, ours, rival):
            lines += ["", _drop_in_title(document, ours, rival), *_aligned([DROP_IN_HEAD, *rows])]
    for mode in modes(document):
        cases = of_mode(document, mode)
        ours = headline(mode, document)
        rest = [p for p in document["peers"] if p != ours and any(p in c["results"] for c in cases)]
        steps = "" if mode == STREAMING else f", T {cases[0]['steps']}"
        lines += ["", f"{mode}{steps}: median, spread, share of the FMA peak; then what others take, × that time"]
        rows = [["", label(document, ours), "best peer", *(label(document, peer) for peer in rest)]]
        for cell in cells(document):
            for shape in shapes(cases):
                case = find(document, mode, cell, shape)
                if case is not None:
                    over = gain(case, ours)
                    fastest = f"{ratio(over[0]):>5} {label(document, over[1])}" if over else "–"
                    rows.append([f"{CELL_LABELS[cell]} {shape}", _cell(case, ours), fastest])
                    rows[-1] += [_times(case, peer, ours) for peer in rest]
        lines += _aligned(rows)
    return "\n".join(lines)


def markdown(document: Document) -> str:
    """For a README: the summary, then one table a mode, one column a cell."""
    meaning = ["time of a call", "speed-up over the best peer", "share of the FMA peak"]
    lines = [
        f"{machine_line(document)}; {peak_line(document)}; {software_line(document)}; {document['date'][:10]}.",
        "",
        f"**Summary**: speed-up over the best peer of each case; {LARGE}",
        "",
        *_markdown_table([SUMMARY_HEAD, *_summary_rows(document)]),
        "",
        *_drop_in_lines(document),
        f"Each entry below: {', '.join(meaning)}.",
    ]
    for mode in modes(document):
        cases = of_mode(document, mode)
        ours = headline(mode, document)
        present = [cell for cell in cells(document) if any(case["cell"] == cell for case in cases)]
        what = MODES[mode] if mode == STREAMING else f"{MODES[mode]}, T = {cases[0]['steps']}"
        prepared = f"; {label(document, ours)}" if ours != LAYER else ""
        lines += ["", f"**{mode.capitalize()}** ({what}{prepared})", ""]
        rows = [["B, H", *(CELL_LABELS[cell] for cell in present)]]
        for shape in shapes(cases):
            entries = [_markdown_entry(document, find(document, mode, cell, shape), ours) for cell in present]
            rows.append([shape_label(shape), *entries])
        lines += _markdown_table(rows)
    return "\n".join(lines)


def _drop_in_lines(document: Document) -> list[str]:
    lines = []
    for ours, rival in DROP_INS.items():
        if rows := drop_in(document, ours, rival):
            title = _drop_in_title(document, ours, rival)
            lines += [f"**{title}**", "", *_markdown_table([DROP_IN_HEAD, *rows]), ""]
    return lines


def _drop_in_title(document: Document, ours: str, rival: str) -> str:
    return f"{label(document, ours)} over {label(document, rival)}, the same program"


DROP_IN_HEAD = ["", "geometric mean", "least"]
SUMMARY_HEAD = ["", "geometric mean", "least", "share of the peak, median", "least"]
LARGE = "shares of the FMA peak where B ≥ 16 and H ≥ 256"


def _summary_rows(document: Document) -> list[list[str]]:
    rows = []
    for entry in summary(document):
        least, share = entry["least"], entry["share"]
        row = [f"{entry['mode']}, {CELL_LABELS[entry['cell']]}"]
        row.append(ratio(entry["gain"]) if least else "–")
        row.append(f"{ratio(least['gain'])} {label(document, least['peer'])} at {least['shape']}" if least else "–")
        row += [f"{share['median']:.0%}", f"{share['least']:.0%}"] if share else ["–", "–"]
        rows.append(row)
    return rows


def _markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(rows[0]) + "|")
    return lines


def _markdown_entry(document: Document, case: dict[str, Any] | None, ours: str) -> str:
    if case is None or ours not in case["results"]:
        return ""
    entry, over = case["results"][ours], gain(case, ours)
    against = f", **{ratio(over[0])}** {label(document, over[1])}" if over else ""
    return f"{duration(entry['median'])}{against}, {entry['peak_share']:.0%}"


def shape_label(shape: Shape) -> str:
    return f"{shape.batch}, {shape.hidden}" + (f" (I {shape.input})" if shape.input != shape.hidden else "")


def duration(seconds: float) -> str:
    """Three digits."""
    for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= 0.9995 * unit or name == "µs":
            break
    value = seconds / unit
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {name}"


def ratio(value: float) -> str:
    return f"{value:.{2 if value < 1.995 else 1 if value < 9.95 else 0}f}×"


def _cell(case: dict[str, Any], peer: str) -> str:
    """The spread is half the distance between the quartiles."""
    if peer not in case["results"]:
        return "–"
    entry = case["results"][peer]
    spread = (entry["q3"] - entry["q1"]) / 2 / entry["median"]
    return f"{duration(entry['median']):>8} ±{spread:>5.1%} {entry['peak_share']:>4.0%}"


def _times(case: dict[str, Any], peer: str, ours: str) -> str:
    if not {peer, ours} <= case["results"].keys():
        return "–"
    return f"{ratio(case['results'][peer]['median'] / case['results'][ours]['median']):>5}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _giga(flops: float) -> str:
    return f"{flops / 1e9:.0f} GFLOP/s"

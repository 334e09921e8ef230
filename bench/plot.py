"""Draws the pictures of results documents; see report.py for what those are."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

import report
from grid import CELLS, MODES, PACKED, STREAMING, Shape
from peers import LAYER, ORIENTATION, PREPARED, PYTORCH, REGISTRY, TORCH
from report import Document

# The background is opaque: the picture is the same on a light page and on a dark one.
PAPER, INK, FAINT, LINE, SLOWER = "#ffffff", "#1b2733", "#5b6b7a", "#d5dce3", "#b5442e"
CELL_COLORS = {
    "lstm": "#2b6cb0",
    "gru": "#2a9d8f",
    "gru_reset_before": "#8ab17d",
    "rnn_tanh": "#e09f3e",
    "rnn_relu": "#c1666b",
    "rnn_sigmoid": "#8e6c9e",
}
CELL_HEADS = {  # over narrow columns
    "lstm": "LSTM",
    "gru": "GRU",
    "gru_reset_before": "GRU\nbefore",
    "rnn_tanh": "RNN\ntanh",
    "rnn_relu": "RNN\nReLU",
    "rnn_sigmoid": "RNN\nsigmoid",
}
# Slower than the peer is red; as fast is nearly white; the deepest blue stands for 32 times as fast and more.
GAIN_COLORS = LinearSegmentedColormap.from_list(
    "gain", [(0, SLOWER), (0.5, "#f5f6f4"), (0.64, "#b7d7e2"), (0.8, "#4b93ad"), (1, "#17495f")]
)
GAIN_NORM = TwoSlopeNorm(vmin=-2, vcenter=0, vmax=5)  # of log2
PEER: dict[str, Any] = {"markersize": 4.5, "markerfacecolor": PAPER, "markeredgecolor": INK, "markeredgewidth": 1.1}

# Inches.
LEFT, RIGHT, TOP, FOOT = 0.95, 0.35, 1.34, 0.65
ROW, BARS = 0.30, 3.4  # a shape's height, the width of the bars
COLUMNS = {"best": 0.8, ORIENTATION: 0.64}  # a cell's width in each map of speed-ups
GAP = 0.38  # between panels
HEAD, AXIS, BETWEEN = 0.92, 0.22, 0.28  # above a mode's panels, below them, and between two modes


def save(figure: Figure, path: Path) -> None:
    """As a PNG file."""
    figure.savefig(path, dpi=170, facecolor=PAPER)


def page(width: float, height: float) -> tuple[Figure, Callable[..., None], Callable[..., Axes]]:
    """A figure of so many inches, and what writes and makes panels on it, in inches from the left and the top."""
    figure = Figure(figsize=(width, height))

    def words(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, text, **({"color": INK, "va": "baseline"} | style))

    def panel(x: float, y: float, wide: float, tall: float) -> Axes:
        """With its upper left corner there."""
        return figure.add_axes((x / width, 1 - (y + tall) / height, wide / width, tall / height))

    return figure, words, panel


def draw(document: Document) -> Figure:
    """A band for each mode: maps of speed-ups, over each case's best peer and over NumPy, then the share of the peak.

    A map has a row for each shape and a column for each cell.
    """
    modes, cells = report.modes(document), report.cells(document)
    fastest = {report.best(case["results"]) for case in document["cases"]} - {None}
    rivals = [peer for peer in _shown(document) if peer in fastest]
    shapes = {mode: report.shapes(report.of_mode(document, mode)) for mode in modes}
    maps = [*(["best"] if rivals else []), *([ORIENTATION] if ORIENTATION in document["peers"] else [])]
    bars_left = LEFT + sum(len(cells) * COLUMNS[over] + GAP for over in maps)
    width = max(bars_left + BARS + RIGHT, 7.5)
    height = TOP + FOOT + sum(HEAD + len(shapes[mode]) * ROW + AXIS + BETWEEN for mode in modes)
    figure, words, panel = page(width, height)
    words(0.25, 0.42, _title(document), fontsize=16, fontweight="bold")
    software = ", ".join(report.label(document, name, version=True) for name in (LAYER, *_shown(document)))
    words(0.25, 0.68, software, fontsize=9, color=FAINT)
    words(0.25, 0.87, report.machine_line(document), fontsize=9, color=FAINT)
    words(0.25, 1.06, report.peak_line(document), fontsize=9, color=FAINT)

    y = TOP
    for mode in modes:
        ours, tall = report.headline(mode, document), len(shapes[mode]) * ROW
        words(0.25, y + 0.27, _mode_title(document, mode), fontsize=12, fontweight="bold")
        words(LEFT - 0.1, y + HEAD - 0.07, "B, H", fontsize=9, color=FAINT, ha="right")
        x = LEFT
        for over in maps:
            table = len(cells) * COLUMNS[over]
            over_whom = "the best peer" if over == "best" else report.label(document, over)
            words(x, y + 0.52, f"speed-up over {over_whom}", fontsize=9, color=FAINT)
            rival = None if over == "best" else over
            _gains(panel(x, y + HEAD, table, tall), document, mode, cells, shapes[mode], ours, rival)
            x += table + GAP
        unit = "time of a step" if mode == STREAMING else "share of the FMA peak"
        words(bars_left, y + 0.52, unit, fontsize=9, color=FAINT)
        bars = panel(bars_left, y + HEAD, BARS, tall)
        (_times if mode == STREAMING else _shares)(bars, document, mode, cells, shapes[mode])
        _rows(figure.axes[-1 - len(maps) :], shapes[mode])
        y += HEAD + tall + AXIS + BETWEEN

    handles: list[Any] = [Patch(color=CELL_COLORS[cell], label=report.CELL_LABELS[cell]) for cell in cells]
    if rivals:
        handles += bars.plot([], [], marker="D", color="none", **PEER, label="best peer")
        names = [f"{REGISTRY[peer].letter} {report.label(document, peer)}" for peer in rivals]
        words(LEFT, height - 0.47, f"best peer:  {'   '.join(names)}", fontsize=9)
    figure.legend(
        handles=handles,
        loc="lower right",
        bbox_to_anchor=((width - RIGHT) / width, 0.14 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        borderaxespad=0,
        handlelength=1.2,
        columnspacing=1.4,
    )
    words(0.25, height - 0.2, document["date"][:10], fontsize=9, color=FAINT)
    return figure


def draw_drop_in(documents: Sequence[Document]) -> Figure | None:
    """A map for each mode: how much faster fastrnn.torch makes a program for PyTorch. None where neither was measured.

    Each mode is shown as the first document has it that has both.
    """
    ours, rival = TORCH, PYTORCH
    source: dict[str, Document] = {}
    for document in documents:
        if {ours, rival} <= document["peers"].keys():
            source |= dict.fromkeys(report.modes(document), document)
    if not source:
        return None
    modes = [mode for mode in MODES if mode in source]
    cells = [cell for cell in CELLS if any(cell in report.cells(document) for document in source.values())]
    shapes = report.shapes(case for mode in modes for case in report.of_mode(source[mode], mode))
    table, tall = len(cells) * COLUMNS[ORIENTATION], len(shapes) * ROW
    width = max(LEFT + len(modes) * (table + GAP) - GAP + RIGHT, 7.5)
    figure, words, panel = page(width, TOP + HEAD + tall + FOOT)

    first = source[modes[0]]
    words(0.25, 0.42, "A program for PyTorch, with fastrnn.torch in place of torch.nn", fontsize=16, fontweight="bold")
    words(0.25, 0.68, "how many times as fast its recurrent layer becomes", fontsize=9, color=FAINT)
    software = f"{report.label(first, LAYER, version=True)}, {report.label(first, rival, version=True)}"
    words(0.25, 0.87, f"{software}, {report.machine_line(first)}", fontsize=9, color=FAINT)
    words(LEFT - 0.1, TOP + HEAD - 0.07, "B, H", fontsize=9, color=FAINT, ha="right")
    for place, mode in enumerate(modes):
        x = LEFT + place * (table + GAP)
        name, how = _mode_words(source[mode], mode)
        words(x, TOP + 0.3, name, fontsize=12, fontweight="bold")
        words(x, TOP + 0.52, how, fontsize=9, color=FAINT)
        _gains(panel(x, TOP + HEAD, table, tall), source[mode], mode, cells, shapes, ours, rival)
    _rows(figure.axes, shapes)
    dates = sorted({document["date"][:10] for document in source.values()})
    words(0.25, TOP + HEAD + tall + FOOT - 0.2, ", ".join(dates), fontsize=9, color=FAINT)
    return figure


def _rows(panels: Sequence[Axes], shapes: Sequence[Shape]) -> None:
    """Lines for the shapes, with their names at the first panel."""
    for axes in panels:
        axes.set_ylim(len(shapes) - 0.5, -0.5)
        axes.set_yticks([])
    panels[0].set_yticks(range(len(shapes)), [report.shape_label(shape) for shape in shapes])
    panels[0].tick_params(axis="y", labelsize=9.5, labelcolor=INK, length=0)


def _shown(document: Document) -> list[str]:
    """The peers that can be the best."""
    return [peer for peer in report.others(document) if peer != ORIENTATION]


def _title(document: Document) -> str:
    names = [report.label(document, peer) for peer in _shown(document)]
    if len(names) > 2:
        return f"fastrnn beside {len(names)} other libraries"
    return " beside ".join(["fastrnn", *[" and ".join(names)] * bool(names)])


def _mode_title(document: Document, mode: str) -> str:
    if mode == STREAMING:
        prepared = report.headline(mode, document) == PREPARED
        return ": ".join(_mode_words(document, mode)) + (", prepared" if prepared else "")
    form = [report.label(document, TORCH)] if mode in PACKED else []
    return ", ".join([*_mode_words(document, mode), *form])


def _mode_words(document: Document, mode: str) -> tuple[str, str]:
    """The mode's name, and what is to be known of it."""
    if mode == STREAMING:
        return "Streaming", "one step of one sequence"
    name, _, rows = mode.partition("-")
    steps = report.of_mode(document, mode)[0]["steps"]
    return name.capitalize(), f"{'packed, ' if mode in PACKED else ''}T = {f'1…{steps}' if rows else steps}"


def _gains(
    axes: Axes,
    document: Document,
    mode: str,
    cells: Sequence[str],
    shapes: Sequence[Shape],
    ours: str,
    rival: str | None = None,
) -> None:
    """A map of the speed-ups of a form of fastrnn over a peer, or over the best with its letter."""
    for column, cell in enumerate(cells):
        for row, shape in enumerate(shapes):
            case = report.find(document, mode, cell, shape)
            over = report.gain(case, ours, rival) if case else None
            style: dict[str, Any] = {"va": "center_baseline", "fontsize": 9.5}
            if over is None:
                axes.text(column, row, "–", color=FAINT, ha="center", **style)
                continue
            gain, peer = over
            color = GAIN_COLORS(GAIN_NORM(math.log2(gain)))
            axes.add_patch(Rectangle((column - 0.475, row - 0.45), 0.95, 0.9, color=color, linewidth=0))
            if rival is not None:
                axes.text(column, row, report.ratio(gain), color=_on(color, gain), ha="center", **style)
                continue
            axes.text(column + 0.17, row, report.ratio(gain), color=_on(color, gain), ha="right", **style)
            style["fontsize"] = 7.5
            axes.text(column + 0.32, row, REGISTRY[peer].letter, color=_on(color, gain), ha="center", **style)
    axes.set_xlim(-0.5, len(cells) - 0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(cells)), [CELL_HEADS[cell] for cell in cells])
    axes.tick_params(length=0, labelsize=9, labelcolor=INK, pad=2)
    axes.spines[:].set_visible(False)


def _on(color: tuple[float, ...], gain: float) -> str:
    """The colour of a speed-up's text on this colour."""
    light = sum(part * weight for part, weight in zip(color, (0.30, 0.59, 0.11), strict=False))
    return "white" if light < 0.5 else SLOWER if gain < 1 else INK


def _shares(axes: Axes, document: Document, mode: str, cells: list[str], shapes: list[Shape]) -> None:
    _bars(axes, document, mode, cells, shapes, "peak_share", 100)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 25), [f"{tick}%" for tick in range(0, 101, 25)])


def _times(axes: Axes, document: Document, mode: str, cells: list[str], shapes: list[Shape]) -> None:
    """On a logarithmic scale."""
    axes.set_xscale("log")
    values = _bars(axes, document, mode, cells, shapes, "median", 1e6)
    low, high = math.floor(math.log10(min(values) * 0.8)), math.ceil(math.log10(max(values) * 1.05))
    axes.set_xlim(10**low, 10**high)
    axes.set_xticks([10**n for n in range(low, high + 1)], [_microseconds(10**n) for n in range(low, high + 1)])
    axes.minorticks_off()


def _microseconds(number: float) -> str:
    return f"{number / 1000:g} ms" if number >= 1000 else f"{number:g} µs"


def _bars(
    axes: Axes,
    document: Document,
    mode: str,
    cells: list[str],
    shapes: list[Shape],
    field: str,
    unit: float,
) -> list[float]:
    """A bar for fastrnn's field, a diamond for the best peer's. Returns the values."""
    ours = report.headline(mode, document)
    thick = 0.8 / len(cells)
    values = []
    for offset, cell in enumerate(cells):
        for row, shape in enumerate(shapes):
            case = report.find(document, mode, cell, shape)
            if case is None:
                continue
            y = row + (offset - (len(cells) - 1) / 2) * thick
            values.append(unit * case["results"][ours][field])
            axes.barh(y, values[-1], height=0.88 * thick, color=CELL_COLORS[cell], linewidth=0, zorder=2)
            rival = report.best(case["results"])
            if rival is not None:
                values.append(unit * case["results"][rival][field])
                axes.plot(values[-1], y, marker="D", linestyle="none", zorder=3, clip_on=False, **PEER)
    axes.grid(axis="x", color=LINE, linewidth=0.8, zorder=0)
    axes.spines[["bottom", "right", "top"]].set_visible(False)
    axes.spines["left"].set_color(FAINT)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=FAINT)
    return values

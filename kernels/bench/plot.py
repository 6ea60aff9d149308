"""Two pictures of a report: the roofline, and bars of every implementation beside the floor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .results import Report, Row
from .run import CANARY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

_COLOURS = "#0b7a75 #4fb0ae #d1495b #edae49 #30638e #8d99ae #7d4f9e #b5651d #5b8c5a".split()
_GREY = "#6b7280"
_INK = "#111827"
_MARKS = {"fwd": "o", "bwd": "s", "fwd+bwd": "D", "build": "^"}


def draw(reports: Sequence[Report], folder: Path) -> list[Path]:
    """Draw every op of the reports.

    Args:
        reports: what `results.load` gives.
        folder: written to: ``<op>-bars.png`` and, where there are products, ``<op>-roofline.png``.

    Returns:
        The pictures.

    Raises:
        ValueError: matplotlib is missing, or there is nothing to draw.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError("--plot: needs matplotlib") from None
    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for op in dict.fromkeys(row.op for report in reports for row in report.rows):
        rows = [(report, row) for report in reports for row in _timed(report, op)]
        if not rows:
            continue
        drawn.append(_bars(rows, op, folder / f"{op}-bars.png"))
        if any(row.flops and row.mode != "fwd+bwd" and not row.computes for _, row in rows):
            drawn.append(_roofline(rows, op, folder / f"{op}-roofline.png"))
    if not drawn:
        raise ValueError("--plot: the file holds no times")
    return drawn


def _timed(report: Report, op: str) -> list[Row]:
    """Cold times of an op, ours first, and of ours in a later report only what is new."""
    found = report.find(op=op, metric="time", cache="cold")
    return sorted((row for row in found if row.provider != CANARY), key=lambda row: not row.ours)


def _colours(rows: Sequence[tuple[Report, Row]]) -> dict[str, str]:
    names = list(dict.fromkeys(row.provider for _, row in rows))
    return {name: _COLOURS[k % len(_COLOURS)] for k, name in enumerate(names)}


def _title(rows: Sequence[tuple[Report, Row]], text: str) -> str:
    head = rows[0][0].header
    smoke = "SMOKE RUN, tiny problems: " if head["smoke"] else ""
    return f"{smoke}{text}, {head['device']}, {head['dtype']}, {head['date'][:10]}"


def _clean(axis: Axes) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(_GREY)
    axis.tick_params(colors=_GREY, labelcolor=_INK, which="both")


def _bars(rows: Sequence[tuple[Report, Row]], op: str, path: Path) -> Path:
    """One panel a case and mode: horizontal bars, whiskers 20 to 80 %, a line for the floor."""
    import matplotlib.pyplot as plt

    panels: dict[tuple[str, str], dict[str, Row]] = {}
    for _, row in rows:
        panels.setdefault((row.case, row.mode), {}).setdefault(row.provider, row)
    modes = [mode for mode in _MARKS if any(key[1] == mode for key in panels)]
    cases = list(dict.fromkeys(case for case, _ in panels))
    most = max(len(panel) for panel in panels.values())
    colours = _colours(rows)
    figure, axes = plt.subplots(
        len(cases), len(modes), squeeze=False, layout="constrained",
        figsize=(1.2 + 4.0 * len(modes), 0.6 + len(cases) * (0.55 + 0.24 * most)),
    )  # fmt: skip
    for i, case in enumerate(cases):
        for j, mode in enumerate(modes):
            axis = axes[i][j]
            panel = panels.get((case, mode))
            if panel is None:
                axis.set_visible(False)
                continue
            _panel(axis, list(panel.values()), colours)
            axis.set_title(f"{case} {mode}", loc="left", fontsize=10, color=_INK)
            if i == len(cases) - 1:
                axis.set_xlabel("ms, cold cache", color=_INK)
    title = _title(rows, f"{op}: time (dotted: the floor)")
    figure.suptitle(title, fontsize=11, color=_INK)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _panel(axis: Axes, rows: list[Row], colours: dict[str, str]) -> None:
    values = [row.p50 or 0.0 for row in rows]
    whiskers = [
        [value - (row.p20 or 0.0) for value, row in zip(values, rows, strict=True)],
        [(row.p80 or 0.0) - value for value, row in zip(values, rows, strict=True)],
    ]
    names = [row.provider + ("*" if row.computes else "") for row in rows]
    axis.barh(
        names, values, xerr=whiskers, color=[colours[row.provider] for row in rows],
        error_kw={"ecolor": _GREY, "elinewidth": 1}, height=0.7,
    )  # fmt: skip
    axis.invert_yaxis()
    reach = max(row.p80 or 0.0 for row in rows)
    for place, (value, row) in enumerate(zip(values, rows, strict=True)):
        at = (row.p80 or value) + reach * 0.015
        axis.text(at, place, f"{value:.3g}", va="center", fontsize=8, color=_INK)
    if rows[0].floor_ms:
        axis.axvline(rows[0].floor_ms, color=_INK, linestyle=":", linewidth=1.2)
    axis.set_xlim(0, reach * 1.16)
    axis.tick_params(labelsize=8)
    other = [row.computes for row in rows if row.computes]
    if other:
        axis.set_title(f"* {other[0]}", loc="right", fontsize=7, color=_GREY)
    _clean(axis)


def _roofline(rows: Sequence[tuple[Report, Row]], op: str, path: Path) -> Path:
    """Useful flops a second over useful flops a byte, under the two measured ceilings.

    Forward and backward alone; nobody who computes something else than the case.
    """
    import matplotlib.pyplot as plt

    points = [
        (row, *_point(row))
        for _, row in rows
        if row.flops and row.p50 and row.mode != "fwd+bwd" and not row.computes
    ]
    figure, axis = plt.subplots(figsize=(9.5, 5.6), layout="constrained")
    ceilings = rows[0][0].ceilings
    ridge = ceilings.matmul_flops_per_s / ceilings.copy_bytes_per_s
    low, high = min(ridge, *(x for _, x, _ in points)), max(ridge, *(x for _, x, _ in points))

    def roof(x: float) -> float:
        return min(x * ceilings.copy_bytes_per_s, ceilings.matmul_flops_per_s) / 1e12

    line = [low / 2, ridge, high * 3]
    axis.loglog(line, [roof(x) for x in line], color=_INK, linewidth=1.5)
    colours = _colours(rows)
    for row, x, y in points:
        axis.plot(
            x, y, _MARKS[row.mode], color=colours[row.provider], markersize=8 if row.ours else 5,
            alpha=0.9, markeredgecolor="white", markeredgewidth=0.5,
        )  # fmt: skip
    for case, x in _spread(points).items():
        axis.annotate(
            case, (x, roof(x)), xytext=(0, 8), textcoords="offset points", rotation=90,
            fontsize=8, ha="center", va="bottom", color=_GREY,
        )  # fmt: skip
    axis.set_ylim(min(y for _, _, y in points) / 4, roof(high) * 5)
    axis.set_xlabel("useful flops a compulsory byte", color=_INK)
    axis.set_ylabel("useful TFLOP/s", color=_INK)
    axis.set_title(_title(rows, f"{op}: roofline, cold cache"), loc="left", fontsize=10)
    axis.legend(handles=_legend(colours, {row.mode for row, _, _ in points}), frameon=False,
                fontsize=8, loc="lower right", ncols=2)  # fmt: skip
    _clean(axis)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _spread(points: Sequence[tuple[Row, float, float]]) -> dict[str, float]:
    """Return where each case's label stands: the middle of its points, a label's width apart."""
    logs: dict[str, list[float]] = {}
    for row, x, _ in points:
        logs.setdefault(row.case, []).append(math.log10(x))
    places: dict[str, float] = {}
    last = -math.inf
    for case, values in sorted(logs.items(), key=lambda item: sum(item[1]) / len(item[1])):
        last = max(sum(values) / len(values), last + 0.06)
        places[case] = 10**last
    return places


def _point(row: Row) -> tuple[float, float]:
    """Flops a byte, and TFLOP/s."""
    assert row.flops and row.bytes and row.p50
    return row.flops / row.bytes, row.flops / (row.p50 / 1e3) / 1e12


def _legend(colours: dict[str, str], modes: set[str]) -> list[Any]:
    from matplotlib.lines import Line2D

    names = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=name)
        for name, colour in colours.items()
    ]
    shapes = [
        Line2D([], [], marker=mark, linestyle="", color=_GREY, label=mode)
        for mode, mark in _MARKS.items()
        if mode in modes
    ]
    return [*names, *shapes]

"""Geometry of learning curves: what the template draws as SVG, in its own units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks_eval.curves import AXES, Curve, Onset, Sweep
from benchmarks_eval.pages.sides import Side
from benchmarks_eval.report import number, short

WIDTH, HEIGHT = 380, 236
LEFT, RIGHT, TOP, BOTTOM = 42, 14, 12, 44
PHASE_PX = 6.2
"""Width of a letter of a phase's name."""


@dataclass(frozen=True)
class Scale:
    """From values to places in the drawing."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The place of a value, to a tenth."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(self.start + share * (self.end - self.start), 1)


def charts(side: Side) -> list[dict[str, Any]]:
    """One chart of a sweep for each task and figure, all kinds of model in it, over each axis."""
    swept = side.swept
    assert swept is not None
    colours = {model.kind: model.colour for model in side.models}
    figures: dict[tuple[str, str], list[Curve]] = {}
    for curve in swept.curves:
        figures.setdefault((curve.task, curve.figure), []).append(curve)
    return [{
        "task": task, "figure": figure, "label": curves[0].label, "group": curves[0].group,
        "primary": curves[0].primary, "unit": curves[0].unit,
        "drawings": [drawing(curves, axis, swept, colours) for axis in AXES],
        "series": [_series(curve, swept, colours[curve.kind]) for curve in curves],
    } for (task, figure), curves in figures.items()]


def _series(curve: Curve, swept: Sweep, colour: str) -> dict[str, Any]:
    unit = curve.unit
    phases = {place.step: place.phase for place in swept.checkpoints if place.kind == curve.kind}
    return {
        "kind": curve.kind, "colour": colour,
        "onset": _onset(curve.onset),
        "points": [{
            "step": f"{point.step:,}", "phase": phases[point.step],
            "words": f"{point.words_seen:,}", "pairs": f"{point.pairs_seen:,}",
            "value": number(point.value, unit), "above": point.above,
            "interval": f"{short(point.low, unit)} to {short(point.high, unit)}",
            "floor": number(point.floor, unit), "n": point.n, "ties": point.ties,
            "nonfinite": point.nonfinite} for point in curve.points]}


def _onset(onset: Onset | None) -> str | None:
    if onset is None:
        return None
    before = ("the first checkpoint" if onset.after is None
              else f"not yet at {onset.after:,}") + (", only the last" if onset.points == 1 else "")
    return (f"onset at step {onset.step:,} ({before}), {onset.words_seen:,} words, "
            f"{onset.pairs_seen:,} pairs")


def drawing(curves: Sequence[Curve], axis: str, swept: Sweep,
            colours: Mapping[str, str]) -> dict[str, Any]:
    """Lines, bands and ticks of one chart over one axis (a name in `AXES`)."""
    y = _vertical(curves)
    most = max(int(getattr(place, axis)) for place in swept.checkpoints)
    x = Scale(0, most or 1, LEFT, WIDTH - RIGHT)
    drawn: list[dict[str, Any]] = []
    for curve in curves:
        own = curve.points
        across = [x(getattr(point, axis)) for point in curve.points]
        floor = [y(point.floor) for point in curve.points]
        onset = curve.onset
        drawn.append({
            "colour": colours[curve.kind], "kind": curve.kind,
            "line": _path([(px, y(p.value)) for px, p in zip(across, own, strict=True)]),
            "band": _path([(px, y(p.high)) for px, p in zip(across, own, strict=True)]
                          + [(px, y(p.low)) for px, p in zip(across, own, strict=True)][::-1]),
            "floor": _path([(LEFT, floor[0]), *zip(across, floor, strict=True),
                            (WIDTH - RIGHT, floor[-1])]),
            "dots": [{"x": px, "y": y(p.value), "title":
                      f"{curve.kind}, step {p.step:,}: {number(p.value, curve.unit)} "
                      f"({short(p.low, curve.unit)} to {short(p.high, curve.unit)})"}
                     for px, p in zip(across, own, strict=True)],
            "onset": None if onset is None else {
                "x": x(getattr(onset, axis)),
                "y": next(y(p.value) for p in own if p.step == onset.step)},
        })
    return {
        "axis": axis, "name": AXES[axis], "width": WIDTH, "height": HEIGHT,
        "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM,
        "chance": y(curves[0].chance), "series": drawn, "phases": _phases(swept, axis, x),
        "x_ticks": [{"at": x(value), "text": compact(value)} for value in ticks(0, most, 4)],
        "y_ticks": [{"at": y(value), "text": number(value, curves[0].unit)
                     if curves[0].unit != "share" else f"{value:.2f}".removeprefix("0")}
                    for value in ticks(y.low, y.high, 4)],
        "spoken": _spoken(curves, axis),
    }


def _vertical(curves: Sequence[Curve]) -> Scale:
    points = [point for curve in curves for point in curve.points]
    if curves[0].unit == "share":
        low, high = 0.0, 1.0
    else:
        ends = [end for point in points for end in (point.low, point.high, point.floor)]
        low, high = min(*ends, curves[0].chance, 0.0), max(*ends, curves[0].chance)
        high += 0.06 * ((high - low) or 1.0)
    return Scale(low, high, HEIGHT - BOTTOM, TOP)


def _phases(swept: Sweep, axis: str, x: Scale) -> list[dict[str, Any]]:
    """Where the first checkpoint of each phase lies; a name only where there is room for it."""
    starts: list[tuple[str, float]] = []
    for place in swept.checkpoints:
        if not starts or starts[-1][0] != place.phase:
            starts.append((place.phase, x(getattr(place, axis))))
    ends = [start for _, start in starts[1:]] + [float(WIDTH - RIGHT)]
    return [{"x": start, "name": name if end - start > PHASE_PX * len(name) + 4 else ""}
            for (name, start), end in zip(starts, ends, strict=True)]


def _spoken(curves: Sequence[Curve], axis: str) -> str:
    """The chart in words, for those who cannot see it."""
    said = [f"{curves[0].task}, {curves[0].label}, over {AXES[axis]}."]
    for curve in curves:
        first, last = curve.points[0], curve.points[-1]
        said.append(f"{curve.kind}: {number(first.value, curve.unit)} at "
                    f"{getattr(first, axis):,}, {number(last.value, curve.unit)} at "
                    f"{getattr(last, axis):,}; blind floor {number(curve.floor, curve.unit)}; "
                    + ("never above it for good." if curve.onset is None else
                       f"above it for good from {getattr(curve.onset, axis):,} on."))
    return " ".join(said)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{px},{py}" for px, py in points)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers from ``low`` to ``high``, some ``about`` steps apart."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def compact(value: float) -> str:
    """``0``, ``750``, ``25k``, ``1.5M``."""
    for size, letter in ((1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"

"""The table of figures: value, interval, floors, ties; published figures beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks_eval.pages.sides import Shown
from benchmarks_eval.published import Published, PublishedFigure, published_figures
from benchmarks_eval.report import number, short
from benchmarks_eval.statistics.floors import floor_adjusted


def groups(models: Sequence[Shown]) -> list[dict[str, Any]]:
    """Figures by group and task, models side by side: what the templates draw."""
    rows: dict[tuple[str, str, str], list[tuple[Shown, dict[str, Any]]]] = {}
    for model in models:
        for figure in model.figures:
            rows.setdefault((figure["group"], figure["task"], figure["figure"]), []).append(
                (model, figure))
    # Models of one kind may have figures that another lacks: tasks keep together all the same.
    order = {group: k for k, group in enumerate(dict.fromkeys(key[0] for key in rows))}
    tasks = {task: k for k, task in enumerate(dict.fromkeys(key[1] for key in rows))}
    made: list[dict[str, Any]] = []
    for key in sorted(rows, key=lambda key: (order[key[0]], tasks[key[1]])):
        if not made or made[-1]["name"] != key[0]:
            made.append({"name": key[0], "rows": []})
        made[-1]["rows"].append(_row(key[1], rows[key]))
    return made


def _row(task: str, cells: Sequence[tuple[Shown, dict[str, Any]]]) -> dict[str, Any]:
    first = cells[0][1]
    unit = first["unit"]
    if unit == "share":
        low, high = 0.0, 1.0
    else:
        low = min([0.0] + [figure["low"] for _, figure in cells])
        high = max([0.1] + [figure["high"] * 1.15 for _, figure in cells])

    def at(value: float) -> float:
        return place(value, low, high)

    return {
        "task": task, "figure": first["figure"], "label": first["label"], "unit": unit,
        "low": low, "high": high,
        "primary": first["primary"], "chance": number(first["chance"], unit),
        "chance_at": at(first["chance"]),
        "cells": [{
            "model": model.label, "colour": model.colour, "letters": model.kind == "letters",
            "value": number(figure["value"], unit), "at": at(figure["value"]),
            "low": short(figure["low"], unit), "high": short(figure["high"], unit),
            "low_at": at(figure["low"]), "width": round(at(figure["high"]) - at(figure["low"]), 2),
            "above": figure["above_floor"], "method": figure["interval"],
            "floor": number(figure["floor"], unit), "floor_at": at(figure["floor"]),
            "floors": {name.replace("_", " "): number(value, unit)
                       for name, value in figure["floors"].items()},
            "adjusted": _adjusted(figure), "n": figure["n"], "clusters": figure["clusters"],
            "ties": figure["ties"], "nonfinite": figure["nonfinite"],
        } for model, figure in cells]}


def place(value: float, low: float, high: float) -> float:
    """Where a value lies on a track, in per cent of its width."""
    return round(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 2)


def _adjusted(figure: dict[str, Any]) -> str:
    """The figure above its blind floor, as a share of what is left; a dash for other units."""
    if figure["unit"] != "share" or figure["floor"] >= 1:
        return "–"
    made = round(floor_adjusted(figure["value"], figure["floor"]), 2) + 0.0  # never -0.00
    return f"{made:+.2f}".replace("0.", ".", 1)


def beside_published(models: Sequence[Shown], suite: str,
                     published: Published | None = None) -> list[dict[str, Any]]:
    """What others report for our figures, with ours above; only figures that somebody published."""
    made: list[dict[str, Any]] = []
    for group in groups(models):
        for row in group["rows"]:
            others = published_figures(suite, row["task"], row["figure"], published)
            if others:
                made.append({
                    **row,
                    "read": list(dict.fromkeys((one.source, one.read_in) for one in others)),
                    "scorers": list(dict.fromkeys(f"{one.scorer} ({one.kind})" for one in others)),
                    "others": [_other(one, row["low"], row["high"]) for one in
                               sorted(others, key=lambda one: -one.value)]})
    return made


def _other(one: PublishedFigure, low: float, high: float) -> dict[str, Any]:
    return {"model": one.model, "training": one.training, "kind": one.kind,
            "value": f"{one.value:.{one.digits}f}".removeprefix("0"),
            "at": place(one.value, low, high), "certainty": one.certainty, "source": one.source,
            "note": one.note}

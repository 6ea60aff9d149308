"""One self-contained HTML page: figures with intervals, captions with pictures, notable trials."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from benchmarks_eval.figures import Figure
from benchmarks_eval.judge import Results
from benchmarks_eval.notable import Extreme
from benchmarks_eval.pages.pictures import Pictures
from benchmarks_eval.pages.sides import COLOURS
from benchmarks_eval.records import write_atomically
from benchmarks_eval.report import number, rows_of, short

TEMPLATE = Path(__file__).with_name("page.html.j2")


def write_page(results: Results, out: Path) -> Path:
    """Writes ``report.html`` atomically and returns its path."""
    path = out / "report.html"
    write_atomically(path, render(results))
    return path


def render(results: Results) -> str:
    """The page as a string; it loads nothing from anywhere."""
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              undefined=StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    colours = {model.name: COLOURS[k % len(COLOURS)] for k, model in enumerate(results.models)}
    pictures = Pictures(results.root, results.suite.show_pictures)
    groups = _by_group(results.figures)
    samples = _samples(results, colours, pictures)
    return template.render(
        suite=results.suite,
        options=results.options,
        models=[{"name": m.name, "kind": m.kind, "path": m.path, "colour": colours[m.name],
                 "tower": m.tower_hash[:12]} for m in results.models],
        groups=[{"name": name or results.suite.name, "tasks": _tasks(figures, colours),
                 "samples": samples.get(name, [])} for name, figures in groups.items()],
        stories=_stories(results, colours, pictures),
        floor_rows=[_floor_row(figure) for figure in results.figures],
    )


def _by_group(figures: list[Figure]) -> dict[str, list[Figure]]:
    groups: dict[str, list[Figure]] = {}
    for figure in figures:
        groups.setdefault(figure.group, []).append(figure)
    return groups


def _tasks(figures: list[Figure], colours: dict[str, str]) -> list[dict[str, Any]]:
    tasks: dict[str, list[dict[str, Any]]] = {}
    for (task, _), members in rows_of(figures).items():
        tasks.setdefault(task, []).append(_track(members, colours))
    return [{"name": name, "rows": rows} for name, rows in tasks.items()]


def _track(figures: list[Figure], colours: dict[str, str]) -> dict[str, Any]:
    """One row: dots with whiskers on a scale from 0 to 1 (shares) or around the values."""
    first = figures[0]
    floor = max(figure.floor for figure in figures)
    if first.unit == "share":
        low, high = 0.0, 1.0
    else:
        low = min(0.0, *(figure.low for figure in figures))
        high = max(0.1, *(figure.high * 1.15 for figure in figures))

    def at(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    return {
        "label": first.label, "n": first.n, "primary": first.primary,
        "unit": "" if first.unit == "share" else first.unit,
        "chance": number(first.chance, first.unit), "chance_at": at(first.chance),
        "floor": number(floor, first.unit), "floor_at": at(floor),
        "marks": [{"model": f.model, "colour": colours[f.model], "at": at(f.value),
                   "low_at": at(f.low), "width": round(at(f.high) - at(f.low), 2),
                   "value": number(f.value, f.unit), "above": f.above_floor,
                   "interval": f"{short(f.low, f.unit)} to {short(f.high, f.unit)}"}
                  for f in figures],
    }


def _samples(results: Results, colours: dict[str, str],
             pictures: Pictures) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for sample in results.samples:
        if sample.captions:
            groups.setdefault(sample.group, []).append({
                "uri": pictures.uri(sample.image), "image": sample.image,
                "references": sample.references,
                "captions": [{"model": name, "colour": colours[name], "text": text}
                             for name, text in sample.captions.items()]})
    return groups


def _stories(results: Results, colours: dict[str, str],
             pictures: Pictures) -> list[dict[str, Any]]:
    tasks: dict[str, dict[str, Any]] = {}
    for extreme in results.extremes:
        task = tasks.setdefault(extreme.task, {"name": extreme.task, "group": extreme.group,
                                               "label": extreme.label, "models": {}})
        model = task["models"].setdefault(
            extreme.model, {"name": extreme.model, "colour": colours[extreme.model],
                            "best": [], "worst": []})
        model["best" if extreme.best else "worst"].append(_trial(extreme, pictures))
    return [task | {"models": list(task["models"].values())} for task in tasks.values()]


def _trial(extreme: Extreme, pictures: Pictures) -> dict[str, Any]:
    """Cells of one trial: pictures across, texts down; the right and the chosen ones marked."""
    across, down = len(extreme.images), len(extreme.texts)
    flat = [score for row in extreme.scores for score in row]
    top = max(flat)
    square = across > 1 and down > 1

    def right(image: int, text: int) -> bool:
        return image == text if square else extreme.gold == (image if across > 1 else text)

    def chosen(image: int, text: int) -> bool:
        if square:
            return extreme.scores[image][text] == max(extreme.scores[image])
        return extreme.scores[image][text] == top

    return {
        "margin": f"{extreme.margin:+.2f}",
        "texts": extreme.texts,
        "one_text": extreme.texts[0] if down == 1 else None,
        "columns": [{
            "uri": pictures.uri(name), "image": name or "no picture",
            "cells": [{"text": extreme.texts[j], "score": f"{extreme.scores[i][j]:.2f}",
                       "right": right(i, j), "chosen": chosen(i, j)} for j in range(down)],
        } for i, name in enumerate(extreme.images)],
    }


def _floor_row(figure: Figure) -> dict[str, Any]:
    return {
        "task": figure.task, "figure": figure.figure, "model": figure.model, "n": figure.n,
        "clusters": figure.clusters, "value": number(figure.value, figure.unit),
        "interval": f"{short(figure.low, figure.unit)} to {short(figure.high, figure.unit)}",
        "method": figure.interval, "chance": number(figure.chance, figure.unit),
        "floors": {name: number(value, figure.unit) for name, value in figure.floors.items()},
        "ties": figure.ties, "nonfinite": figure.nonfinite,
    }

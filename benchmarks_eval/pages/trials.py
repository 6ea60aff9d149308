"""Single trials: the surest right and wrong ones, and those that two runs judge differently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks_eval.compare import Change, Comparison, Row
from benchmarks_eval.metrics import band
from benchmarks_eval.outcomes import Outcome
from benchmarks_eval.pages.pictures import Pictures
from benchmarks_eval.pages.sides import Shown

CHANGED = 6
"""Fixed and broken trials that are shown of each figure."""


def stories(models: Sequence[Shown], pictures: Pictures) -> list[dict[str, Any]]:
    """The trials that each model is most surely right or wrong about, by task."""
    tasks: dict[str, dict[str, Any]] = {}
    for model in models:
        for extreme in model.judged.results["extremes"]:
            if extreme["model"] != model.judged.model:
                continue
            task = tasks.setdefault(extreme["task"], {
                "name": extreme["task"], "label": extreme["label"], "models": {}})
            own = task["models"].setdefault(model.label, {
                "name": model.label, "colour": model.colour, "best": [], "worst": []})
            own["best" if extreme["best"] else "worst"].append(cells(
                extreme["images"], extreme["texts"], extreme["gold"], [extreme["scores"]],
                pictures))
    return [task | {"models": list(task["models"].values())} for task in tasks.values()]


def samples(models: Sequence[Shown], pictures: Pictures) -> list[dict[str, Any]]:
    """Captioned pictures, what people and the models say, by task."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for model in models:
        for sample in model.judged.results["samples"]:
            said = sample["captions"].get(model.judged.model)
            if said is None:
                continue
            one = found.setdefault((sample["task"], sample["image"]), {
                "task": sample["task"], "image": sample["image"],
                "uri": pictures.uri(sample["image"]), "references": sample["references"],
                "captions": []})
            one["captions"].append({"model": model.label, "colour": model.colour, "text": said})
    tasks: dict[str, list[dict[str, Any]]] = {}
    for one in found.values():
        tasks.setdefault(one["task"], []).append(one)
    return [{"task": task, "samples": own} for task, own in tasks.items()]


def changed(made: Comparison, row: Row, pictures: Pictures) -> list[dict[str, Any]]:
    """Trials whose credit rose and fell, both runs' scores of every candidate beside each other."""
    if row.paired is None:
        return []
    before, after = (
        {outcome.id: outcome for outcome in side[0].measures[row.task, row.figure].outcomes}
        for side in (made.before, made.after))
    return [{"title": title, "number": len(changes), "trials": [
        _changed(change, before[change.id], after[change.id], pictures)
        for change in _spread(changes)]}
        for title, changes in (("Fixed", row.fixed), ("Broken", row.broken))]


def _spread(changes: Sequence[Change]) -> list[Change]:
    """Evenly over all of them: no trial is picked by hand."""
    count = min(CHANGED, len(changes))
    return [changes[k * len(changes) // count] for k in range(count)]


def _changed(change: Change, before: Outcome, after: Outcome,
             pictures: Pictures) -> dict[str, Any]:
    if not before.scores.size:  # generated texts are judged without scores
        return {"id": change.id, "one_text": None, "columns": [], "sides": 2,
                "text": " | ".join(change.texts), "image": ", ".join(change.images),
                "credits": f"{change.before:.2f} to {change.after:.2f}"}
    # The two runs may have shuffled the candidates differently: B's scores in A's order.
    theirs = [[_at(after, image, text) for text in before.texts] for image in before.images]
    return {"id": change.id, "text": None, "credits": f"{change.before:.2g} to {change.after:.2g}",
            **cells(before.images, before.texts, before.gold, [before.scores.tolist(), theirs],
                    pictures)}


def _at(outcome: Outcome, image: str, text: str) -> float:
    return float(outcome.scores[outcome.images.index(image), outcome.texts.index(text)])


def cells(images: Sequence[str], texts: Sequence[str], gold: int,
          sides: Sequence[Sequence[Sequence[float | None]]], pictures: Pictures) -> dict[str, Any]:
    """One trial as columns of pictures with a line for every text; right and preferred are marked.

    Args:
        images: pictures; "" is none.
        texts: candidate texts.
        gold: place of the right candidate; the diagonal where there are two of each.
        sides: for each run its scores [images, texts], None or NaN where not finite.
        pictures: thumbnails.
    """
    square = len(images) > 1 and len(texts) > 1

    def right(i: int, j: int) -> bool:
        return i == j if square else gold == (i if len(images) > 1 else j)

    return {
        "one_text": texts[0] if len(texts) == 1 else None, "sides": len(sides),
        "columns": [{
            "image": image or "no picture", "uri": pictures.uri(image),
            "cells": [{
                "text": text, "right": right(i, j),
                "scores": [{"value": _number(scores[i][j]), "chosen": _chosen(scores, i, j, square)}
                           for scores in sides],
            } for j, text in enumerate(texts)],
        } for i, image in enumerate(images)]}


def _number(score: float | None) -> str:
    return "not finite" if score is None or not math.isfinite(score) else f"{score:.2f}"


def _chosen(scores: Sequence[Sequence[float | None]], i: int, j: int, square: bool) -> bool:
    """Whether this candidate is preferred: of its picture's texts in a square, else of all."""
    rivals = scores[i] if square else [score for line in scores for score in line]
    own = scores[i][j]
    finite = [score for score in rivals if score is not None and math.isfinite(score)]
    if own is None or not math.isfinite(own) or len(finite) < len(rivals):
        return False
    return own >= max(finite) - band(max(finite))

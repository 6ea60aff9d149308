"""Figures in parts: confusion matrices, breakdowns, hubs, biases, as the templates draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks_eval.breakdowns import Attractions, Breakdown, Confusion, SquareBias
from benchmarks_eval.breakdowns.report import HUB_EXCESS, Parts, Sources, break_down
from benchmarks_eval.compare_table import chance as p_text
from benchmarks_eval.compare_table import plain
from benchmarks_eval.pages.headline import place
from benchmarks_eval.pages.sides import Shown

FOLDED = 24
"""Rows of a breakdown, or labels of a matrix, beyond which it is folded away at first."""
WORST = 8


def details(models: Sequence[Shown], sources: Sources, seed: int) -> list[dict[str, Any]]:
    """Every breakdown of the main figures, by task, models one after the other."""
    tasks: dict[str, dict[str, Any]] = {}
    for model in models:
        for parts in break_down(model.judged, sources, seed=seed):
            drawn = _parts(model, parts)
            if drawn is not None:
                name = parts.measured.task
                task = tasks.setdefault(name, {"name": name, "label": parts.measured.label,
                                               "parts": []})
                task["parts"].append(drawn)
    return list(tasks.values())


def _parts(model: Shown, parts: Parts) -> dict[str, Any] | None:
    notes = [f"credit of a word and its {what}: rank correlation {found.rho:+.2f} over "
             f"{found.words} words, p {p_text(found.p)}"
             for what, found in (("frequency (log)", parts.frequency),
                                 ("age of acquisition", parts.age)) if found is not None]
    made = {
        "model": model.label, "colour": model.colour,
        "breakdowns": [_breakdown(one) for one in parts.breakdowns],
        "notes": notes + _bias(parts.bias),
        "hubs": _hubs(parts.attractions),
        "confusion": None if parts.confusion is None else _confusion(parts.confusion),
    }
    empty = not (made["breakdowns"] or made["notes"] or made["hubs"] or made["confusion"])
    return None if empty else made


def _breakdown(one: Breakdown) -> dict[str, Any]:
    share = one.unit == "share"
    ends = [end for group in one.groups for end in (group.low, group.high)]
    low, high = (0.0, 1.0) if share else (min([0.0, *ends]), max([0.1, *ends]))

    def at(value: float) -> float:
        return place(value, low, high)

    return {
        "by": one.by, "left_out": one.left_out, "folded": len(one.groups) > FOLDED,
        "p": None if one.p is None else p_text(one.p),
        "groups": [{
            "name": group.name, "n": group.n, "clusters": group.clusters,
            "value": plain(group.value, one.unit), "at": at(group.value),
            "interval": f"{plain(group.low, one.unit)} to {plain(group.high, one.unit)}",
            "low_at": at(group.low), "width": round(at(group.high) - at(group.low), 2),
            "chance": plain(group.chance, one.unit), "chance_at": at(group.chance),
            "ties": group.ties, "nonfinite": group.nonfinite} for group in one.groups]}


def _confusion(found: Confusion) -> dict[str, Any]:
    rates = found.rates
    return {
        "labels": list(found.labels), "folded": len(found.labels) > FOLDED,
        "unlabelled": found.unlabelled, "nonfinite": found.nonfinite,
        "rows": [{"label": label, "cells": [
            {"text": "" if np.isnan(rate) else f"{100 * rate:.0f}",
             "rate": None if np.isnan(rate) else round(float(rate), 3), "own": i == j,
             "dark": not np.isnan(rate) and rate > 0.55, "taken": found.labels[j],
             "offers": int(found.offered[i, j])}
            for j, rate in enumerate(rates[i])]} for i, label in enumerate(found.labels)],
        "worst": [{"taken": one.taken, "asked": one.asked, "share": f"{one.share:.0%}",
                   "offers": one.offers, "interval": f"{one.low:.0%} to {one.high:.0%}"}
                  for one in found.worst(WORST)]}


def _bias(found: SquareBias | None) -> list[str]:
    if found is None:
        return []
    return [f"what the scores of {found.n} squares are made of (root mean square): liking a "
            f"picture {found.picture_sd:.3g}, liking a text {found.text_sd:.3g}, match "
            f"{found.match_sd:.3g}",
            f"guessing with these biases would reach text {plain(found.chance_text, 'share')}, "
            f"image {plain(found.chance_image, 'share')}, group "
            f"{plain(found.chance_group, 'share')} (independent scores: 1/4, 1/4, 1/6)"]


def _hubs(found: Attractions | None) -> dict[str, Any] | None:
    if found is None:
        return None
    hubs = [one for one in found.candidates[:WORST] if one.excess > HUB_EXCESS]
    return {"what": "pictures" if found.pictures else "texts",
            "concentration": f"{found.concentration:.2f}",
            "rows": [{"name": one.candidate, "taken": f"{one.taken:.3g}", "offers": one.offers,
                      "expected": f"{one.expected:.3g}"} for one in hubs]}

"""Small finished runs on disk: results.json and trials.jsonl as ``run`` leaves them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def trial(id_: str, credit: float, *, task: str = "pairs", figure: str = "phrase",
          cluster: str | None = None, images: Sequence[str] = ("a.png",),
          texts: Sequence[str] = ("red ball", "blue ball"), gold: int = 0,
          scores: Any = None, tie: bool = False, tags: Mapping[str, str] | None = None,
          group: str = "") -> dict[str, Any]:
    """One row of ``trials.jsonl``; scores that fit the credit unless they are given."""
    if scores is None:
        flat = np.full(len(images) * len(texts), 0.5 if credit in (0.0, 1.0) else 1.0)
        flat[gold] = {1.0: 1.0, 0.0: 0.0}.get(credit, 1.0)
        scores = flat.reshape(len(images), len(texts)).tolist()
    return {"task": task, "group": group, "figure": figure, "id": id_,
            "cluster": cluster or id_, "gold": gold, "images": list(images),
            "texts": list(texts), "scores": scores, "credit": credit, "tie": tie,
            "tags": dict(tags or {})}


def write_judged(out: Path, model: str, rows: Iterable[Mapping[str, Any]], *,
                 kind: str = "generative", units: Mapping[str, str] | None = None,
                 options: Mapping[str, Any] | None = None, primary: Sequence[str] = ("phrase",),
                 values: Mapping[str, float] | None = None, suite: str = "book",
                 version: int = 1) -> Path:
    """Writes ``out/results.json`` and ``out/<model>/trials.jsonl``; gives the model's folder."""
    rows = list(rows)
    folder = out / model
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trials.jsonl").write_text(
        "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")
    figures = []
    for task, figure, group in dict.fromkeys(
            (row["task"], row["figure"], row["group"]) for row in rows):
        credits_ = [row["credit"] for row in rows if (row["task"], row["figure"]) == (task, figure)]
        figures.append({
            "task": task, "figure": figure, "group": group, "label": figure, "model": model,
            "unit": (units or {}).get(figure, "share"), "chance": 0.5, "floor": 0.5,
            "value": (values or {}).get(figure, float(np.mean(credits_))),
            "primary": figure in primary})
    tree = {"format": 2, "suite": {"name": suite, "version": version},
            "options": dict(options or {"seed": 0, "score": {"normalise": None, "ties": "share"}}),
            "models": [{"name": model, "kind": kind, "path": model}], "figures": figures}
    (out / "results.json").write_text(json.dumps(tree), encoding="utf-8")
    return folder

"""``python -m benchmarks_eval plot``: a run's losses and scores in one picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

COLOURS = {"contrastive": "#0b7a75", "generative": "#d1495b"}
PHASE_COLOURS = ("#0b7a75", "#8d99ae", "#edae49", "#d1495b")
GREY = "#6b7280"


def read_json(path: Path) -> Any:
    """The contents of a JSON file; ``ValueError`` when it is missing or damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run an evaluation first") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from None


def plot(results: Path, metrics: Path | None, out: Path, group: str = "test-view") -> Path:
    """Draw ``results.json`` (and the losses of ``metrics.jsonl``) to a PNG.

    Args:
        results: written by ``run``.
        metrics: a training run's ``metrics.jsonl``; None leaves the losses out.
        out: the picture.
        group: group of tasks to show.
    """
    figures = [
        f for f in read_json(results)["figures"]
        if f["group"] == group and f["unit"] == "share" and f["primary"]
    ]
    if not figures:
        raise ValueError(f"{results}: holds no figures of '{group}'")
    columns = 1 if metrics is None else 2
    drawing, axes = plt.subplots(1, columns, figsize=(5.6 * columns, 4.2), squeeze=False,
                                 layout="constrained")
    if metrics is not None:
        _losses(axes[0][0], metrics)
    _scores(axes[0][-1], figures, group)
    out.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(out, dpi=160)
    plt.close(drawing)
    return out


def _clean(axis: Axes) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color(GREY)
    axis.tick_params(colors=GREY, labelcolor="#111827")


def _losses(axis: Axes, path: Path) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    phases = list(dict.fromkeys(line["phase"] for line in lines))
    for colour, phase in zip(PHASE_COLOURS * len(phases), phases, strict=False):
        for key, style in (("loss", "-"), ("validation_loss", ":")):
            points = [(x["step"], x[key]) for x in lines if x["phase"] == phase and key in x]
            if points:
                label = phase if key == "loss" else None
                axis.plot(*zip(*points, strict=True), style, color=colour, label=label, linewidth=2)
    axis.set_xlabel("optimizer step")
    axis.set_title("loss by phase (dotted: validation)", loc="left", fontsize=11)
    axis.legend(frameon=False)
    axis.set_ylim(bottom=0)
    _clean(axis)


def _scores(axis: Axes, figures: list[dict[str, Any]], group: str) -> None:
    rows = list(dict.fromkeys((f["task"], f["figure"]) for f in figures))
    models = list(dict.fromkeys(f["model"] for f in figures))
    height = 0.8 / len(models)
    for f in figures:
        k = models.index(f["model"])
        y = rows.index((f["task"], f["figure"])) + (k - (len(models) - 1) / 2) * height
        colour = next((c for kind, c in COLOURS.items() if kind in f["model"]), GREY)
        first = rows.index((f["task"], f["figure"])) == 0
        axis.barh(y, f["value"], height * 0.9, color=colour, label=f["model"] if first else None)
        axis.plot([f["low"], f["high"]], [y, y], color="#111827", linewidth=1.2)
    for index, row in enumerate(rows):
        floor = max(f["floor"] for f in figures if (f["task"], f["figure"]) == row)
        axis.plot([floor, floor], [index - 0.45, index + 0.45], "--", color="#111827",
                  linewidth=1.2, label="blind floor" if index == 0 else None)
    labels = [next(f["label"] for f in figures if (f["task"], f["figure"]) == r) for r in rows]
    axis.set_yticks(range(len(rows)), [_label(r[0], t) for r, t in zip(rows, labels, strict=True)])
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.set_title(f"{group}: share right, 95 % intervals", loc="left", fontsize=11)
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=3, fontsize=9)
    _clean(axis)


def _label(task: str, label: str) -> str:
    return f"{task.partition('-')[2] or task}\n{label}"

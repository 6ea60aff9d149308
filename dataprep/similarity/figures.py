"""Histograms of similarities as PNG files: the same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["histogram"]

COLOURS = ("#2f6f4f", "#c8742c", "#1f5fa8", "#8a6d1d", "#6b3fa0", "#a8442a")
INK, SOFT, LINE, PAPER = "#24292f", "#6e7781", "#e3dfd6", "#fbfaf7"
MOST_BINS = 60


def histogram(
    file: Path,
    series: Mapping[str, NDArray[np.floating]],
    *,
    title: str,
    subtitle: str = "",
    threshold: float | None = None,
    threshold_label: str = "",
    axis: str = "cosine similarity",
) -> None:
    """Draw the distribution of each series over one axis, each of area 1.

    Args:
        file: PNG to write.
        series: similarities by label; NaN are left out.
        title: heading.
        subtitle: line below it.
        threshold: where to draw a line.
        threshold_label: what stands beside that line.
        axis: name of the axis.
    """
    known = {
        label: values[~np.isnan(values)]
        for label, values in series.items()
        if not np.isnan(values).all()
    }
    figure = Figure(figsize=(9, 4.6), dpi=130, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    axes: Axes = figure.add_subplot(facecolor=PAPER)
    figure.suptitle(title, x=0.015, ha="left", color=INK, fontsize=14, fontweight="bold")
    axes.set_title(subtitle, loc="left", color=SOFT, fontsize=9.5)
    if known:
        low = min(float(values.min()) for values in known.values())
        high = max(float(values.max()) for values in known.values())
        if threshold is not None:
            low, high = min(low, threshold), max(high, threshold)
        room = max(high - low, 1e-3) * 0.03
        fewest = min(len(values) for values in known.values())
        bins = int(np.clip(2 * np.sqrt(fewest), 8, MOST_BINS))
        edges = np.linspace(low - room, high + room, bins + 1)
        for number, (label, values) in enumerate(known.items()):
            colour = COLOURS[number % len(COLOURS)]
            heights, _ = np.histogram(values, edges, density=True)
            axes.stairs(heights, edges, fill=True, color=colour, alpha=0.22)
            label = f"{label}  (n = {len(values):,}, mean {values.mean():.3f})"
            axes.stairs(heights, edges, color=colour, linewidth=1.5, label=label)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])  # room for what stands at the top
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            threshold_label or f"{threshold:.3f}", (threshold, 1), (5, -4), color=INK, fontsize=9,
            xycoords=("data", "axes fraction"), textcoords="offset points", va="top",
        )  # fmt: skip
    axes.set_xlabel(axis, color=SOFT)
    axes.set_ylabel("density", color=SOFT)
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.grid(axis="y", color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    figure.savefig(file, format="png", metadata={"Software": None})

"""A sweep as people read it in a terminal."""

from __future__ import annotations

from benchmarks_eval.curves import ONSET_RULE, Curve, Onset, Sweep
from benchmarks_eval.report import number, short

BLOCKS = "▁▂▃▄▅▆▇█"


def curve_table(swept: Sweep, *, every: bool = False) -> str:
    """One row a figure and kind of model: first and last value, the curve, the onset.

    Args:
        swept: the sweep.
        every: all figures, not only the main one of each task.
    """
    shown = [curve for curve in swept.curves if curve.primary or every]
    if not shown:
        return "No figures."
    heads = ("", "n", "chance", "blind", "first", "last", "95 %", "ties", "not finite", "onset")
    rows = [_cells(curve) for curve in shown]
    widths = [max(len(row[k]) for row in (heads, *rows)) for k in range(len(heads))]
    drawn = max(len(curve.points) for curve in shown)

    def line(cells: tuple[str, ...], sketch: str) -> str:
        numbers = [f"{cell:>{width}}" for cell, width in
                   zip(cells[1:-1], widths[1:-1], strict=True)]
        return "  ".join([f"{cells[0]:<{widths[0]}}", *numbers, f"{sketch:<{drawn}}",
                          cells[-1]]).rstrip()

    lines = [line(heads, "curve"), ""]
    lines[1] = "─" * max(len(lines[0]), sum(widths) + 2 * len(widths) + drawn)
    group = None
    for curve, cells in zip(shown, rows, strict=True):
        if curve.group != group:
            group = curve.group
            lines.append(group or swept.suite["name"])
        lines.append(line(cells, sketch(curve)))
    lines += ["", f"onset: {ONSET_RULE},", "as steps (words, pairs); the step in brackets is the "
              "checkpoint before it.",
              "curve: from 0 to 1 for shares, from the lowest to the highest value for the rest. "
              "ties, not finite:", "trials of all checkpoints together."]
    return "\n".join(lines)


def _cells(curve: Curve) -> tuple[str, ...]:
    first, last = curve.points[0], curve.points[-1]
    unit = curve.unit
    return (f"  {curve.task}  {curve.figure} ({curve.kind})", f"{last.n}",
            number(curve.chance, unit), number(curve.floor, unit), number(first.value, unit),
            number(last.value, unit), f"[{short(last.low, unit)}, {short(last.high, unit)}]",
            str(sum(point.ties for point in curve.points)),
            str(sum(point.nonfinite for point in curve.points)), onset_text(curve.onset))


def onset_text(onset: Onset | None) -> str:
    """``600 (31,204 words, 9,980 pairs) [500]``, or ``none``."""
    if onset is None:
        return "none"
    before = "from the first" if onset.after is None else f"{onset.after:,}"
    return (f"{onset.step:,} ({onset.words_seen:,} words, {onset.pairs_seen:,} pairs) "
            f"[{before}]" + (", only the last" if onset.points == 1 else ""))


def sketch(curve: Curve) -> str:
    """The curve in a line of text, one block a checkpoint."""
    values = [point.value for point in curve.points]
    low, high = (0.0, 1.0) if curve.unit == "share" else (min(values), max(values))
    span = high - low or 1.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((value - low) / span * len(BLOCKS)))]
                   for value in values)

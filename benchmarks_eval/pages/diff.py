"""Two runs on the same trials: paired tests, fixed and broken trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks_eval.compare import Comparison, Row, compare
from benchmarks_eval.compare_table import ALPHA, plain, signed
from benchmarks_eval.compare_table import chance as p_text
from benchmarks_eval.pages.pictures import Pictures
from benchmarks_eval.pages.sides import Shown, Side
from benchmarks_eval.pages.trials import changed


def pairs(before: Side, after: Side) -> list[tuple[Shown, Shown]]:
    """Which models of the two folders belong together.

    One on each side: those two. Several: those of one name, or else of one kind.

    Raises:
        ValueError: no two belong together.
    """
    if len(before.models) == len(after.models) == 1:
        return [(before.models[0], after.models[0])]
    for same in (lambda one: one.judged.model, lambda one: one.kind):
        mine, theirs = [same(m) for m in before.models], [same(m) for m in after.models]
        if len(set(mine)) == len(mine) and len(set(theirs)) == len(theirs):
            found = [(one, after.models[theirs.index(same(one))]) for one in before.models
                     if same(one) in theirs]
            if found:
                return found
    names = " and ".join(", ".join(str(one.judged.folder) for one in side.models)
                         for side in (before, after))
    raise ValueError(f"which models are to be compared? Name one folder on each side, of {names}")


def differences(before: Side, after: Side, pictures: Pictures, *, every: bool, common: bool,
                seed: int) -> list[dict[str, Any]]:
    """Paired comparisons of the models that belong together.

    Args:
        before: A.
        after: B.
        pictures: thumbnails.
        every: all figures, not only the main one of each task (more tests to correct for).
        common: where trials differ, compare those that both have.
        seed: of resamples.
    """
    made: list[dict[str, Any]] = []
    for one, other in pairs(before, after):
        found = compare([one.judged], [other.judged], primary=not every, common=common, seed=seed)
        made.append({"before": one, "after": other, "notes": list(found.notes),
                     "tests": len(found.rows),
                     "rows": _rows(found, found.rows, pictures)})
    return made


def _rows(made: Comparison, rows: Sequence[Row], pictures: Pictures) -> list[dict[str, Any]]:
    drawn: list[dict[str, Any]] = []
    for row in rows:
        got = row.paired
        assert got is not None
        unit = row.unit
        reach = max([0.1, *(abs(end) for other in rows if other.unit == unit
                            and other.paired is not None
                            for end in (other.paired.low, other.paired.high))])

        def at(value: float, reach: float = reach) -> float:
            return round(50 + 50 * value / reach, 2)

        drawn.append({
            "task": row.task, "figure": row.figure, "label": row.label, "n": got.n,
            "clusters": got.clusters, "before": plain(got.before, unit),
            "after": plain(got.after, unit), "difference": signed(got.difference, unit),
            "interval": f"{signed(got.low, unit)} to {signed(got.high, unit)}",
            "at": at(got.difference), "low_at": at(got.low),
            "width": round(at(got.high) - at(got.low), 2), "fixed": got.fixed,
            "broken": got.broken, "mcnemar": p_text(got.mcnemar_p) if unit == "share" else "–",
            "p": p_text(got.p), "holm": p_text(row.holm_p), "sure": row.holm_p <= ALPHA,
            "better": got.difference > 0,
            "detectable": "–" if got.detectable is None else plain(got.detectable, unit),
            "ties": f"{row.ties[0]} / {row.ties[1]}",
            "nonfinite": f"{row.nonfinite[0]} / {row.nonfinite[1]}",
            "changed": changed(made, row, pictures)})
    return drawn

"""A comparison as people read it in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from benchmarks_eval.compare import Change, Comparison, Row
from benchmarks_eval.outcomes import Judged
from benchmarks_eval.statistics import Paired, SeedGap

ALPHA = 0.05
Cells = tuple[str, ...]


def comparison_table(made: Comparison, *, trials: int = 0) -> str:
    """The whole text: who is compared, the rows, what the columns mean, notes.

    Args:
        made: the comparison.
        trials: list at most so many fixed and broken trials of each figure.
    """
    lines = [*_side("A", made.before), *_side("B", made.after), ""]
    several = made.rows[0].seeds is not None
    lines += aligned(_SEEDS_HEAD if several else _PAIRED_HEAD, made.rows,
                      _seeds_cells if several else _paired_cells)
    lines.append("")
    lines += (_SEEDS_LEGEND if several else _PAIRED_LEGEND)
    lines.append(f"Holm: p corrected for the {len(made.rows)} tests of this table; "
                 f"* at most {ALPHA:g}.".replace("0.05", ".05"))
    lines += [f"note: {note}" for note in made.notes]
    if trials:
        lines += _changed(made.rows, trials)
    return "\n".join(lines)


def _side(letter: str, runs: Sequence[Judged]) -> list[str]:
    return [f"{letter if k == 0 else ' '}  {run.folder}  ({run.kind})"
            for k, run in enumerate(runs)]


_PAIRED_HEAD: Cells = ("", "n", "clusters", "A", "B", "B − A", "95 %", "fixed", "broken",
                       "McNemar", "p", "Holm", "shows", "ties")
_SEEDS_HEAD: Cells = ("", "n", "A ± sd", "B ± sd", "B − A", "95 %", "p", "Holm", "ties")
_PAIRED_LEGEND = [
    "fixed, broken: trials whose credit rose or fell from A to B. McNemar: exact test of the two "
    "counts,",
    "as if trials were independent. p: sign flips of whole clusters, exact for hits and misses; "
    "two-sided.",
    "95 %: paired cluster bootstrap. shows: the true difference such a comparison finds in 8 "
    "cases of 10.",
]
_SEEDS_LEGEND = [
    "± sd: between the runs of a side. 95 % and p are for new seeds and new trials of the kind "
    "(two-way",
    "random effects, t with Satterthwaite's degrees of freedom).",
]


def _paired_cells(row: Row) -> Cells:
    got = row.paired
    assert isinstance(got, Paired)
    unit = row.unit
    # Of graded credits the test would weigh a hair's breadth like a hit.
    sign_test = chance(got.mcnemar_p) if unit == "share" else "–"
    shows = "–" if got.detectable is None else plain(got.detectable, unit)
    return (f"{row.task}  {row.figure}", str(got.n), str(got.clusters), plain(got.before, unit),
            plain(got.after, unit), signed(got.difference, unit), _range(got.low, got.high, unit),
            str(got.fixed), str(got.broken), sign_test, chance(got.p), _holm(row), shows,
            _ties(row))


def _seeds_cells(row: Row) -> Cells:
    got = row.seeds
    assert isinstance(got, SeedGap)
    unit = row.unit
    means = [f"{plain(side.mean, unit)} ± {plain(side.between_sd or 0.0, unit)}"
             for side in (got.before, got.after)]
    trials = f"{row.task}  {row.figure}"
    return (trials, str(row.n), *means, signed(got.difference, unit),
            _range(got.low, got.high, unit), chance(got.p), _holm(row), _ties(row))


class Grouped(Protocol):
    """A row that stands under a heading."""

    @property
    def group(self) -> str:
        """The heading; "" for none."""
        ...


R = TypeVar("R", bound=Grouped)


def aligned(head: Cells, rows: Sequence[R], cells: Callable[[R], Cells]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right, headings above
    their rows."""
    body = [cells(row) for row in rows]
    indent = "  " if any(row.group for row in rows) else ""
    widths = [max(len(line[k]) for line in (head, *body)) for k in range(len(head))]
    widths[0] += len(indent)

    def line(parts: Cells, lead: str) -> str:
        rest = "  ".join(f"{part:>{width}}" for part, width in
                         zip(parts[1:], widths[1:], strict=True))
        return f"{lead + parts[0]:<{widths[0]}}  {rest}".rstrip()

    lines = [line(head, "")]
    lines.append("─" * max(len(lines[0]), *(len(line(one, indent)) for one in body)))
    group = ""
    for row, one in zip(rows, body, strict=True):
        if row.group != group:
            group = row.group
            lines.append(group)
        lines.append(line(one, indent))
    return lines


def _changed(rows: Sequence[Row], most: int) -> list[str]:
    lines: list[str] = []
    for row in rows:
        for word, changes in (("fixed", row.fixed), ("broken", row.broken)):
            if changes:
                lines += ["", f"{row.task}  {row.figure}: {len(changes)} {word}"]
                lines += [_change(change) for change in changes[:most]]
                if len(changes) > most:
                    lines.append(f"  ... and {len(changes) - most} more (--json has all)")
    return lines


def _change(change: Change) -> str:
    pictures = ", ".join(change.images) or "no picture"
    return (f"  {change.id}: {' | '.join(change.texts)} ({pictures}): {change.before:.3g} to "
            f"{change.after:.3g}")


def plain(value: float, unit: str) -> str:
    """.712 for shares, 0.41 for anything else."""
    if unit != "share":
        return f"{value:.3g}"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0", "-0")) else text


def signed(value: float, unit: str) -> str:
    """+.027 for shares, +0.41 for anything else; a difference that rounds to nothing is +.000."""
    if unit != "share":
        return f"{value:+.3g}"
    return f"{round(value, 3) + 0.0:+.3f}".replace("0.", ".", 1)


def chance(p: float) -> str:
    """A p-value with three digits, or ``<.001``."""
    if p < 0.0005:
        return "<.001"
    return f"{p:.3f}".removeprefix("0") if p < 0.9995 else "1"


def _range(low: float, high: float, unit: str) -> str:
    return f"[{signed(low, unit)}, {signed(high, unit)}]"


def _holm(row: Row) -> str:
    return chance(row.holm_p) + ("*" if row.holm_p <= ALPHA else " ")


def _ties(row: Row) -> str:
    return f"{row.ties[0]}/{row.ties[1]}"

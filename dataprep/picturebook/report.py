"""The table that the command prints: counts, what was left out and why, licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from dataprep.benchmarks.write import FILES, Written
from dataprep.picturebook.about import SOURCES
from dataprep.picturebook.book import Book
from dataprep.picturebook.splits import SPLITS

VENDORS = ("tuxpaint", "openmoji", "twemoji")


def table(book: Book, written: Mapping[str, Written]) -> str:
    """Counts by split and source, leaks, evaluation sets and licences as text."""
    rows: list[tuple[str, ...]]
    rows = [("split", "pictures", *VENDORS, "groups", "utterances", "templated")]
    for name in (*SPLITS, "all"):
        chosen = [
            (r.drawing, texts)
            for r, texts in zip(book.rendered, book.said, strict=True)
            if name in ("all", book.split_of[r.drawing.key])
        ]
        vendors = Counter(d.vendor for d, _ in chosen)
        texts = [t for _, said in chosen for t in said]
        rows.append(
            (
                name, str(len(chosen)), *(str(vendors[v]) for v in VENDORS),
                str(len({d.group for d, _ in chosen})), str(len(texts)),
                f"{sum(bool(t.frame) for t in texts) / max(1, len(texts)):.0%}",
            )
        )
    lines = ["", *_aligned(rows), ""]
    rows = [("evaluation set", *(name.removesuffix(".csv") for name in FILES))]
    rows += [(name, *map(str, w.counts.values())) for name, w in written.items()]
    lines += [*_aligned(rows), ""]
    same = sum(twin.same_bytes for twin in book.twins)
    lines.append(
        f"leaks: {len(book.twins)} near-identical pairs ({same} with equal bytes), kept on one "
        f"side of every split; {len(book.dropped)} pictures dropped"
    )
    for drop, keep, twin in book.dropped:
        lines.append(f"  dropped {drop}: correlation {twin.correlation:.2f} with {keep}")
    lines.append(f"files that could not be drawn: {len(book.problems)}")
    lines += [f"  {problem}" for problem in book.problems]
    lines += ["licences:"]
    lines += [f"  {s.name:<20}{s.licence:<15}{s.url}" for s in SOURCES]
    return "\n".join(lines)


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]

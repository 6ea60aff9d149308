"""Writing rows of any source into a corpus, with what each came from and what was left out."""

from __future__ import annotations

import csv
import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from engine import CorpusWriter, Source

__all__ = ["ORIGINS", "Dead", "Ingest", "Origin", "check_out", "no_space_named"]

ORIGINS = pa.schema(
    [
        ("image", pa.int64()),
        ("file", pa.string()),
        ("sha256", pa.string()),
        ("member", pa.string()),
        ("time_s", pa.float64()),
    ]
)
"""Columns of ``origins.parquet``: image id, file that it came from (its name, no folder of the
machine), that file's SHA-256, the entry in it, the time in it."""


@dataclass(frozen=True)
class Dead:
    """A row that could not be used: in which file, where in it, its key, and why."""

    file: str
    where: str
    key: str
    reason: str


@dataclass(frozen=True)
class Origin:
    """What a picture came from: a file's name and SHA-256, the entry or the time in it."""

    file: str
    sha256: str
    member: str = ""
    time_s: float | None = None


class Ingest:
    """A corpus being written from a source; a context manager like its ``CorpusWriter``.

    Adds to the corpus: ``origins.parquet`` (see `ORIGINS`), ``inputs.csv`` (every file that was
    read, its SHA-256 and size) and ``dead.csv`` (what was left out and why).

    Attributes: ``counts``, rows kept and left out, also recorded in ``corpus.json``.
    """

    def __init__(
        self,
        out: Path,
        *,
        name: str,
        image_size: int,
        sources: Sequence[Source],
        command: str,
        facts: Mapping[str, Any],
        notes: str = "",
        jpeg_quality: int = 95,
        force: bool = False,
    ) -> None:
        check_out(out, force)
        self.counts: dict[str, Any] = {"images": 0, "pairs": 0, "dead": 0}
        self.dead: list[Dead] = []
        self._origins: list[tuple[int, Origin]] = []
        self._inputs: dict[str, tuple[str, int]] = {}
        # The writer keeps `counts` itself, so that what is counted until the end is recorded.
        made_by = {"command": command, **facts, "counts": self.counts}
        self.writer = CorpusWriter(
            out, name=name, version="1", image_size=image_size, sources=sources, made_by=made_by,
            notes=notes, jpeg_quality=jpeg_quality, overwrite=force,
        )  # fmt: skip

    def __enter__(self) -> Ingest:
        self.writer.__enter__()
        return self

    def add_input(self, file: str, sha256: str, size_bytes: int) -> None:
        """Say that a file was read."""
        self._inputs[file] = (sha256, size_bytes)

    def add_image(
        self, split: str, jpeg: bytes, *, view: str, source: str, origin: Origin, key: str = ""
    ) -> int:
        """Add a picture of the right size; returns its id. Errors as ``CorpusWriter``'s."""
        image = self.writer.add_image(split, jpeg, view=view, source=source, key=key)
        self._origins.append((image, origin))
        self.counts["images"] += 1
        return image

    def add_pair(self, image: int, utterance: str, **facts: Any) -> int:
        """Add an utterance; arguments and errors as ``CorpusWriter.add_pair``'s."""
        self.counts["pairs"] += 1
        return self.writer.add_pair(image, utterance, **facts)

    def leave_out(self, dead: Dead) -> None:
        """Count and list a row that could not be used."""
        self.dead.append(dead)
        self.counts["dead"] += 1

    def _finish(self) -> None:
        if not self.counts["pairs"]:
            why = Counter(dead.reason for dead in self.dead).most_common(1)
            left = self.counts["dead"]
            because = f" ({left} rows were left out, most: {why[0][0]})" if why else ""
            raise ValueError(f"{self.writer.path}: no row could be used{because}")
        self.counts["dead_by_reason"] = dict(
            sorted(Counter(_kind(dead.reason) for dead in self.dead).items())
        )
        table = pa.table(
            {
                "image": [image for image, _ in self._origins],
                **{
                    name: [getattr(origin, name) for _, origin in self._origins]
                    for name in ("file", "sha256", "member", "time_s")
                },
            },
            ORIGINS,
        )
        pq.write_table(table, self.writer.add_file("origins.parquet"))
        write_rows(
            self.writer.add_file("inputs.csv"),
            ("file", "sha256", "size_bytes"),
            [(file, *rest) for file, rest in sorted(self._inputs.items())],
        )
        names = [field.name for field in fields(Dead)]
        write_rows(self.writer.add_file("dead.csv"), names, [astuple(d) for d in self.dead])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failure:
            self.writer.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self.writer.__exit__(kind, error, trace)


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a CSV with unix line ends."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _kind(reason: str) -> str:
    """A reason without its particulars, which stand in parentheses."""
    return reason.split(" (")[0]


def summary(ingest: Ingest) -> str:
    """What was written and left out, as text."""
    counts = ingest.counts
    lines = [f"{counts['images']:,} pictures, {counts['pairs']:,} pairs"]
    if counts["dead"]:
        lines.append(f"{counts['dead']:,} rows left out (dead.csv lists them):")
        by_reason = sorted(counts["dead_by_reason"].items(), key=lambda item: (-item[1], item[0]))
        lines += [f"  {count:>9,}  {reason}" for reason, count in by_reason]
    return "\n".join(lines)


def check_out(out: Path, force: bool) -> None:
    """Refuse an output that exists (unless forced) before anything long begins."""
    if out.exists() and not force:
        raise ValueError(f"{out} exists already; --force replaces it")
    if out.exists() and not (out / "corpus.json").is_file():
        raise ValueError(f"{out} is not a corpus (no corpus.json); --force replaces only corpora")


@contextmanager
def no_space_named(place: Path, kept: str) -> Iterator[None]:
    """Turn a full disk into one line that says where, and what is kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        folder = place if place.exists() else place.parent
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize / 1e6
        raise OSError(f"{place}: no space left on its disk ({free:.1f} MB free); {kept}") from None


def source_facts(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """Sources as plain dictionaries."""
    return [asdict(source) for source in sources]

"""An evaluation set on disk: every candidate with its history, and the tables made of the kept.

    evalset.json     kind, corpus, sources, how it was made, counts, reviews, sha256 of every file
    records.jsonl    one candidate a line, rejected ones with the reason
    *.csv            the kept ones in the official layouts
    tasks.yaml       what `python -m benchmarks_eval` runs
    images/          pictures, where the set holds any

``evalset.json`` is written last: a folder without it is a set that is not finished.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from dataprep.evalsets.files import canonical, csv_text, json_lines, read_json_lines, sha256
from dataprep.evalsets.frames import is_restricted
from dataprep.files import sha256_file, write_whole

FORMAT = 1
MANIFEST = "evalset.json"
RECORDS = "records.jsonl"
TASKS = "tasks.yaml"
PAGE = "review.html"


@dataclass
class Record:
    """One candidate of a set."""

    id: str
    images: dict[str, str]
    """Role -> path of the picture relative to the set's folder."""
    fields: dict[str, str]
    """What the set's tables say about it and a review may change."""
    facts: dict[str, Any]
    """What is known about it besides (kind of difference, margins)."""
    provenance: dict[str, Any]
    """Where it comes from: ids, hashes, request key, model, template, seed, code version."""
    dropped: str = ""
    """Why a filter rejected it; empty where none did."""
    pruned: bool = False
    """Whether pruning left it out (decided anew each time the tables are made)."""
    review: dict[str, str] | None = None
    """decision, reviewer, time, note; None before a review."""

    @property
    def accepted(self) -> bool | None:
        """What the review said; None where it said nothing."""
        return None if self.review is None else self.review["decision"] != "reject"


Table = tuple[Sequence[str], list[Sequence[object]]]
"""Header and rows."""


@dataclass
class Finished:
    """What a kind makes of its kept records."""

    tables: dict[str, Table]
    tasks: list[dict[str, Any]]
    counts: dict[str, int]
    facts: dict[str, Any] = field(default_factory=dict)
    """For the manifest (for example what phrase-only models reach)."""
    lines: list[str] = field(default_factory=list)
    """For the person at the terminal."""


@dataclass
class EvalSet:
    """A set: where it is, what its manifest says, its records."""

    folder: Path
    info: dict[str, Any]
    records: list[Record]

    @property
    def kind(self) -> str:
        """labeled, two_word, winoground or caption."""
        return self.info["kind"]

    @property
    def restricted(self) -> bool:
        """Whether any of its sources is."""
        return any(is_restricted(source) for source in self.info["sources"])

    def candidates(self) -> list[Record]:
        """The records that no filter rejected, in order."""
        return [record for record in self.records if not record.dropped]

    def kept(self) -> list[Record]:
        """The candidates that the reviews left in.

        Before any review that is all of them. After one, what nobody looked at is left out, unless
        the manifest says ``unreviewed: keep``.
        """
        reviewed = any(record.review is not None for record in self.records)
        default = not reviewed or self.info.get("unreviewed") == "keep"
        return [
            record
            for record in self.candidates()
            if (default if record.accepted is None else record.accepted)
        ]


Finish = Callable[[EvalSet], Finished]


def save(evalset: EvalSet, finish: Finish) -> Finished:
    """Make the tables of a set and write everything, the manifest last."""
    folder = evalset.folder
    for record in evalset.records:
        record.pruned = False
    done = finish(evalset)
    info = evalset.info
    dropped = Counter(r.dropped.split(":")[0] for r in evalset.records if r.dropped)
    decisions = Counter(r.review["decision"] for r in evalset.records if r.review is not None)
    info["counts"] = {
        "records": len(evalset.records),
        "dropped": dict(sorted(dropped.items())),
        "reviewed": dict(sorted(decisions.items())),
        "pruned": sum(record.pruned for record in evalset.records),
        **done.counts,
    }
    info["facts"] = done.facts
    if "digest" not in info:
        names = [[record.id, record.fields] for record in evalset.candidates()]
        info["digest"] = sha256(canonical(names))
    tasks = {
        "name": info["name"],
        "version": 1 + len(info["reviews"]),
        "description": info["description"],
        "root": folder.as_posix(),
        **({"corpus": info["corpus"]["path"]} if info["corpus"] else {}),
        "show_pictures": not evalset.restricted,
        "tasks": done.tasks,
    }
    (folder / MANIFEST).unlink(missing_ok=True)
    for name, (header, rows) in done.tables.items():
        write_whole(folder / name, csv_text(header, rows))
    write_whole(folder / RECORDS, json_lines(asdict(record) for record in evalset.records))
    write_whole(folder / TASKS, yaml.safe_dump(tasks, sort_keys=False, allow_unicode=True))
    names = [*done.tables, RECORDS, TASKS]
    inside = {
        image
        for record in evalset.records
        for image in record.images.values()
        if not image.startswith("..")
    }
    info["files"] = {
        name: {"sha256": sha256_file(folder / name), "size_bytes": (folder / name).stat().st_size}
        for name in [*names, *sorted(inside)]
    }
    write_whole(folder / MANIFEST, json.dumps(info, indent=2, ensure_ascii=False) + "\n")
    return done


def read_evalset(folder: Path) -> EvalSet:
    """Open a finished set.

    Raises:
        ValueError: the folder holds none, or one of another format.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise ValueError(
            f"no finished evaluation set at {folder} (no {MANIFEST}); `python -m dataprep build` "
            "makes one"
        )
    try:
        info = json.loads(manifest.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest}: not JSON ({error})") from None
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        raise ValueError(f"{manifest}: not an evaluation set of format {FORMAT}")
    records = []
    for number, value in enumerate(read_json_lines(folder / RECORDS), 1):
        try:
            records.append(Record(**value))
        except TypeError as error:
            raise ValueError(f"{folder / RECORDS}, line {number}: {error}") from None
    return EvalSet(folder, info, records)


def begin(folder: Path, *, force: bool) -> None:
    """Make a set's folder, or go on with an unfinished one.

    Raises:
        ValueError: the folder holds a finished set and `force` is off, or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: is a file; --out is the folder of the evaluation set")
    if (folder / MANIFEST).is_file() and not force:
        raise ValueError(f"{folder} holds a finished evaluation set; --force makes it anew")
    folder.mkdir(parents=True, exist_ok=True)


def manifest(
    kind: str,
    name: str,
    description: str,
    *,
    sources: Sequence[Mapping[str, Any]],
    corpus: Mapping[str, Any] | None,
    made_by: Mapping[str, Any],
) -> dict[str, Any]:
    """The beginnings of an ``evalset.json``."""
    return {
        "format": FORMAT,
        "kind": kind,
        "name": name,
        "version": "1",
        "description": description,
        "corpus": dict(corpus) if corpus else None,
        "sources": [dict(source) for source in sources],
        "made_by": dict(made_by),
        "reviews": [],
    }

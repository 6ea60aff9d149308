"""The review: a page on which a person accepts, rejects or edits, and the decisions taken over.

The page is one file without anything from elsewhere; it works from a disk (file://). It names
pictures by path and holds none, so a copy of it shows nothing of a restricted set. Decisions are
saved by the browser as a CSV; applying them checks every row before anything changes.
"""

from __future__ import annotations

import datetime
import json
from collections import Counter
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from dataprep.evalsets.evalset import PAGE, EvalSet, Finished, Record, read_evalset, save
from dataprep.evalsets.files import read_csv
from dataprep.evalsets.kinds import EDITABLE, EDITS, KINDS
from dataprep.files import sha256_file, write_whole
from dataprep.provenance.version import code_version

TEMPLATE = Path(__file__).with_name("review.html.j2")
COLUMNS = ("set", "id", "decision", "reviewer", "time", "note")
DECISIONS = ("accept", "reject", "edit")


def write_page(folder: Path) -> Path:
    """Write ``review.html`` into a finished set's folder and return its path."""
    evalset = read_evalset(folder)
    path = folder / PAGE
    write_whole(path, render(evalset))
    return path


def render(evalset: EvalSet) -> str:
    """The page as a string."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    info = evalset.info
    data = {
        "set": info["digest"],
        "name": info["name"],
        "kind": info["kind"],
        "editable": EDITABLE[info["kind"]],
        "items": [_item(record) for record in evalset.candidates()],
    }
    # inside <script>: no text of the data may end it
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    return template.render(name=info["name"], kind=info["kind"], data=text)


def _item(record: Record) -> dict[str, Any]:
    facts = {
        key: value
        for key, value in record.facts.items()
        if isinstance(value, str | int | float) and key not in ("scorer_hash",)
    }
    if "categories" in record.facts:
        facts["target"] = record.facts["categories"][0]
    return {
        "id": record.id,
        "images": [
            {"role": role, "path": path}
            for role, path in record.images.items()
            if role not in ("negative", "control")
        ],
        "fields": record.fields,
        "facts": facts,
        "galleries": [
            {
                "field": f"{side}_attempt",
                "title": title,
                "phrase": record.fields.get(f"{side}_phrase", ""),
                "paths": record.facts[side]["candidates"],
                "margins": record.facts[side]["margins"],
            }
            for side, title in (
                ("negative", "generated for the negative phrase"),
                ("positive", "generated for the positive phrase (control)"),
            )
            if side in record.facts
        ],
        "review": record.review,
    }


def apply_review(
    folder: Path,
    decisions: Path,
    *,
    reviewer: str = "",
    unreviewed: str = "drop",
    now: datetime.datetime | None = None,
) -> Finished:
    """Take the decisions of a CSV over into a set and make its tables anew.

    Args:
        folder: the set's.
        decisions: what the page saved: ``set,id,decision,reviewer,time,note`` and the fields.
        reviewer: who decided, where the CSV does not say so.
        unreviewed: what becomes of candidates without a decision: ``drop`` or ``keep``.
        now: when this happens; the present by default.

    Raises:
        ValueError: naming file and line: another set's decisions, an unknown id or decision, an
            edit that cannot be. Nothing is changed then.
    """
    if unreviewed not in ("drop", "keep"):
        raise ValueError(f"--unreviewed {unreviewed}: accepted are drop, keep")
    evalset = read_evalset(folder)
    info, kind = evalset.info, evalset.kind
    by_id = {record.id: record for record in evalset.candidates()}
    seen: dict[str, int] = {}
    counts: Counter[str] = Counter()
    people: set[str] = set()
    for line, row in read_csv(decisions, (*COLUMNS, *EDITABLE[kind])):
        where = f"{decisions}, line {line}"
        decision, name = row["decision"].strip(), row["id"].strip()
        if not decision:
            continue
        if row["set"] != info["digest"]:
            raise ValueError(
                f"{where}: a decision on another set ({row['set'][:12] or 'none'}; this one is "
                f"{info['digest'][:12]})"
            )
        if decision not in DECISIONS:
            raise ValueError(f"{where}: decision {decision!r}; accepted: {', '.join(DECISIONS)}")
        if name not in by_id:
            raise ValueError(f"{where}: no candidate {name!r} in {folder}")
        if name in seen:
            raise ValueError(f"{where}: {name} was decided on line {seen[name]} already")
        who = row["reviewer"].strip() or reviewer
        if not who:
            raise ValueError(f"{where}: nobody is named as the reviewer; give --reviewer NAME")
        seen[name] = line
        record = by_id[name]
        review = {"decision": decision, "reviewer": who, "time": row["time"], "note": row["note"]}
        if decision == "edit":
            fields = {**record.fields, **{f: row[f].strip() for f in EDITABLE[kind]}}
            problem = EDITS[kind](record, fields)
            if problem:
                raise ValueError(f"{where}: {problem}")
            review["before"] = json.dumps(record.fields, ensure_ascii=False)
            record.fields = fields
        record.review = review
        counts[decision] += 1
        people.add(who)
    if not seen:
        raise ValueError(f"{decisions}: holds no decision")
    info["unreviewed"] = unreviewed
    moment = now or datetime.datetime.now(datetime.UTC)
    info["reviews"].append(
        {
            "applied": moment.isoformat(timespec="seconds"),
            "reviewers": sorted(people),
            "decisions": {name: counts[name] for name in DECISIONS},
            "undecided": sum(record.review is None for record in by_id.values()),
            "unreviewed": unreviewed,
            "file": decisions.name,
            "file_sha256": sha256_file(decisions),
            "code_version": code_version(),
        }
    )
    return save(evalset, KINDS[kind])

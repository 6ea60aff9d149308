"""The command: every caption asked once, the answers written as a corpus that says where from."""

from __future__ import annotations

import csv
import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataprep.llm.answering import Backend, Summary, fill
from dataprep.llm.request import canonical
from dataprep.llm.store import RequestStore
from dataprep.provenance.version import code_version, package_versions
from dataprep.rewrite.rows import Requests, Row, Rows
from dataprep.rewrite.template import Template
from dataprep.similarity.copying import copy_origins
from engine import Corpus, CorpusWriter, Source

NOTES = (
    "The utterances were written by a language model from captions (see made_by: model, template, "
    "seed). rewrite/rows.jsonl says of every row of the general corpus what became of it, "
    "rewrite/dropped.csv and rewrite/failed.csv why rows are not here. The BabyVLM paper's exact "
    "prompt is not published: this is not the paper's data."
)


@dataclass
class Written:
    """Counts of what became of the rows."""

    kept: int = 0
    images: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Job:
    """What is to be rewritten, and how.

    Attributes: ``corpus``; ``rows`` of it; ``template``; ``model``; ``seed`` (None sends none);
    ``name`` of the new corpus.
    """

    corpus: Corpus
    rows: Rows
    template: Template
    model: str
    seed: int | None
    name: str

    @property
    def requests(self) -> Requests:
        """One for each different caption."""
        return Requests(self.rows, self.template, self.model, self.seed)

    def made_by(self) -> dict[str, Any]:
        """All that decides the new corpus besides the answers."""
        return {
            "command": "python -m dataprep rewrite",
            "general_corpus": {"name": self.corpus.name, "corpus_json_sha256": self.corpus.digest},
            "splits": list(self.rows.splits),
            "rows": len(self.rows),
            "model": self.model,
            "seed": self.seed,
            "template": {"name": self.template.name, "sha256": self.template.sha256,
                         "system": self.template.system, "user": self.template.user,
                         "schema": self.template.schema},
            "code": code_version(),
            "packages": package_versions(["openai", "jsonschema"]),
        }  # fmt: skip

    def is_done(self, out: Path) -> bool:
        """Whether ``out`` is the corpus of this very job (a kill may come after the end)."""
        try:
            found = json.loads((out / "corpus.json").read_text("utf-8"))["made_by"]
            return self.made_by() == {k: v for k, v in found.items() if k != "outcome"}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


def ask(
    job: Job, store: RequestStore, backend: Backend, *, allow_failures: bool, progress: bool
) -> Summary:
    """Have every caption answered.

    Raises ``OSError`` when the server or disk stops it, or (unless ``allow_failures``) when
    requests are left that failed in a way that may pass: running again asks only those.
    """
    summary = fill(job.requests, store, backend, progress)
    if summary.failed and not allow_failures:
        kinds = Counter(kind for kind, _ in summary.failed.values())
        kind, text = next(iter(summary.failed.values()))
        counts = ", ".join(f"{name} {number}" for name, number in sorted(kinds.items()))
        raise OSError(
            f"{len(summary.failed)} of {summary.asked} requests have no answer ({counts}; first: "
            f"{kind}, {text}); the others are kept in {store.path}: run again to ask only those, "
            "or write the corpus without them with --allow-failures"
        )
    return summary


def write(
    job: Job, store: RequestStore, summary: Summary, out: Path, *, overwrite: bool, progress: bool
) -> Written:
    """Write the corpus from the store's answers; the same answers give the same bytes."""
    written = Written()
    sources = [Source(**source) for source in job.corpus.info["sources"]]
    made_by = job.made_by()
    made_by["outcome"] = outcome = {}  # filled in below, before the writer ends
    with (
        CorpusWriter(
            out, name=job.name, version="1", image_size=job.corpus.image_size, sources=sources,
            made_by=made_by, notes=NOTES, overwrite=overwrite,
        ) as writer,
        ExitStack() as opened,
    ):  # fmt: skip
        rows_file = opened.enter_context(
            writer.add_file("rewrite/rows.jsonl").open("w", encoding="utf-8")
        )
        lists = {}
        for name in ("dropped", "failed"):
            file = writer.add_file(f"rewrite/{name}.csv").open("w", encoding="utf-8", newline="")
            lists[name] = csv.writer(opened.enter_context(file), lineterminator="\n")
            lists[name].writerow(["split", "pair", "reason", "caption", "text"])
        images: dict[int, int] = {}
        bar = tqdm(job.rows, total=len(job.rows), unit="row", desc="write", disable=not progress)
        for row in bar:
            line = _judge(job, store, summary, row)
            if line["outcome"] == "kept":
                if row.image not in images:
                    images[row.image] = _copy_image(writer, job.corpus, row)
                line["pair"] = writer.add_pair(
                    images[row.image], line["utterance"], source=row.source, group=row.group,
                    time_s=row.time_s, provenance=_provenance(job, row, line),
                )  # fmt: skip
                written.kept += 1
            else:
                lists[line["outcome"]].writerow(
                    [row.split, row.pair, line["reason"], row.caption, line.pop("text")]
                )
                getattr(written, line["outcome"])[line["reason"]] += 1
            rows_file.write(canonical(line).decode("utf-8", "replace") + "\n")
        if not written.kept:
            raise ValueError(f"{out}: not one of {len(job.rows)} rows was kept; nothing is written")
        copy_origins(job.corpus, writer, images)
        written.images = len(images)
        outcome |= {"kept": written.kept, "images": written.images,
                    "dropped": dict(sorted(written.dropped.items())),
                    "failed": dict(sorted(written.failed.items()))}  # fmt: skip
    return written


def _judge(job: Job, store: RequestStore, summary: Summary, row: Row) -> dict[str, Any]:
    """What became of a row, as its line in rows.jsonl (``text`` is taken out before)."""
    request = job.requests.of(row)
    line: dict[str, Any] = {
        "split": row.split, "general_pair": row.pair, "caption_sha256": row.sha256,
        "request": request.key,
    }  # fmt: skip
    reply = store.reply(request)
    if reply is None:
        kind, text = summary.failed[request.key]
        return {**line, "outcome": "failed", "reason": kind, "text": text}
    line["served_by"] = reply.model
    if reply.failure is not None:
        return {**line, "outcome": "failed", "reason": reply.failure, "text": reply.text}
    utterance, why = job.template.read(reply)
    if utterance is None:
        return {**line, "outcome": "dropped", "reason": why, "text": reply.text}
    return {**line, "outcome": "kept", "utterance": utterance}


def _provenance(job: Job, row: Row, line: dict[str, Any]) -> str:
    """Where an utterance comes from, as JSON in one line."""
    said: dict[str, Any] = {
        "by": "rewrite",
        "corpus": job.corpus.digest,
        "pair": row.pair,
        "caption_sha256": line["caption_sha256"],
        "request": line["request"],
        "model": job.model,
        "served_by": line["served_by"],
        "template": job.template.name,
        "template_sha256": job.template.sha256,
        "seed": job.seed,
        "code": code_version(),
    }
    if row.provenance:
        said["caption_from"] = row.provenance
    return json.dumps(said, ensure_ascii=False, separators=(",", ":"))


def _copy_image(writer: CorpusWriter, corpus: Corpus, row: Row) -> int:
    table = corpus.image_table
    at = int(table["row"][row.image])
    pictures = corpus.images(row.split)
    picture = pictures.stored(at).tobytes() if pictures.modes[at] == 0 else pictures.pixels(at)
    return writer.add_image(
        row.split, picture, view=str(table["view"][row.image]),
        source=str(table["source"][row.image]), key=str(table["key"][row.image]),
    )  # fmt: skip


def report(written: Written, summary: Summary, store: RequestStore, out: Path) -> list[str]:
    """What happened, as printed."""

    def listed(counts: Counter[str]) -> str:
        return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"

    lines = [
        f"{out}: {written.kept} utterances kept, on {written.images} pictures",
        f"  dropped {sum(written.dropped.values())}: {listed(written.dropped)}",
        f"  failed  {sum(written.failed.values())}: {listed(written.failed)}",
        f"  requests: {summary.asked} different, {summary.known} answered before, "
        f"{summary.answered} now ({summary.usage['prompt_tokens']} tokens in, "
        f"{summary.usage['completion_tokens']} out); answers in the store came from "
        f"{listed(Counter(store.origins()))}",
    ]
    if summary.unsure:
        lines.append(
            f"  {summary.unsure} attempts ended without their answer (kills, time-outs, lost "
            "connections): the server may have charged for them"
        )
    return lines

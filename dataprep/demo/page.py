"""``index.html``: what came out, with pictures, and plainly what of it is real.

Every number on it is read from what the stages wrote (manifests, records, logs), none is typed in.
One file with pictures beside it and nothing from elsewhere; the same outputs give the same bytes.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from PIL import Image

from dataprep.demo.stages import Stage
from dataprep.demo.strip import film_cards
from dataprep.demo.training import losses
from dataprep.demo.two_words import Phrases
from dataprep.evalsets.evalset import read_evalset
from dataprep.files import write_whole

__all__ = ["write_page"]

TEMPLATE = Path(__file__).with_name("index.html.j2")
CAPTIONS, TRIALS, INSTANCES = 9, 12, 6
"""How many are shown."""


def write_page(out: Path, todo: Sequence[Stage], phrases: Phrases, run_dir: Path | None) -> Path:
    """Write ``index.html`` into a finished demonstration and return its path.

    Args:
        out: its folder.
        todo: its stages.
        phrases: what phrases alone reach on the two-word set.
        run_dir: the run that trained on it; None, or a folder without a run: none is shown.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(TEMPLATE.read_text("utf-8")).render(
        raw=_json(out / "materials" / "materials.json"),
        film=film_cards(out),
        corpora={name: _json(out / name / "corpus.json") for name in (
            "frames", "filtered", "child", "pool-stamps", "pool", "spoken", "transferred", "mixed",
        )},
        parts=_parts(out),
        rewritten=_rewritten(out),
        two_word=_two_word(out),
        winoground=_winoground(out),
        sets={name: _json(out / name / "evalset.json")["counts"] for name in (
            "two-word", "winoground", "labeled", "captions",
        )},
        phrases=phrases,
        training=_training(run_dir, out / "mixed"),
        size={name: _size(out / name) for name in (
            "matched.png", "mixed.png", "filtered/filter/similarity.png",
            "transferred/match/similarity.png",
        )},
        logs={stage.name: _log(out, stage) for stage in todo},
        stages=todo,
    )  # fmt: skip
    path = out / "index.html"
    write_whole(path, text)
    return path


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as picture:
        return picture.size


def _log(out: Path, stage: Stage) -> str:
    """What a stage printed, without the out folder's place; empty where it was cut short."""
    file = out / "logs" / f"{stage.name}.txt"
    return file.read_text("utf-8").strip() if file.is_file() else ""


def _parts(out: Path) -> list[tuple[str, str, int]]:
    """(split, source, pairs) of the mixed corpus."""
    from engine import read_corpus

    corpus = read_corpus(out / "mixed")
    found = []
    for split in ("train", "val", "test"):
        sources = corpus.pairs(split).source if split in corpus.splits else []
        found += [(split, str(name), int((sources == name).sum())) for name in sorted(set(sources))]
    return found


def _rewritten(out: Path) -> list[dict[str, str]]:
    """Some captions with what became of them: of each reason one, the rest kept."""
    from engine import read_corpus

    captions = read_corpus(out / "pool").pairs("train").utterance
    dropped: dict[str, dict[str, str]] = {}
    with (out / "spoken" / "rewrite" / "dropped.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            known = {"caption": row["caption"], "said": "", "reason": row["reason"]}
            dropped.setdefault(row["reason"], known)
    kept = []
    lines = (out / "spoken" / "rewrite" / "rows.jsonl").read_text("utf-8").splitlines()
    for line in lines[:: max(len(lines) // 40, 1)]:
        row = json.loads(line)
        if row["outcome"] == "kept":
            caption = captions[row["general_pair"]]
            kept.append({"caption": caption, "said": row["utterance"], "reason": ""})
    few = [dropped[name] for name in sorted(dropped)][:3]
    return kept[: CAPTIONS - len(few)] + few


def _two_word(out: Path) -> list[dict[str, Any]]:
    """Trials that were kept, those of new words and rare kinds first."""
    records = [r for r in read_evalset(out / "two-word").kept() if not r.pruned]
    order = sorted(range(len(records)), key=lambda k: (_rank(records, k), k))
    return [
        {
            "image": f"two-word/{records[k].images['image']}",
            "positive": records[k].fields["positive_phrase"],
            "negative": records[k].fields["negative_phrase"],
            "kind": records[k].facts["kind"],
        }
        for k in order[:TRIALS]
    ]


def _rank(records: list[Any], place: int) -> int:
    """How often its words were there before, and its kind."""
    mine = records[place]
    words = {*mine.fields["positive_phrase"].split()} - {"see"}
    return sum(
        (other.facts["kind"] == mine.facts["kind"])
        + 50 * bool(words & {*other.fields["positive_phrase"].split()})
        for other in records[:place]
    )


def _winoground(out: Path) -> list[dict[str, str]]:
    """Instances: the real picture and the chosen negative."""
    found = []
    for record in read_evalset(out / "winoground").candidates()[:INSTANCES]:
        chosen = int(record.fields["negative_attempt"])
        found.append(
            {
                "positive": (out / "winoground" / record.images["positive"]).resolve()
                .relative_to(out.resolve()).as_posix(),
                "negative": f"winoground/{record.facts['negative']['candidates'][chosen]}",
                "true": record.fields["positive_phrase"],
                "false": record.fields["negative_phrase"],
            }
        )  # fmt: skip
    return found


def _training(run_dir: Path | None, corpus: Path) -> list[dict[str, Any]]:
    """Each phase's losses as points of a drawing 200 by 60, from its first window to its last."""
    found = []
    for phase, points in (losses(run_dir, corpus) if run_dir is not None else {}).items():
        first, last = points[0], points[-1]
        most = max(loss for _, loss in points)
        length = max(last[0] - first[0], 1)
        drawn = " ".join(
            f"{200 * (step - first[0]) / length:.1f},{60 - 56 * loss / max(most, 1e-9):.1f}"
            for step, loss in points
        )
        found.append({"phase": phase, "first": first, "last": last, "points": drawn})
    return found

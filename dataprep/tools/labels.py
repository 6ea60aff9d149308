"""The published evaluation sets' CSVs, recognised by their columns, read and checked."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LabelSet", "read_labels"]

COLUMNS = {
    "labeled": ("trial_id", "target_category", "real_category", "image"),
    "two-word": ("image", "positive_phrase", "negative_phrase"),
    "winoground": ("instance_id", "positive_phrase", "negative_phrase", "image", "image_tag"),
    "caption": ("image", "text"),
}


@dataclass(frozen=True)
class LabelSet:
    """A published evaluation set.

    Attributes: ``kind``, one of `COLUMNS`; ``questions``, trials, instances or captions; ``rows``
    of the file; ``images``, different pictures; ``texts``, every text a model is asked about once
    a question; ``notes``, what stands out.
    """

    path: Path
    kind: str
    rows: int
    questions: int
    images: int
    texts: list[str]
    notes: list[str]


def read_labels(path: Path) -> LabelSet:
    """Read a CSV of one of the four published layouts.

    Raises:
        ValueError: it has none of the layouts, or a malformed row (with its line).
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            header = tuple(reader.fieldnames or ())
            kind = next((k for k, names in COLUMNS.items() if set(names) == set(header)), None)
            if kind is None:
                layouts = "; ".join(f"{k}: {', '.join(names)}" for k, names in COLUMNS.items())
                raise ValueError(
                    f"{path}, line 1: columns {', '.join(header) or '(none)'}; accepted: {layouts}"
                )
            rows: list[dict[str, str]] = []
            for row in reader:
                empty = [name for name in COLUMNS[kind] if not (row[name] or "").strip()]
                if empty or None in row:
                    what = f"column {empty[0]!r} is empty" if empty else "too many columns"
                    raise ValueError(f"{path}, line {reader.line_num}: {what}")
                rows.append({name: row[name].strip() for name in COLUMNS[kind]})
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path}, after line {reader.line_num}: not UTF-8 text") from None
    if not rows:
        raise ValueError(f"{path}: no rows under the header")
    questions, texts, notes = _READ[kind](path, rows)
    images = len({row["image"] for row in rows})
    return LabelSet(path, kind, len(rows), questions, images, texts, notes)


def _labeled(path: Path, rows: list[dict[str, str]]) -> tuple[int, list[str], list[str]]:
    trials: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        trials[row["trial_id"]].append(row)
    for name, trial in trials.items():
        hits = sum(row["real_category"] == row["target_category"] for row in trial)
        if hits != 1 or len({row["target_category"] for row in trial}) != 1:
            raise ValueError(f"{path}: trial {name} has {hits} pictures of its target; accepted: 1")
    targets = [trial[0]["target_category"] for trial in trials.values()]
    sizes = Counter(map(len, trials.values()))
    ways = ", ".join(f"{count:,} of {size}" for size, count in sorted(sizes.items()))
    return len(trials), targets, [f"{len(set(targets))} categories; pictures a trial: {ways}"]


def _two_word(path: Path, rows: list[dict[str, str]]) -> tuple[int, list[str], list[str]]:
    pairs = [(row["positive_phrase"], row["negative_phrase"]) for row in rows]
    return len(rows), [text for pair in pairs for text in pair], [_shared(pairs)]


def _winoground(path: Path, rows: list[dict[str, str]]) -> tuple[int, list[str], list[str]]:
    instances: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        instances[row["instance_id"]].append(row)
    for name, pair in instances.items():
        tags = sorted(row["image_tag"] for row in pair)
        if tags != ["negative", "positive"]:
            raise ValueError(
                f"{path}: instance {name} has pictures tagged {', '.join(tags)}; accepted: one "
                "positive, one negative"
            )
    pairs = [(p[0]["positive_phrase"], p[0]["negative_phrase"]) for p in instances.values()]
    return len(instances), [text for pair in pairs for text in pair], [_shared(pairs)]


def _caption(path: Path, rows: list[dict[str, str]]) -> tuple[int, list[str], list[str]]:
    texts = [row["text"] for row in rows]
    words = [len(text.split()) for text in texts]
    mean = sum(words) / len(words)
    return len(rows), texts, [f"words: mean {mean:.2f}, {min(words)} to {max(words)}"]


def _shared(pairs: list[tuple[str, str]]) -> str:
    """How the two phrases of a question differ."""
    counts: Counter[str] = Counter()
    for positive, negative in pairs:
        a, b = positive.split(), negative.split()
        if len(a) != 2 or len(b) != 2:
            counts["not two words"] += 1
        elif a[1] == b[1]:
            counts["share the second word"] += 1
        elif a[0] == b[0]:
            counts["share the first word"] += 1
        else:
            counts["share none"] += 1
    return "phrases: " + ", ".join(f"{count:,} {what}" for what, count in counts.most_common())


_READ = {
    "labeled": _labeled, "two-word": _two_word, "winoground": _winoground, "caption": _caption,
}  # fmt: skip

"""What there is to say about a corpus or an evaluation set, read from its manifest and tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dataprep.evalsets.evalset import MANIFEST, read_evalset
from dataprep.evalsets.files import sha256
from dataprep.evalsets.frames import is_restricted
from engine import read_corpus

SAMPLES = 8


@dataclass
class Described:
    """The facts of one corpus or evaluation set."""

    folder: Path
    what: str
    """corpus, or evaluation set."""
    name: str
    version: str
    about: str
    digest: str
    """SHA-256 of the manifest."""
    sources: list[dict[str, Any]]
    made_by: dict[str, Any]
    files: dict[str, dict[str, Any]]
    """Name -> sha256, size_bytes; the manifest with them."""
    counts: list[tuple[str, str]]
    tables: dict[str, dict[str, str]]
    """File -> column -> Croissant data type."""
    origin: list[tuple[str, str]] = field(default_factory=list)
    """Models, templates and requests that made words and pictures."""
    samples: list[str] = field(default_factory=list)
    """Utterances of sources that are not restricted."""
    reviews: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: str = ""

    @property
    def restricted(self) -> list[str]:
        """Names of its restricted sources."""
        return sorted(source["name"] for source in self.sources if is_restricted(source))

    @property
    def licences(self) -> list[str]:
        """The sources' licences, each once."""
        return sorted({str(source["licence"]) for source in self.sources})


def describe(folder: Path) -> Described:
    """Read a corpus directory or an evaluation set's folder.

    Raises:
        ValueError: the folder holds neither, or its files disagree.
    """
    if (folder / MANIFEST).is_file():
        return _evalset(folder)
    return _corpus(folder)


def _manifest_file(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {"sha256": sha256(data), "size_bytes": len(data)}


def _corpus(folder: Path) -> Described:
    corpus = read_corpus(folder)
    info = corpus.info
    restricted = {source["name"] for source in info["sources"] if is_restricted(source)}
    counts = [("image size in pixels", str(corpus.image_size))]
    origin: Counter[str] = Counter()
    spoken: Counter[str] = Counter()
    samples: list[str] = []
    groups: dict[str, set[str]] = {}
    similarities = []
    for split in corpus.splits:
        pairs = corpus.pairs(split)
        groups[split] = set(pairs.group)
        words = sum(len(text.split()) for text in pairs.utterance)
        counts.append(
            (
                f"split {split}",
                f"{len(corpus.images(split))} pictures, {len(pairs)} utterances, {words} words, "
                f"{len(groups[split])} groups",
            )
        )
        origin.update(_origin(text) for text in pairs.provenance)
        spoken.update(str(source) for source in pairs.source)
        similarities.append(pairs.similarity[~np.isnan(pairs.similarity)])
        for source, text in zip(pairs.source, pairs.utterance, strict=True):
            if source not in restricted and text not in samples and len(samples) < SAMPLES:
                samples.append(text)
    counts += [(f"utterances of {name}", str(count)) for name, count in sorted(spoken.items())]
    pictures = Counter(str(name) for name in corpus.image_table["source"])
    counts += [(f"pictures of {name}", str(count)) for name, count in sorted(pictures.items())]
    if "train" in groups:
        for split in corpus.splits:
            if split != "train":
                shared = len(groups[split] & groups["train"])
                counts.append((f"groups that {split} shares with train", str(shared)))
    measured = np.concatenate(similarities) if similarities else np.empty(0)
    if len(measured):
        low, middle, high = np.quantile(measured, (0.05, 0.5, 0.95))
        counts.append(("similarity (5 %, median, 95 %)", f"{low:.3f}, {middle:.3f}, {high:.3f}"))
    return Described(
        folder=folder,
        what="corpus",
        name=info["name"],
        version=str(info.get("version", "1")),
        about="Pictures with utterances spoken to a young child, in splits, for training small "
        "vision-language models.",
        digest=corpus.digest,
        sources=list(info["sources"]),
        made_by=dict(info.get("made_by") or {}),
        files={**info["files"], "corpus.json": _manifest_file(folder / "corpus.json")},
        counts=counts,
        tables={"pairs.parquet": PAIR_TYPES, "images.parquet": IMAGE_TYPES},
        origin=[(name, str(count)) for name, count in sorted(origin.items())],
        samples=samples,
        notes=str(info.get("notes", "")),
    )


PAIR_TYPES = {
    "id": "sc:Integer", "split": "sc:Text", "image": "sc:Integer", "utterance": "sc:Text",
    "source": "sc:Text", "group": "sc:Text", "time_s": "sc:Float", "similarity": "sc:Float",
    "provenance": "sc:Text",
}  # fmt: skip
IMAGE_TYPES = {
    "image": "sc:Integer", "split": "sc:Text", "row": "sc:Integer", "view": "sc:Text",
    "source": "sc:Text", "key": "sc:Text", "crc32": "sc:Integer", "size_bytes": "sc:Integer",
}  # fmt: skip


def _origin(provenance: str) -> str:
    """What made an utterance, without what is its own (request keys, row numbers)."""
    if not provenance:
        return "original words"
    try:
        value = json.loads(provenance)
    except ValueError:
        return f"made through: {provenance}" if len(provenance) <= 80 else "made (see the table)"
    if not isinstance(value, Mapping):
        return "made (see the table)"
    shown = [f"{k} {value[k]}" for k in ("by", "model", "template", "code") if value.get(k)]
    return "made: " + ", ".join(shown) if shown else "made (see the table)"


def _evalset(folder: Path) -> Described:
    evalset = read_evalset(folder)
    info = evalset.info
    counts = [("kind", evalset.kind)]
    for name, value in info["counts"].items():
        if isinstance(value, dict):
            counts += [(f"{name}: {reason}", str(count)) for reason, count in value.items()]
        else:
            counts.append((name.replace("_", " "), str(value)))
    origin: Counter[str] = Counter()
    for record in evalset.records:
        made = record.provenance
        if "model" in made:
            origin[f"words: model {made['model']}, template {made['template']}"] += 1
        for side in ("negative", "positive"):
            if isinstance(made.get(side), dict):
                painted = made[side]
                origin[
                    f"pictures: {painted['model']} ({painted['mode']}), weights "
                    f"{painted['weights_sha256'][:12]}"
                ] += len(painted["seeds"])
    tables = {}
    for name in info["files"]:
        if name.endswith(".csv"):
            header = (folder / name).read_text("utf-8").split("\n", 1)[0].split(",")
            tables[name] = dict.fromkeys(header, "sc:Text")
    return Described(
        folder=folder,
        what="evaluation set",
        name=info["name"],
        version=str(1 + len(info["reviews"])),
        about=info["description"],
        digest=_manifest_file(folder / MANIFEST)["sha256"],
        sources=list(info["sources"]),
        made_by=dict(info["made_by"]),
        files={**info["files"], MANIFEST: _manifest_file(folder / MANIFEST)},
        counts=counts,
        tables=tables,
        origin=[(name, str(count)) for name, count in sorted(origin.items())],
        reviews=list(info["reviews"]),
        facts=dict(info["facts"]),
    )

"""Checking a corpus: every file, every picture, and what leaks between its splits."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from engine import Corpus, read_corpus

__all__ = ["Findings", "straddling", "validate"]


@dataclass
class Findings:
    """What is wrong with a corpus (``problems``) and what its user should know (``warnings``)."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)


def validate(path: Path, *, quick: bool = False, progress: bool = True) -> Findings:
    """Check a corpus directory.

    Args:
        path: the corpus.
        quick: leave out hashes and pictures.
        progress: show bars.

    Raises:
        ValueError: its files do not belong together, so that nothing further can be checked.
    """
    corpus = read_corpus(path)
    found = Findings()
    splits = ", ".join(
        f"{name} {counts['images']:,}/{counts['pairs']:,}"
        for name, counts in corpus.info["splits"].items()
    )
    found.checked.append(f"tables, ids, counts (images/pairs: {splits})")
    _sources(corpus, found)
    if not quick:
        _hashes(corpus, found, progress)
        _pictures(corpus, found, progress)
    _texts(corpus, found)
    for what in ("group", "view"):
        for (a, b), count in straddling(corpus, what).items():
            found.warnings.append(
                f"{count:,} {what}s are in {a} and in {b}: what {b} measures is partly memory"
            )
    found.checked.append("groups and views across splits")
    return found


def _sources(corpus: Corpus, found: Findings) -> None:
    declared = {source["name"]: source for source in corpus.info["sources"]}
    used: set[str] = set(corpus.image_table["source"])
    for split in corpus.splits:
        used |= set(corpus.pairs(split).source)
    for name in sorted(used - set(declared)):
        found.problems.append(f"corpus.json: source {name!r} is used and not declared")
    for name in sorted(set(declared) & used):
        if not declared[name].get("licence"):
            found.problems.append(f"corpus.json: source {name!r} has no licence")
    for name in sorted(set(declared) - used):
        found.warnings.append(f"source {name!r} is declared and not used")
    found.checked.append(f"{len(used)} sources and their licences")


def _hashes(corpus: Corpus, found: Findings, progress: bool) -> None:
    files = corpus.info.get("files", {})
    total = sum(entry["size_bytes"] for entry in files.values())
    with tqdm(
        total=total, unit="B", unit_scale=True, desc="hashes", disable=not progress
    ) as bar:
        for name, entry in files.items():
            file = corpus.path / name
            if not file.is_file():
                found.problems.append(f"{name}: listed in corpus.json, missing")
                continue
            digest = hashlib.sha256()
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 22):
                    digest.update(chunk)
                    bar.update(len(chunk))
            if digest.hexdigest() != entry["sha256"]:
                found.problems.append(f"{name}: its SHA-256 is not the one in corpus.json")
    found.checked.append(f"SHA-256 of {len(files)} files")


def _pictures(corpus: Corpus, found: Findings, progress: bool) -> None:
    """Decode every picture and compare its checksum."""
    table = corpus.image_table
    total = len(table["image"])
    bad: list[str] = []
    with tqdm(total=total, unit="picture", desc="pictures", disable=not progress) as bar:
        for split in corpus.splits:
            beton = corpus.images(split)
            for row, entry in enumerate(corpus.image_rows(split)):
                bar.update()
                key = table["key"][entry] or table["view"][entry]
                data = beton.stored(row)
                if beton.crc32(row) != table["crc32"][entry]:
                    bad.append(f"{split}.beton, row {row} ({key}): its bytes changed (CRC-32)")
                    continue
                try:
                    with Image.open(io.BytesIO(data.tobytes())) as picture:
                        picture.load()
                except (OSError, SyntaxError, ValueError) as error:
                    bad.append(f"{split}.beton, row {row} ({key}): not a whole picture ({error})")
    found.problems += bad
    found.checked.append(f"{total:,} pictures decoded")


def _texts(corpus: Corpus, found: Findings) -> None:
    for split in corpus.splits:
        pairs = corpus.pairs(split)
        empty = sum(not text.strip() for text in pairs.utterance)
        if empty:
            found.problems.append(f"pairs.parquet: {empty:,} empty utterances in {split}")
        odd = sum(not text.isprintable() for text in pairs.utterance)
        if odd:
            found.warnings.append(
                f"{odd:,} utterances of {split} have line breaks or control characters"
            )
        silent = len(corpus.image_rows(split)) - len(np.unique(pairs.image))
        if silent:
            found.warnings.append(f"{silent:,} pictures of {split} have no utterance")
        said = Counter(zip(pairs.image.tolist(), pairs.utterance, strict=True))
        twice = sum(count - 1 for count in said.values())
        if twice:
            found.warnings.append(f"{twice:,} pairs of {split} repeat another one")
    found.checked.append("utterances")


def straddling(corpus: Corpus, what: str) -> dict[tuple[str, str], int]:
    """How many groups or views are in train and in another split, by pair of splits."""
    if "train" not in corpus.splits:
        return {}
    train = set(getattr(corpus.pairs("train"), what))
    found = {}
    for split in corpus.splits:
        if split != "train":
            shared = train & set(getattr(corpus.pairs(split), what))
            if shared:
                found["train", split] = len(shared)
    return found

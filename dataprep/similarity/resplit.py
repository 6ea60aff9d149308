"""The commands ``duplicates`` and ``split``: find, record, write, and print what was found."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.provenance.version import code_version, package_versions
from dataprep.similarity.copying import (
    check_target,
    copy_origins,
    copy_split,
    derived_writer,
    parent,
)
from dataprep.similarity.dhash import SCHEME, hash_corpus
from dataprep.similarity.duplicates import Duplicates, find_duplicates, write_duplicates
from dataprep.similarity.embed import embed_corpus, store_folder
from dataprep.similarity.leaks import Leak, measure_leaks
from dataprep.similarity.recordings import frames_of
from dataprep.similarity.scorers import Scorer, hash_facts
from dataprep.similarity.splits import by_group, by_utterance, pooled
from engine import Corpus

__all__ = ["WAYS", "Deduplicated", "deduplicate", "split_corpus"]

WAYS = ("random", "group")


@dataclass(frozen=True)
class Deduplicated:
    """What was found, by split and by measure."""

    pictures: dict[str, int]
    by_hash: dict[str, int]
    by_cosine: dict[str, int]
    found: Duplicates


def deduplicate(
    corpus: Corpus,
    table: Path,
    *,
    stores: Path,
    scorer: Scorer | None = None,
    hamming: int,
    cosine: float,
    splits: tuple[str, ...] = (),
    drop: Path | None = None,
    name: str | None = None,
    batch_size: int = 64,
    force: bool = False,
    progress: bool = True,
) -> Deduplicated:
    """Write the groups of near-duplicates; with ``drop``, a corpus without them as well.

    Args:
        corpus: where they are.
        table: parquet to write: one row a picture with its group, what it is near to and how near.
        stores: root of the stores.
        scorer: for the exact cosines; without one only hashes over time are compared.
        hamming: bits of 64 that neighbours in time may differ in.
        cosine: cosine above which two pictures are the same.
        splits: in the order in which they keep their pictures; default every split, ``train``
            last, so that a held-out picture stays and its double in training goes.
        drop: corpus to write of the pictures kept, with their pairs.
        name: of that corpus; default ``<name>-deduplicated``.
        batch_size: pictures a pass.
        force: replace what is at ``drop``.
        progress: show bars.
    """
    if drop is not None:
        check_target(drop, force)
    chosen = splits or tuple(sorted(corpus.splits, key=lambda split: split == "train"))
    frames = [frames_of(corpus, split) for split in chosen]
    hashes = [hash_corpus(corpus, split, stores, progress=progress) for split in chosen]
    vectors = None
    if scorer is not None:
        vectors = _vectors(corpus, chosen, scorer, stores, batch_size, progress)
    key = [corpus.digest, chosen, hamming, cosine, scorer.hash if scorer is not None else None]
    state = stores / corpus.digest[:12] / f"duplicates-{hash_facts({'key': key})[:12]}.npz"
    found = find_duplicates(
        frames, hashes, vectors, hamming_limit=hamming, cosine_limit=cosine, state=state,
        progress=progress,
    )  # fmt: skip
    table.parent.mkdir(parents=True, exist_ok=True)
    partial = table.with_name(f".{table.name}.partial")
    write_duplicates(partial, frames, found)
    partial.replace(table)
    ends = np.cumsum([0, *(len(part) for part in frames)])
    parts = {split: slice(ends[at], ends[at + 1]) for at, split in enumerate(chosen)}
    result = Deduplicated(
        {split: len(part) for split, part in zip(chosen, frames, strict=True)},
        {split: int((found.bits[part] >= 0).sum()) for split, part in parts.items()},
        {split: int((~np.isnan(found.cosine[part])).sum()) for split, part in parts.items()},
        found,
    )
    if drop is None:
        return result
    made_by: dict[str, Any] = {
        "command": "python -m dataprep duplicates --drop",
        "from": parent(corpus),
        "duplicates": {
            "hash": SCHEME, "hamming": hamming, "cosine": cosine if scorer is not None else None,
            "scorer": _named(scorer), "order": list(chosen), "pictures": result.pictures,
            "dropped_by_hash": result.by_hash, "dropped_by_cosine": result.by_cosine,
        },
        "code_version": code_version(),
        "packages": package_versions(("numpy", "torch", "pillow")),
    }  # fmt: skip
    with derived_writer(
        corpus, drop, name or f"{corpus.name}-deduplicated", made_by, overwrite=force
    ) as writer:
        new: dict[int, int] = {}
        for split in corpus.splits:
            if split in parts:
                keep = found.kept[parts[split]][corpus.pairs(split).row]
                new |= copy_split(corpus, split, writer, keep=keep, progress=progress)
        copy_origins(corpus, writer, new)
        shutil.copyfile(table, writer.add_file("duplicates/groups.parquet"))
    return result


def split_corpus(
    corpus: Corpus,
    out: Path,
    how: str,
    *,
    stores: Path,
    shares: Mapping[str, float],
    seed: int,
    scorer: Scorer | None = None,
    together: NDArray[np.int64] | None = None,
    hamming: int,
    cosine: float,
    name: str | None = None,
    batch_size: int = 64,
    force: bool = False,
    progress: bool = True,
) -> tuple[dict[str, list[Leak]], dict[str, int]]:
    """Divide a corpus anew, ``random`` (as CVCL did) or by ``group``, and measure the leak of both.

    The pictures of all its splits are pooled first.

    Returns:
        Leaks by way of splitting, and pictures by split of the corpus written.
    """
    check_target(out, force)
    if how not in WAYS:
        raise ValueError(f"--how {how}: accepted: {', '.join(WAYS)}")
    frames, starts = pooled(corpus)
    if not len(frames):
        raise ValueError(f"{corpus.path}: no pictures to split")
    split_of = {
        "random": by_utterance(corpus, shares, seed),
        "group": by_group(corpus, shares, seed, () if together is None else (together,)),
    }
    hashes = np.concatenate(
        [hash_corpus(corpus, split, stores, progress=progress) for split in corpus.splits]
    )
    vectors = None
    if scorer is not None:
        parts = _vectors(corpus, corpus.splits, scorer, stores, batch_size, progress)
        vectors = np.concatenate(parts)
    leaks = {
        way: measure_leaks(
            of, frames.group, hashes, vectors, hamming=hamming, cosine=cosine, progress=progress
        )
        for way, of in split_of.items()
    }
    mine = split_of[how]
    counts = {split: int((mine == split).sum()) for split in shares}
    made_by: dict[str, Any] = {
        "command": f"python -m dataprep split --how {how}",
        "from": parent(corpus),
        "split": {
            "how": how, "shares": dict(shares), "seed": seed, "pictures": counts,
            "near_duplicates_together": together is not None, "scorer": _named(scorer),
            "leak": {way: [row.facts() for row in rows] for way, rows in leaks.items()},
        },
        "code_version": code_version(),
        "packages": package_versions(("numpy", "torch", "pillow")),
    }  # fmt: skip
    with derived_writer(
        corpus, out, name or f"{corpus.name}-{how}", made_by, overwrite=force
    ) as writer:
        new: dict[int, int] = {}
        for at, split in enumerate(corpus.splits):
            target = mine[starts[at] : starts[at + 1]]
            new |= copy_split(corpus, split, writer, target=target, progress=progress)
        copy_origins(corpus, writer, new)
    return leaks, counts


def _vectors(
    corpus: Corpus, splits: tuple[str, ...], scorer: Scorer, stores: Path, batch_size: int,
    progress: bool,
) -> list[NDArray[Any]]:  # fmt: skip
    return [
        embed_corpus(
            corpus, split, scorer, store_folder(stores, corpus, split, "images", scorer.hash),
            batch_size=batch_size, progress=progress,
        ).vectors
        for split in splits
    ]  # fmt: skip


def _named(scorer: Scorer | None) -> dict[str, Any] | None:
    return None if scorer is None else {"name": scorer.name, "hash": scorer.hash, **scorer.facts}

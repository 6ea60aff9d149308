"""Keeping the pairs whose picture and words are alike: by raw cosine, or by quantile."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataprep.provenance.version import code_version, package_versions
from dataprep.similarity.copying import (
    check_target,
    copy_origins,
    copy_split,
    derived_writer,
    parent,
)
from dataprep.similarity.embed import embed_corpus, pair_similarity, store_folder
from dataprep.similarity.figures import histogram
from dataprep.similarity.scorers import Scorer
from engine import Corpus

__all__ = ["PUBLISHED_THRESHOLD", "Filtered", "filter_corpus"]

PUBLISHED_THRESHOLD = 0.2
"""Raw CLIP cosine above which BabyVLM keeps a pair (arXiv 2504.09426). It is on the scale of
OpenAI's CLIP: other scorers want a quantile."""


@dataclass(frozen=True)
class Filtered:
    """What a filter did."""

    threshold: float
    """Pairs strictly above it were kept."""
    before: dict[str, int]
    """Pairs by split."""
    after: dict[str, int]
    similarity: dict[str, NDArray[np.float32]]
    """``[pairs]`` by split, of all pairs."""


def filter_corpus(
    corpus: Corpus,
    scorer: Scorer,
    out: Path,
    *,
    stores: Path,
    threshold: float | None = None,
    quantile: float | None = None,
    splits: tuple[str, ...] = (),
    name: str | None = None,
    batch_size: int = 64,
    force: bool = False,
    progress: bool = True,
) -> Filtered:
    """Write the corpus of the pairs whose cosine is above a threshold.

    The manifest has the threshold, the scorer with the hash of its weights, and counts by split
    and source; ``filter/similarity.parquet`` the cosine of every pair, kept or not (ids of
    ``corpus``); ``filter/similarity.png`` the distributions.

    Args:
        corpus: what is filtered.
        scorer: what measures.
        out: corpus to make.
        stores: root of the vectors' stores (`stores_of`).
        threshold: cosine, 0.2 as published unless ``quantile`` is given.
        quantile: the threshold is this quantile, 0 to 1, of the cosines of all chosen pairs:
            0.7 keeps the best 30 %.
        splits: which splits to filter, and so to write; default all.
        name: of the new corpus; default ``<name>-filtered``.
        batch_size: pictures a pass.
        force: replace a corpus at ``out``.
        progress: show bars.

    Raises:
        ValueError: both thresholds, one out of range, no such split, ``out`` exists, or nothing
            would be left.
    """
    check_target(out, force)
    if threshold is not None and quantile is not None:
        raise ValueError("filter: give --threshold or --quantile, not both")
    if quantile is not None and not 0 <= quantile <= 1:
        raise ValueError(f"--quantile {quantile}: accepted are 0 to 1")
    if threshold is not None and not -1 <= threshold <= 1:
        raise ValueError(f"--threshold {threshold}: accepted are -1 to 1")
    chosen = splits or corpus.splits
    found: dict[str, NDArray[np.float32]] = {}
    for split in chosen:
        pairs = corpus.pairs(split)
        images, texts = (
            embed_corpus(
                corpus, split, scorer, store_folder(stores, corpus, split, what, scorer.hash),
                what, batch_size=batch_size, progress=progress,
            )
            for what in ("images", "texts")
        )  # fmt: skip
        found[split] = pair_similarity(images, texts, pairs.row)
    every = np.concatenate([*found.values(), np.empty(0, np.float32)])
    if not len(every):
        raise ValueError(f"{corpus.path}: no pairs in {', '.join(chosen)}; nothing to filter")
    cut = float(np.quantile(every, quantile)) if quantile is not None else threshold
    cut = PUBLISHED_THRESHOLD if cut is None else cut
    kept = {split: values > cut for split, values in found.items()}
    if not any(mask.any() for mask in kept.values()):
        raise ValueError(
            f"filter: none of {len(every)} pairs is above {cut:.4f} (they are {every.min():.4f} to "
            f"{every.max():.4f} by {scorer.name}); lower --threshold or use --quantile"
        )
    before = {split: len(values) for split, values in found.items()}
    after = {split: int(mask.sum()) for split, mask in kept.items()}
    made_by: dict[str, Any] = {
        "command": "python -m dataprep filter",
        "from": parent(corpus),
        "filter": {
            "measure": "raw cosine of picture and utterance, strictly above the threshold",
            "threshold": cut,
            "quantile": quantile,
            "scorer": {"name": scorer.name, "hash": scorer.hash, **scorer.facts},
            "pairs_before": before,
            "pairs_after": after,
            "by_source": _by_source(corpus, kept),
        },
        "code_version": code_version(),
        "packages": package_versions(("numpy", "torch")),
    }
    with derived_writer(
        corpus, out, name or f"{corpus.name}-filtered", made_by, overwrite=force
    ) as writer:
        new: dict[int, int] = {}
        for split in chosen:
            new |= copy_split(
                corpus, split, writer, keep=kept[split], similarity=found[split], progress=progress
            )
        copy_origins(corpus, writer, new)
        _write_table(writer.add_file("filter/similarity.parquet"), corpus, found, kept)
        histogram(
            writer.add_file("filter/similarity.png"),
            found,
            title=f"{corpus.name}: picture and utterance",
            subtitle=f"{scorer.name}; {sum(after.values()):,} of {len(every):,} pairs kept",
            threshold=cut,
            threshold_label=f"kept above {cut:.3f}"
            + (f" (quantile {quantile:g})" if quantile is not None else ""),
        )
    return Filtered(cut, before, after, found)


def _by_source(corpus: Corpus, kept: dict[str, NDArray[np.bool_]]) -> dict[str, dict[str, int]]:
    before, after = Counter[str](), Counter[str]()
    for split, mask in kept.items():
        sources = corpus.pairs(split).source
        before.update(sources.tolist())
        after.update(sources[mask].tolist())
    return {name: {"before": before[name], "after": after[name]} for name in sorted(before)}


def _write_table(
    file: Path, corpus: Corpus, found: dict[str, NDArray[np.float32]],
    kept: dict[str, NDArray[np.bool_]],
) -> None:  # fmt: skip
    columns = {
        "split": np.concatenate([np.full(len(v), s, object) for s, v in found.items()]),
        "id": np.concatenate([corpus.pairs(split).id for split in found]),
        "similarity": np.concatenate(list(found.values())),
        "kept": np.concatenate(list(kept.values())),
    }
    pq.write_table(pa.table(columns), file)

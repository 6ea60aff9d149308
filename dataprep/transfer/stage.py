"""The transfer: frames' vectors and the pool's, matched, and written as a corpus.

Killed at any moment it goes on: vectors where their store was, the matching at its last round,
and what was matched is not matched again. Only the writing begins anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.matching import Matching, verify
from dataprep.matching.baselines import random_pairs
from dataprep.provenance.version import code_version, package_versions
from dataprep.similarity.copying import check_target, derived_writer, parent
from dataprep.similarity.embed import What, embed_corpus, store_folder
from dataprep.similarity.figures import histogram
from dataprep.similarity.scorers import Scorer
from dataprep.transfer.methods import Method, clear, problem_hash, quota_of, solved
from dataprep.transfer.sheet import contact_sheet
from dataprep.transfer.write import taken_pairs, write_pairs
from engine import Corpus

__all__ = ["BY", "Options", "Transferred", "transfer"]

BY: dict[str, tuple[What, What]] = {
    "images": ("images", "images"),
    "texts": ("texts", "texts"),
    "image-text": ("images", "texts"),
}
"""What of a frame is compared with what of a general picture. Published: images."""


@dataclass(frozen=True)
class Options:
    """What is matched and how."""

    method: Method = field(default_factory=Method)
    frames_split: str = "train"
    pool_split: str = "train"
    by: str = "images"
    """A key of `BY`."""
    most: int | None = None
    """Keep only so many of the most similar pairs."""
    verify: bool = False
    """Check the matching with NumPy over all pairs."""
    name: str = "transferred"
    batch_size: int = 64
    memory_bytes: int | None = None
    threads: int | None = None
    device: str = "auto"


@dataclass(frozen=True, eq=False)
class Transferred:
    """What was done."""

    frames: int
    pool: int
    written: int
    """Pictures in the corpus made."""
    matching: Matching
    certificate: dict[str, Any]
    random_mean: float
    """Mean similarity of a random matching, the control."""


def transfer(
    frames: Corpus,
    pool: Corpus,
    scorer: Scorer,
    out: Path,
    *,
    options: Options | None = None,
    stores: tuple[Path, Path],
    work: Path,
    sheet: Path | None = None,
    force: bool = False,
    progress: bool = True,
) -> Transferred:
    """Write the transferred corpus: for each frame a different general picture with its words.

    Each picture's ``provenance`` is JSON: what the pool knew of the words, and under ``match`` the
    frame (id, view, digest of its corpus), similarity and rank among all pairs. The manifest has
    the certificate; ``match/similarity.png`` the distribution. No frame is copied into the corpus:
    the sheet that shows both sides lies where ``sheet`` says.

    Args:
        frames: the child's corpus.
        pool: the general corpus, its words rewritten.
        scorer: what measures.
        out: corpus to make.
        options: what is matched, and how.
        stores: roots of the stores of frames and pool.
        work: folder of the matching's state; removed when the corpus is whole.
        sheet: PNG of matched pairs side by side; None draws none.
        force: replace a corpus at ``out``.
        progress: show bars.

    Raises:
        ValueError: naming the option or corpus that is wrong.
    """
    options = options or Options()
    check_target(out, force)
    options.method.check()
    if options.by not in BY:
        raise ValueError(f"--by {options.by}: accepted: {', '.join(BY)}")
    if options.most is not None and options.most < 1:
        raise ValueError(f"--most {options.most}: accepted are 1 and above")
    sides = [
        _side(corpus, split, what, scorer, root, options.batch_size, progress)
        for corpus, split, what, root in zip(
            (frames, pool), (options.frames_split, options.pool_split), BY[options.by], stores,
            strict=True,
        )
    ]  # fmt: skip
    (rows, row_at), (columns, column_at) = sides
    source = pool.image_table["source"][pool.image_rows(options.pool_split)][column_at]
    quota = quota_of(options.method.quota, source)
    key = problem_hash(
        frames.digest, pool.digest, options.frames_split, options.pool_split, options.by,
        scorer.hash, options.method.facts(),
    )  # fmt: skip
    device = options.device
    if device == "auto":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = solved(
        rows, columns, options.method, quota, key=key, work=work,
        memory_bytes=options.memory_bytes, threads=options.threads, device=device,
        progress=progress,
    )  # fmt: skip
    checked = None
    if options.verify:
        per_row = options.method.per_row
        checked = verify(np.repeat(rows, per_row, axis=0) if per_row > 1 else rows, columns, found)
    control = random_pairs(rows, columns, seed=options.method.seed).similarity
    taken = taken_pairs(found, options.method.per_row, row_at, column_at, options.most)
    if not len(taken):
        raise ValueError("match: no frame got a picture; lower --reject-below")
    certificate = _certificate(found, checked, options, len(rows), len(columns))
    made_by = _made_by(frames, pool, scorer, options, certificate, len(taken))
    with derived_writer(pool, out, options.name, made_by, overwrite=force) as writer:
        write_pairs(writer, frames, pool, options.frames_split, options.pool_split, taken,
                    found.method, progress=progress)  # fmt: skip
        histogram(
            writer.add_file("match/similarity.png"),
            {f"{found.method}": taken.similarity, "random pairs": control},
            title=f"{frames.name} and {pool.name}: similarity of matched pairs",
            subtitle=f"{scorer.name}, by {options.by}; {len(taken):,} of {len(rows):,} frames x "
            f"{len(columns):,} pictures",
            threshold=options.method.reject_below,
            threshold_label="rejected below",
        )
    if sheet is not None:
        contact_sheet(sheet, frames, pool, options.frames_split, options.pool_split, taken,
                      scorer.name)  # fmt: skip
    clear(work)
    mean = float(np.nanmean(control)) if len(control) else float("nan")
    return Transferred(len(rows), len(columns), len(taken), found, certificate, mean)


def _side(
    corpus: Corpus, split: str, what: What, scorer: Scorer, root: Path, batch_size: int,
    progress: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:  # fmt: skip
    """Return vectors ``[n, d]`` of a split's pictures, and the row of each in its ``.beton``.

    Only pictures that have words take part; by texts, the first pair stands for its picture.
    """
    pairs = corpus.pairs(split)
    at, first = np.unique(pairs.row, return_index=True)
    if not len(at):
        raise ValueError(f"{corpus.path}: split {split} has no pairs; nothing to match")
    folder = store_folder(root, corpus, split, what, scorer.hash)
    vectors = embed_corpus(
        corpus, split, scorer, folder, what, batch_size=batch_size, progress=progress
    ).vectors
    if what == "texts":
        return vectors[first], at
    return (vectors if len(at) == len(vectors) else vectors[at]), at


def _certificate(
    found: Matching, checked: float | None, options: Options, frames: int, pool: int
) -> dict[str, Any]:
    proves = not np.isnan(found.bound)
    got = int((found.columns >= 0).sum())
    return {
        **options.method.facts(),
        "solver": found.method,
        "frames": frames,
        "pictures": pool,
        "matched": got,
        "total": found.total,
        "mean_similarity": float(np.nanmean(found.similarity)) if got else None,
        "bound": found.bound if proves else None,
        "gap": found.gap if proves else None,
        "rounds": found.rounds,
        "bids": found.bids,
        "verified_bound": checked if checked is not None and not np.isnan(checked) else None,
        "verified": options.verify,
    }


def _made_by(
    frames: Corpus, pool: Corpus, scorer: Scorer, options: Options, certificate: dict[str, Any],
    written: int,
) -> dict[str, Any]:  # fmt: skip
    return {
        "command": "python -m dataprep match",
        "frames": parent(frames) | {"split": options.frames_split},
        "from": parent(pool) | {"split": options.pool_split},
        "match": {
            "by": options.by,
            "scorer": {"name": scorer.name, "hash": scorer.hash, **scorer.facts},
            "certificate": certificate,
            "most": options.most,
            "written": written,
        },
        "code_version": code_version(),
        "packages": package_versions(("numpy", "scipy", "torch")),
    }

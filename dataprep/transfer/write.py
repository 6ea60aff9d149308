"""Writing matched pictures: bytes of the pool, words of the pool, and whose frame they answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from dataprep.matching import Matching
from dataprep.similarity.copying import copy_origins, image_facts, pair_facts, stored_picture
from engine import Corpus, CorpusWriter

__all__ = ["SPLIT", "Taken", "provenance", "taken_pairs", "write_pairs"]

SPLIT = "train"
"""The transferred pictures are for training."""


@dataclass(frozen=True, eq=False)
class Taken:
    """Matched pairs in the order of the frames, k of them."""

    frame: NDArray[np.int64]
    """``[k]``: row in the frames' ``.beton``."""
    picture: NDArray[np.int64]
    """``[k]``: row in the pool's ``.beton``."""
    similarity: NDArray[np.float32]
    rank: NDArray[np.int64]
    """``[k]``: 1 for the most similar pair of all."""

    def __len__(self) -> int:
        return len(self.frame)


def taken_pairs(
    found: Matching, per_row: int, frame_at: NDArray[np.int64], picture_at: NDArray[np.int64],
    most: int | None = None,
) -> Taken:  # fmt: skip
    """Read a matching as pairs, ranked; of equals the earlier frame comes first.

    Args:
        found: of ``n`` frames with ``per_row`` pictures each.
        per_row: that number.
        frame_at: ``[n]``, row of each frame in its ``.beton``.
        picture_at: ``[m]``, row of each general picture.
        most: keep only the pairs of a rank up to this.
    """
    matched = np.flatnonzero(found.columns >= 0)
    similarity = found.similarity[matched]
    rank = np.empty(len(matched), np.int64)
    rank[np.argsort(-similarity, kind="stable")] = np.arange(1, len(matched) + 1)
    kept = np.ones(len(matched), bool) if most is None else rank <= most
    matched, similarity, rank = matched[kept], similarity[kept], rank[kept]
    return Taken(
        frame_at[matched // per_row], picture_at[found.columns[matched]], similarity, rank
    )  # fmt: skip


def provenance(known: str, match: Mapping[str, Any]) -> str:
    """What was known of the words, with ``match`` beside it, as JSON of one line.

    An object keeps its keys; other text moves under ``words``.
    """
    content: dict[str, Any] = {}
    if known:
        try:
            read = json.loads(known)
        except ValueError:
            read = known
        content = read if isinstance(read, dict) else {"words": known}
    return json.dumps({**content, "match": dict(match)}, ensure_ascii=False, sort_keys=True)


def write_pairs(
    writer: CorpusWriter, frames: Corpus, pool: Corpus, frames_split: str, pool_split: str,
    taken: Taken, method: str, *, progress: bool = True,
) -> None:  # fmt: skip
    """Write each pair's general picture with all its pairs, in the order of the frames.

    Their column ``similarity`` stays what it was, of picture and words; that of frame and picture
    stands in ``provenance``.
    """
    pairs = pool.pairs(pool_split)
    by_row = np.argsort(pairs.row, kind="stable")
    rows = pairs.row[by_row]
    table, entries = pool.image_table, pool.image_rows(pool_split)
    frame_table, frame_entries = frames.image_table, frames.image_rows(frames_split)
    new: dict[int, int] = {}
    for at in tqdm(range(len(taken)), unit="picture", desc="writing", disable=not progress):
        row, frame = int(taken.picture[at]), frame_entries[taken.frame[at]]
        entry = entries[row]
        image = writer.add_image(
            SPLIT,
            stored_picture(pool, pool_split, row),
            **image_facts(pool, int(entry)),
        )
        match = {
            "frame": int(frame_table["image"][frame]),
            "frame_view": str(frame_table["view"][frame]),
            "frames": frames.digest,
            "pool": pool.digest,
            "picture": int(table["image"][entry]),
            "similarity": round(float(taken.similarity[at]), 6),
            "rank": int(taken.rank[at]),
            "method": method,
        }
        new[int(table["image"][entry])] = image
        first, last = np.searchsorted(rows, (row, row + 1))
        for pair in by_row[first:last]:
            facts = pair_facts(pairs, int(pair))
            facts["provenance"] = provenance(facts["provenance"], match)
            writer.add_pair(image, pairs.utterance[pair], **facts)
    copy_origins(pool, writer, new)

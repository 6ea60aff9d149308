"""64-bit difference hashes: whether each of 8 x 8 patches is brighter than the one left of it.

What changes light, size and compression hardly changes them, so pictures whose hashes differ in
few bits are near-duplicates (N. Krawetz, "Kind of like that", 2013). Brighter means by more than
two grey levels: else noise on a plain wall would throw the dice for its bits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from dataprep.similarity.embed import read_ahead, store_folder
from dataprep.similarity.store import fill_store
from engine import Corpus

__all__ = ["dhash", "hamming", "hash_corpus", "nearest"]

Hashes = NDArray[np.uint64]

SCHEME = "dhash64-box-margin2"
"""Names how the bits are made; a store of another scheme is not reused."""
MARGIN = 2
BATCH = 256


def dhash(pixels: NDArray[np.uint8]) -> np.uint64:
    """Hash of a picture, uint8 ``[H, W, 3]``; areas are averaged down to 9 x 8 grey values."""
    small = Image.fromarray(pixels).convert("L").resize((9, 8), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] - grey[:, :-1] > MARGIN).view(">u8")[0].astype(np.uint64)


def hamming(a: Hashes, b: Hashes) -> NDArray[np.uint8]:
    """Number of bits in which hashes differ, with NumPy's broadcasting."""
    return np.bitwise_count(np.bitwise_xor(a, b))


def hash_corpus(corpus: Corpus, split: str, stores: Path, *, progress: bool = True) -> Hashes:
    """Hashes of a split's pictures, ``[pictures]``, kept in a store and resumed like vectors."""
    beton = corpus.images(split)
    key = {"corpus": corpus.digest, "split": split, "what": "images", "scorer": SCHEME}
    with read_ahead(lambda row: dhash(beton.pixels(row)), len(beton), BATCH) as hashes:
        store = fill_store(
            store_folder(stores, corpus, split, "images", SCHEME),
            lambda first, last: np.array(hashes(first, last), np.uint64)[:, None],
            key=key,
            about={"corpus_name": corpus.name},
            rows=len(beton),
            dim=1,
            dtype=np.uint64,
            batch_size=BATCH,
            unit="picture",
            label=f"{corpus.name} {split} hashes",
            progress=progress,
        )
    return np.array(store.vectors[:, 0])


def nearest(
    queries: Hashes, others: Hashes, rows: int = 256, columns: int = 65_536, *, label: str = ""
) -> NDArray[np.uint8]:
    """Distance of each query, ``[n]``, to the nearest of ``others``; 255 where there are none.

    ``label`` names a progress bar; without one none is shown.
    """
    best = np.full(len(queries), 255, np.uint8)
    for first in tqdm(
        range(0, len(queries), rows), desc=label, unit="block", leave=False, disable=not label
    ):
        some = queries[first : first + rows, None]
        for start in range(0, len(others), columns):
            part = hamming(some, others[None, start : start + columns]).min(axis=1)
            np.minimum(best[first : first + rows], part, out=best[first : first + rows])
    return best

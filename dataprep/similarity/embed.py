"""Vectors of a corpus's pictures and utterances, by any scorer, in stores beside the corpus."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dataprep.similarity.scorers import Scorer, checked_vectors
from dataprep.similarity.store import EmbeddingStore, fill_store
from engine import Corpus

__all__ = ["What", "embed_corpus", "pair_similarity", "read_ahead", "store_folder", "stores_of"]

What = Literal["images", "texts"]
AHEAD = 3
"""Batches of pictures decoded before they are asked for."""


def stores_of(corpus: Corpus) -> Path:
    """Where a corpus's stores lie unless the user says otherwise: ``<corpus>.embeddings``."""
    path = corpus.path.resolve()
    return path.with_name(f"{path.name}.embeddings")


def store_folder(root: Path, corpus: Corpus, split: str, what: str, scorer_hash: str) -> Path:
    """Return a folder whose name says corpus contents, split, what, and scorer."""
    return root / corpus.digest[:12] / f"{split}-{what}-{scorer_hash[:12]}"


def embed_corpus(
    corpus: Corpus,
    split: str,
    scorer: Scorer,
    folder: Path,
    what: What = "images",
    *,
    batch_size: int = 64,
    workers: int | None = None,
    progress: bool = True,
) -> EmbeddingStore:
    """Embed the pictures or the utterances of a split; go on where a killed call stopped.

    Args:
        corpus: where they are.
        split: which of them.
        scorer: what embeds.
        folder: of this store alone (`store_folder` makes a name).
        what: ``images``: row ``i`` is picture ``i`` of the split's ``.beton`` (``Pairs.row``);
            ``texts``: row ``i`` is pair ``i`` of ``corpus.pairs(split)``.
        batch_size: pictures or pairs a pass.
        workers: threads that decode; default up to 4.
        progress: show a bar with rate and remaining time.

    Raises:
        ValueError: an unreadable picture (file, row, id), a folder that holds another store, or a
            vector that is not of unit length.
    """
    if what not in ("images", "texts"):
        raise ValueError(f"what {what!r}: accepted: images, texts")
    key = {"corpus": corpus.digest, "split": split, "what": what, "scorer": scorer.hash}
    about = {"corpus_name": corpus.name, "scorer": {"name": scorer.name, **scorer.facts}}
    count = len(corpus.images(split)) if what == "images" else len(corpus.pairs(split))
    shared: dict[str, Any] = {
        "key": key, "about": about, "rows": count, "dim": scorer.dim, "batch_size": batch_size,
        "label": f"{corpus.name} {split} {what}", "progress": progress,
    }  # fmt: skip
    if what == "texts":
        utterances = corpus.pairs(split).utterance

        def embed_texts(first: int, last: int) -> NDArray[np.float32]:
            # Each different utterance of the batch once: "yeah" is said often.
            different, back = np.unique(
                np.array(utterances[first:last], object), return_inverse=True
            )
            found = scorer.embed_texts([str(text) for text in different])
            return checked_vectors(scorer, found, len(different))[back]

        return fill_store(folder, embed_texts, unit="pair", **shared)
    beton = corpus.images(split)
    with read_ahead(beton.pixels, count, batch_size, workers) as pictures:

        def embed_images(first: int, last: int) -> NDArray[np.float32]:
            batch = pictures(first, last)
            return checked_vectors(scorer, scorer.embed_images(batch), len(batch))

        return fill_store(folder, embed_images, unit="picture", **shared)


@contextmanager
def read_ahead(
    read: Callable[[int], Any], count: int, batch_size: int, workers: int | None = None
) -> Iterator[Callable[[int, int], list[Any]]]:
    """Give a function of ``first`` and ``last`` that returns ``[read(first), ...]``.

    Threads read the batches after the one asked for.
    """
    waiting: dict[int, list[Future[Any]]] = {}
    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:

        def take(first: int, last: int) -> list[Any]:
            for start in range(first, min(first + AHEAD * batch_size, count), batch_size):
                if start not in waiting:
                    end = min(start + batch_size, count)
                    waiting[start] = [pool.submit(read, row) for row in range(start, end)]
            return [job.result() for job in waiting.pop(first)][: last - first]

        try:
            yield take
        finally:
            for jobs in waiting.values():
                for job in jobs:
                    job.cancel()


def pair_similarity(
    images: EmbeddingStore, texts: EmbeddingStore, row: NDArray[np.int64], chunk: int = 65_536
) -> NDArray[np.float32]:
    """Return the raw cosine of each pair, ``[n]``: picture ``row[i]`` with text ``i``.

    Raises:
        ValueError: the stores are of different corpora, splits or scorers.
    """
    for part in ("corpus", "split", "scorer"):
        if images.key[part] != texts.key[part]:
            raise ValueError(f"{texts.folder}: {part} is not that of {images.folder}")
    out = np.empty(len(row), np.float32)
    for first in range(0, len(row), chunk):
        part = slice(first, first + chunk)
        a = np.asarray(images.vectors[row[part]], np.float64)
        out[part] = np.einsum("nd,nd->n", a, np.asarray(texts.vectors[part], np.float64))
    return out

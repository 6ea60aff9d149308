"""Similarity: scorers, stores of vectors, the filter, near-duplicates, splits and their leaks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataprep.similarity.embed import embed_corpus, pair_similarity, store_folder, stores_of
    from dataprep.similarity.scorers import Scorer, open_scorer
    from dataprep.similarity.store import EmbeddingStore

__all__ = [
    "EmbeddingStore",
    "Scorer",
    "embed_corpus",
    "open_scorer",
    "pair_similarity",
    "store_folder",
    "stores_of",
]

# Imported on first use: corpora and arrays are not for ``python -m dataprep --help``.
_HOME = {
    "EmbeddingStore": "store", "Scorer": "scorers", "open_scorer": "scorers",
    "embed_corpus": "embed", "pair_similarity": "embed", "store_folder": "embed",
    "stores_of": "embed",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)

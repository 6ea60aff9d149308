"""Similarity: scorers, stores of vectors, the filter, near-duplicates, splits and their leaks."""

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

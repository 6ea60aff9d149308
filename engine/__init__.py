"""The training engine. Other packages use what ``__all__`` lists, and nothing else."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.checkpoints import CheckpointInfo, list_checkpoints
    from engine.corpus import CorpusWriter, Source
    from engine.corpus_read import Corpus, Pairs, read_corpus
    from engine.loading import load

__all__ = [
    "CheckpointInfo", "Corpus", "CorpusWriter", "Pairs", "Source", "list_checkpoints", "load",
    "read_corpus",
]

# Imported on first use: writing a corpus must not wait for the models, nor the other way round.
_HOME = {
    "CheckpointInfo": "checkpoints", "list_checkpoints": "checkpoints", "CorpusWriter": "corpus",
    "Source": "corpus", "Corpus": "corpus_read", "Pairs": "corpus_read",
    "read_corpus": "corpus_read", "load": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(importlib.import_module(f"engine.{_HOME[name]}"), name)

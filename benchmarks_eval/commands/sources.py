"""Arguments of what trials can be grouped by: words, frequencies, ages of acquisition."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks_eval.breakdowns.report import Sources


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--vocabulary``, ``--corpus`` and ``--norms``."""
    parser.add_argument("--vocabulary", metavar="FILE",
                        help="vocab.json (word to id), a word a line, or a model's tokenizer.json: "
                             "figures by known and unknown words")
    parser.add_argument("--corpus", metavar="DIR",
                        help="corpus folder, or a CSV of word,count: figures by word frequency "
                             "(default: the corpus that the task file names)")
    parser.add_argument("--norms", metavar="CSV",
                        help="ages of acquisition: wordbankr's fit_aoa, Wordbank's item data, or "
                             "columns word and aoa (months): figures by age")


def own_counts(results: Mapping[str, Any]) -> Mapping[str, int] | None:
    """Word counts of the corpus that a run's task file names, where that is there.

    Args:
        results: the tree of a ``results.json``.
    """
    from benchmarks_eval.breakdowns import read_counts

    corpus = (results.get("suite") or {}).get("corpus")
    return read_counts(corpus) if corpus and Path(corpus).is_dir() else None


def read_sources(args: argparse.Namespace, results: Mapping[str, Any]) -> Sources:
    """Reads what the arguments name, and beside it what the run names itself.

    Args:
        args: of `add_source_options`.
        results: the tree of the run's ``results.json``.

    Raises:
        ValueError: a file is not there or malformed.
    """
    from benchmarks_eval.breakdowns import read_counts, read_norms, read_words
    from benchmarks_eval.breakdowns.report import Sources
    from benchmarks_eval.vocabulary import Vocabulary

    words = None
    if args.vocabulary:
        path = Path(args.vocabulary)
        whole = path.is_dir() or path.name == "tokenizer.json"
        words = Vocabulary.read(args.vocabulary) if whole else read_words(args.vocabulary)
    return Sources(vocabulary=words,
                   counts=read_counts(args.corpus) if args.corpus else own_counts(results),
                   norms=read_norms(args.norms) if args.norms else None)

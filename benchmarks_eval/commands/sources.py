"""Arguments of what trials can be grouped by: words, frequencies, ages of acquisition."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks_eval.breakdowns.report import Sources


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Adds ``--vocabulary``, ``--corpus`` and ``--norms``."""
    parser.add_argument("--vocabulary", metavar="FILE",
                        help="vocab.json (word to id), a word a line, or a model's tokenizer.json: "
                             "figures by known and unknown words")
    parser.add_argument("--corpus", metavar="DIR",
                        help="corpus folder, or a CSV of word,count: figures by word frequency")
    parser.add_argument("--norms", metavar="CSV",
                        help="ages of acquisition: wordbankr's fit_aoa, Wordbank's item data, or "
                             "columns word and aoa (months): figures by age")


def read_sources(args: argparse.Namespace, corpus: str | None = None) -> Sources:
    """Reads what the arguments name.

    Args:
        args: of `add_source_options`.
        corpus: taken where none is named.

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
    counted = args.corpus or corpus
    return Sources(vocabulary=words, counts=read_counts(counted) if counted else None,
                   norms=read_norms(args.norms) if args.norms else None)

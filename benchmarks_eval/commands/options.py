"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from typing import get_args

from benchmarks_eval.meteor import Version
from benchmarks_eval.options import ScoreOptions, Ties
from benchmarks_eval.tasks import Normalise


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def positive_or_auto(text: str) -> int | None:
    """A whole number of at least 1, or None for ``auto``."""
    return None if text == "auto" else positive(text)


def weight(text: str) -> float:
    """A finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of at least 0")
    return value


def add_score_options(parser: argparse.ArgumentParser) -> None:
    """How figures are made of records; nothing here asks a model anything."""
    parser.add_argument("--normalise", choices=get_args(Normalise),
                        help="log-likelihood per token, summed, per character, or less the text's "
                             "own without a picture (default: the task file's)")
    parser.add_argument("--alpha", type=weight, metavar="A",
                        help="pmi: weight of the text's own log-likelihood (default: the task "
                             "file's, 1)")
    parser.add_argument("--ties", choices=get_args(Ties), default="share",
                        help="equal scores are worth 1/k, nothing, or the right answer as in the "
                             "published scorer (default share)")
    parser.add_argument("--meteor", choices=get_args(Version), default="3.10",
                        help="captions: METEOR as which NLTK computes it (default 3.10)")
    parser.add_argument("--meteor-jar", metavar="JAR",
                        help="captions: meteor-1.5.jar, to report METEOR 1.5 as well (needs Java)")


def score_options(args: argparse.Namespace, score_eos: bool | None) -> ScoreOptions:
    """The rules that the arguments name.

    Raises:
        ValueError: --alpha without pmi.
    """
    if args.alpha is not None and args.normalise not in (None, "pmi"):
        raise ValueError(f"--alpha has no meaning for --normalise {args.normalise}")
    return ScoreOptions(args.normalise, args.alpha, args.ties, score_eos, args.meteor,
                        args.meteor_jar)

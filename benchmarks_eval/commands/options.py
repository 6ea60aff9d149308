"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from benchmarks_eval.features import FOLDER
from benchmarks_eval.meteor import Version
from benchmarks_eval.options import Ends, Options, ScoreOptions, Ties
from benchmarks_eval.tasks import Normalise, TaskFile, load_tasks

if TYPE_CHECKING:
    from benchmarks_eval.questions import Questions


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


def add_again_options(parser: argparse.ArgumentParser) -> None:
    """What becomes of records that lie in the results folder."""
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true",
                       help="go on where a killed one was; done without asking, too")
    again.add_argument("--fresh", action="store_true",
                       help="start anew: remove what the results folder has recorded")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """What is asked of models, and how the answers are judged."""
    parser.add_argument("--tasks", required=True, metavar="YAML", help="a file of configs/tasks")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="only these tasks of the file")
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="data folder, instead of the file's")
    parser.add_argument("--limit", type=positive, metavar="N",
                        help="at most N questions a task, evenly spaced")
    parser.add_argument("--seed", type=int, default=0,
                        help="orders, foils, resamples (default 0)")
    add_score_options(parser)
    parser.add_argument("--score-eos", choices=get_args(Ends), default="task",
                        help="score the end of sequence: as the task file says, no, yes, or record "
                             "both for rescore (default task)")
    parser.add_argument("--prior", action="store_true",
                        help="also score every text without a picture, for rescore --normalise pmi")
    parser.add_argument("--batch-size", type=positive_or_auto, default=None, metavar="N",
                        help="pictures at a time, or auto: by a budget of tokens (default auto)")
    parser.add_argument("--features", default=str(FOLDER), metavar="DIR",
                        help="features of pictures are kept here for other checkpoints of the same "
                             f"tower; none keeps nothing (default {FOLDER})")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")


@dataclass(frozen=True)
class Asked:
    """What `add_run_options` was given."""

    suite: TaskFile
    root: Path
    options: Options
    store: Path | None
    """Folder of the feature store; None keeps no features."""

    def questions(self) -> Questions:
        """Reads and checks the data.

        Raises:
            ValueError: as `Questions.read`.
        """
        from benchmarks_eval.questions import Questions

        return Questions.read(self.suite, self.root, self.options)

    @property
    def headline(self) -> str:
        """Seed and limit, for the line above a table."""
        limit = self.options.limit
        return f"seed {self.options.seed}" + (
            f", at most {limit} questions a task" if limit else "")


def run_options(args: argparse.Namespace) -> Asked:
    """Reads the task file.

    Raises:
        ValueError: a negative seed, a malformed task file, an unknown task.
    """
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: a seed is 0 or more")
    suite = load_tasks(args.tasks)
    if args.only:
        suite = suite.only(args.only)
    ends = {"no": False, "yes": True}.get(args.score_eos)
    options = Options(args.seed, args.limit, args.batch_size, args.prior, args.score_eos,
                      score_options(args, ends))
    return Asked(suite, args.root or Path(suite.root), options,
                 None if args.features == "none" else Path(args.features))


def score_options(args: argparse.Namespace, score_eos: bool | None) -> ScoreOptions:
    """The rules that the arguments name.

    Raises:
        ValueError: --alpha without pmi.
    """
    if args.alpha is not None and args.normalise not in (None, "pmi"):
        raise ValueError(f"--alpha has no meaning for --normalise {args.normalise}")
    return ScoreOptions(args.normalise, args.alpha, args.ties, score_eos, args.meteor,
                        args.meteor_jar)

"""``sweep RUN``: every kept checkpoint of a training run on one task file, as learning curves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from benchmarks_eval.commands.options import (
    add_score_options,
    positive,
    positive_or_auto,
    score_options,
)
from benchmarks_eval.features import FOLDER
from benchmarks_eval.options import Ends, Options
from benchmarks_eval.tasks import load_tasks

if TYPE_CHECKING:
    from engine import CheckpointInfo


def add(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "sweep", help="learning curves: every kept checkpoint of a run on a task file",
        description="Evaluates every checkpoint that a training run kept with its model "
                    "(checkpoints.keep_every) and draws each figure over steps, words and pairs "
                    "seen, with its blind floor and onset. A killed sweep goes on where it was.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory of the engine")
    parser.add_argument("--tasks", required=True, metavar="YAML", help="a file of configs/tasks")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="only these tasks of the file")
    parser.add_argument("--kind", choices=("generative", "contrastive"),
                        help="only checkpoints of this kind of model (default: all)")
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="data folder, instead of the file's")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="results folder (default: RUN/eval/sweep-<name of the task file>)")
    parser.add_argument("--fresh", action="store_true",
                        help="start anew, whatever the results folder holds")
    parser.add_argument("--limit", type=positive, metavar="N",
                        help="at most N questions a task, evenly spaced")
    parser.add_argument("--seed", type=int, default=0,
                        help="orders, foils, resamples (default 0)")
    add_score_options(parser)
    parser.add_argument("--score-eos", choices=get_args(Ends), default="task",
                        help="score the end of sequence: as the task file says, no, yes, or record "
                             "both for rescore (default task)")
    parser.add_argument("--prior", action="store_true",
                        help="also score every text without a picture")
    parser.add_argument("--batch-size", type=positive_or_auto, default=None, metavar="N",
                        help="pictures at a time, or auto: by a budget of tokens (default auto)")
    parser.add_argument("--features", default=str(FOLDER), metavar="DIR",
                        help="features of pictures are kept here: a frozen tower runs once for all "
                             f"checkpoints; none keeps nothing (default {FOLDER})")
    parser.add_argument("--all", action="store_true",
                        help="print every figure, not only the main one of each task")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")


def run(args: argparse.Namespace) -> None:
    """Evaluates, prints the curves, writes them.

    Raises:
        ValueError: no checkpoints, bad data, another sweep in the results folder.
    """
    from benchmarks_eval.curve_table import curve_table
    from benchmarks_eval.curves import FILE
    from benchmarks_eval.ranks import Ranks
    from benchmarks_eval.sweep import sweep

    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: a seed is 0 or more")
    suite = load_tasks(args.tasks)
    if args.only:
        suite = suite.only(args.only)
    ends = {"no": False, "yes": True}.get(args.score_eos)
    options = Options(args.seed, args.limit, args.batch_size, args.prior, args.score_eos,
                      score_options(args, ends))
    out = args.out or args.run / "eval" / f"sweep-{suite.name}"
    with Ranks.from_environment() as ranks:
        device = args.device

        def load(info: CheckpointInfo) -> Any:
            from benchmarks_eval import models

            (model,) = models.load_models([str(info.model)], ranks.device(device))
            return model

        swept = sweep(args.run, suite, args.root or Path(suite.root), out, options, load=load,
                      kind=args.kind, store=None if args.features == "none" else
                      Path(args.features), fresh=args.fresh, ranks=ranks)
    if swept is None:
        return
    print(f"\n{suite.name} v{suite.version}, {len(swept.checkpoints)} checkpoints of {args.run}, "
          f"seed {options.seed}"
          + (f", at most {options.limit} questions a task" if options.limit else ""))
    print(curve_table(swept, every=args.all))
    print(f"\n{out / FILE}")

"""``sweep RUN``: every kept checkpoint of a training run on one task file, as learning curves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks_eval.commands.options import add_again_options, add_run_options, run_options
from benchmarks_eval.commands.report import write_page

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
    parser.add_argument("--kind", choices=("generative", "contrastive"),
                        help="only checkpoints of this kind of model (default: all)")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="results folder (default: RUN/eval/sweep-<name of the task file>)")
    add_again_options(parser)
    add_run_options(parser)
    parser.add_argument("--all", action="store_true",
                        help="print every figure, not only the main one of each task")


def run(args: argparse.Namespace) -> None:
    """Evaluates, prints the curves, writes them.

    Raises:
        ValueError: no checkpoints, bad data, another sweep in the results folder.
    """
    from benchmarks_eval.curve_table import curve_table
    from benchmarks_eval.curves import FILE
    from benchmarks_eval.ranks import Ranks
    from benchmarks_eval.sweep import sweep

    asked = run_options(args)
    suite = asked.suite
    questions = asked.questions()
    out = args.out or args.run / "eval" / f"sweep-{suite.name}"
    with Ranks.from_environment() as ranks:
        device = args.device

        def load(info: CheckpointInfo) -> Any:
            from benchmarks_eval import models

            (model,) = models.load_models([str(info.model)], ranks.device(device))
            return model

        swept = sweep(args.run, questions, out, load=load, kind=args.kind, store=asked.store,
                      fresh=args.fresh, ranks=ranks)
    if swept is None:
        return
    print(f"\n{suite.name} v{suite.version}, {len(swept.checkpoints)} checkpoints of {args.run}, "
          f"{asked.headline}")
    print(curve_table(swept, every=args.all))
    print(f"\n{out / FILE}\n{write_page(out, questions)}")

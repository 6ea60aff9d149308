"""``run``: scores models on a task file."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from benchmarks_eval.commands.options import (
    add_score_options,
    positive,
    positive_or_auto,
    score_options,
)
from benchmarks_eval.features import FOLDER
from benchmarks_eval.options import Ends, Options
from benchmarks_eval.tasks import load_tasks

log = logging.getLogger("babyvlm")


def add(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "run", help="score models on a task file",
        description="Scores models; a killed run goes on where it was. Several GPUs: torchrun "
                    "--nproc-per-node N -m benchmarks_eval run ..., or deepspeed --module "
                    "benchmarks_eval run ...")
    parser.add_argument("--model", nargs="+", action="extend", required=True, metavar="SPEC",
                        help="model folders, contrastive or generative, or open_clip:NAME:FILE, "
                             "llava:DIR, server:MODEL@URL, blind:NAME, no-image:SPEC, noise:SPEC, "
                             "shuffled:SPEC; may be given repeatedly")
    parser.add_argument("--tasks", required=True, metavar="YAML", help="a file of configs/tasks")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="only these tasks of the file")
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="data folder, instead of the file's")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="results folder (default: <run>/eval/<name of the task file>)")
    parser.add_argument("--fresh", action="store_true",
                        help="remove what another plan has recorded in the results folder")
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
    parser.add_argument("--allow-upload", action="store_true",
                        help="a server may be sent pictures that the task file does not show")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")


def run(args: argparse.Namespace) -> None:
    """Evaluates, prints, writes, refreshes model cards."""
    from benchmarks_eval.ranks import Ranks
    from benchmarks_eval.run import evaluate, read_tasks

    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: a seed is 0 or more")
    suite = load_tasks(args.tasks)
    if args.only:
        suite = suite.only(args.only)
    root = args.root or Path(suite.root)
    ends = {"no": False, "yes": True}.get(args.score_eos)
    options = Options(args.seed, args.limit, args.batch_size, args.prior, args.score_eos,
                      score_options(args, ends))
    read_tasks(suite, root, options)  # bad data should show before models load
    from benchmarks_eval import models as loading

    out = args.out or loading.output_folder(args.model[0], suite.name)
    store = None if args.features == "none" else Path(args.features)
    with Ranks.from_environment() as ranks:
        models = loading.load_models(args.model, ranks.device(args.device))
        results = evaluate(models, suite, root, out, options, store=store, fresh=args.fresh,
                           ranks=ranks, allow_upload=args.allow_upload)
    if results is None:
        return
    from benchmarks_eval.page import write_page
    from benchmarks_eval.report import sample_lines, table, write_results

    written = [write_results(results, out), write_page(results, out)]
    print(f"\n{suite.name} v{suite.version}, seed {options.seed}"
          + (f", at most {options.limit} questions a task" if options.limit else ""))
    print(table(results))
    captions = sample_lines(results.samples, root)
    if captions:
        print(f"\n{captions}")
    print("\n" + "\n".join(str(path) for path in written))
    if options.limit is not None:
        log.info("model cards stay as they are: --limit gives partial figures")
        return
    for model in models:
        figures = [asdict(f) for f in results.figures if f.model == model.name]
        model.handle.record_scores(loading.card_scores(suite.name, suite.version, figures))

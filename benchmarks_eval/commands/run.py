"""``run``: scores models on a task file."""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks_eval.commands.options import add_again_options, add_run_options, run_options
from benchmarks_eval.commands.report import write_page

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
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="results folder (default: <run>/eval/<name of the task file>)")
    add_again_options(parser)
    add_run_options(parser)
    parser.add_argument("--allow-upload", action="store_true",
                        help="a server may be sent pictures that the task file does not show")


def run(args: argparse.Namespace) -> None:
    """Evaluates, prints, writes, refreshes model cards."""
    from benchmarks_eval.ranks import Ranks
    from benchmarks_eval.run import evaluate

    asked = run_options(args)
    suite = asked.suite
    questions = asked.questions()  # bad data should show before models load
    from benchmarks_eval import models as loading

    out = args.out or loading.output_folder(args.model[0], suite.name)
    with Ranks.from_environment() as ranks:
        models = loading.load_models(args.model, ranks.device(args.device))
        results = evaluate(models, questions, out, store=asked.store, fresh=args.fresh,
                           ranks=ranks, allow_upload=args.allow_upload)
    if results is None:
        return
    from benchmarks_eval.report import sample_lines, table, write_results

    written = [write_results(results, out), write_page(out, questions)]
    print(f"\n{suite.name} v{suite.version}, {asked.headline}")
    print(table(results))
    captions = sample_lines(results.samples, asked.root)
    if captions:
        print(f"\n{captions}")
    print("\n" + "\n".join(str(path) for path in written))
    if asked.options.limit is not None:
        log.info("model cards stay as they are: --limit gives partial figures")
        return
    for model in models:
        figures = [asdict(f) for f in results.figures if f.model == model.name]
        model.handle.record_scores(loading.card_scores(suite.name, suite.version, figures))

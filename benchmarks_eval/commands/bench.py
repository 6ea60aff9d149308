"""``bench``: our scoring beside a loop over pairs, on one model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks_eval.commands.options import positive
from benchmarks_eval.options import Options
from benchmarks_eval.questions import Questions
from benchmarks_eval.records import write_atomically
from benchmarks_eval.tasks import load_tasks


def add(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "bench", help="time our scoring beside a loop over pairs",
        description="Times likelihood scoring beside a loop that takes one picture and one "
                    "candidate at a time, in turn, on the same pairs; compares the scores.")
    parser.add_argument("--model", required=True, metavar="SPEC",
                        help="a generative model of the training engine")
    parser.add_argument("--tasks", required=True, metavar="YAML",
                        help="task file that pictures and texts are taken from")
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="data folder, instead of the file's")
    parser.add_argument("--pairs", type=positive, nargs="+", default=[2, 4, 22], metavar="K",
                        help="candidates a picture (default 2 4 22)")
    parser.add_argument("--pictures", type=positive, default=32, metavar="N",
                        help="pictures at most (default 32)")
    parser.add_argument("--rounds", type=positive, default=5, metavar="N",
                        help="how often each way is timed, in turn (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the pairs (default 0)")
    parser.add_argument("--out", type=Path, metavar="JSON", help="every timing goes here")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")


def run(args: argparse.Namespace) -> None:
    """Times, prints, writes where asked to."""
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: a seed is 0 or more")
    suite = load_tasks(args.tasks)
    root = args.root or Path(suite.root)
    bound = Questions.read(suite, root, Options(seed=args.seed)).bound
    from benchmarks_eval import bench, models

    (model,) = models.load_models([args.model], args.device)
    compared = bench.compare(model, bound, root, pictures=args.pictures, candidates=args.pairs,
                             rounds=args.rounds, seed=args.seed)
    print(bench.table(compared))
    if args.out is not None:
        import torch

        device = str(getattr(getattr(model.handle, "inner", model.handle), "device", args.device))
        tree = {"format": 1, "model": model.path, "weights_hash": model.handle.weights_hash,
                "suite": suite.name, "device": device, "threads": torch.get_num_threads(),
                "torch": torch.__version__, "compared": [row.to_json() for row in compared]}
        write_atomically(args.out, json.dumps(tree, indent=1) + "\n")
        print(args.out)

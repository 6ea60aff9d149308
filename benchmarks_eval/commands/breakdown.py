"""``breakdown RUN``: one run's figures in parts, from what it wrote; loads no model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks_eval.breakdowns.report import break_down, breakdown_text
from benchmarks_eval.commands.sources import add_source_options, read_sources
from benchmarks_eval.outcomes import read_judged
from benchmarks_eval.records import write_atomically


def add(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = subparsers.add_parser(
        "breakdown", help="one run's figures by kind of difference, known words, frequency, age",
        description="Figures in parts: by the tags that the data carry (part of speech of the "
                    "difference, category, ...), by known and unknown words, by word frequency, "
                    "by age of acquisition; confusions of labels; pictures and texts that a model "
                    "likes whatever is asked. Loads no model.")
    parser.add_argument("run", metavar="RUN", help="a model's folder in a results folder")
    parser.add_argument("--task", nargs="+", action="extend", metavar="TASK",
                        help="only these tasks")
    parser.add_argument("--all", action="store_true",
                        help="every figure, not only the main one of each task")
    add_source_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of resamples (default 0)")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE",
                        help="write everything as JSON to FILE, or instead of the text")


def run(args: argparse.Namespace) -> None:
    """Reads the run and the sources, breaks down, prints.

    Raises:
        ValueError: the run or a source is not there or malformed, or a task is unknown.
    """
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: a seed is 0 or more")
    judged = read_judged(args.run)
    sources = read_sources(args, judged.results)
    made = break_down(judged, sources, tasks=args.task, every=args.all, seed=args.seed)
    text = json.dumps([one.to_json() for one in made], indent=1, ensure_ascii=False,
                      allow_nan=False) + "\n"
    if args.json == "-":
        print(text, end="")
        return
    if args.json is not None:
        write_atomically(Path(args.json), text)
    print(breakdown_text(made))

"""``plot``: a run's losses and scores in one picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser("plot", help="draw losses and scores to a PNG")
    parser.add_argument("--results", type=Path, required=True, metavar="JSON",
                        help="results.json of a run command")
    parser.add_argument("--metrics", type=Path, metavar="JSONL",
                        help="metrics.jsonl of the training run, for its losses")
    parser.add_argument("--group", default="test-view", help="tasks to show")
    parser.add_argument("--out", type=Path, required=True, metavar="PNG")


def run(args: argparse.Namespace) -> None:
    """Draws."""
    from benchmarks_eval.plot import plot

    print(plot(args.results, args.metrics, args.out, args.group))

"""``compare A B``: paired tests of two models, or of two recipes with several seeds each.

``compare A`` alone: one recipe's figures over its seeds, and what the set can show.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks_eval.compare import compare
from benchmarks_eval.compare_table import comparison_table
from benchmarks_eval.outcomes import Judged, read_judged
from benchmarks_eval.recipe import recipe_table, summarise
from benchmarks_eval.records import write_atomically


def add(subparsers: Any) -> None:
    """Adds the command to the parser."""
    parser = subparsers.add_parser(
        "compare", help="paired tests of two runs on the same trials",
        description="What changes from A to B: fixed and broken trials, exact McNemar and "
                    "cluster sign-flip tests, paired bootstrap intervals, Holm's correction. "
                    "Reads what runs wrote; loads no model.")
    parser.add_argument("a", metavar="A", help="a model's folder in a results folder (RESULTS/"
                        "MODEL), or several separated by commas: runs of one recipe with "
                        "different seeds")
    parser.add_argument("b", metavar="B", nargs="?",
                        help="what A is compared with, likewise; without it, A's figures over its "
                             "seeds. A model with pictures against the same one with "
                             "shuffled: pictures gives its grounding gap")
    parser.add_argument("--task", nargs="+", action="extend", metavar="TASK",
                        help="only these tasks")
    parser.add_argument("--primary", action="store_true",
                        help="only the main figure of each task (fewer tests to correct for)")
    parser.add_argument("--common", action="store_true",
                        help="where the runs have different trials, compare those they share")
    parser.add_argument("--trials", type=int, default=0, metavar="N",
                        help="also list at most N fixed and N broken trials a figure")
    parser.add_argument("--seed", type=int, default=0, help="of resamples (default 0)")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE",
                        help="write everything as JSON to FILE, or instead of the table")


def run(args: argparse.Namespace) -> None:
    """Reads both sides, compares, prints.

    Raises:
        ValueError: a run is not there or not finished, or the two have different trials.
    """
    if args.seed < 0 or args.trials < 0:
        raise ValueError("--seed and --trials are 0 or more")
    before = _side(args.a)
    if args.b is None:
        recipe = summarise(before, tasks=args.task, primary=args.primary, common=args.common,
                           seed=args.seed)
        _show(args.json, recipe.to_json(), recipe_table(recipe))
        return
    made = compare(before, _side(args.b), tasks=args.task, primary=args.primary,
                   common=args.common, seed=args.seed)
    _show(args.json, made.to_json(), comparison_table(made, trials=args.trials))


def _show(target: str | None, tree: dict[str, Any], table: str) -> None:
    text = json.dumps(tree, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if target == "-":
        print(text, end="")
        return
    if target is not None:
        write_atomically(Path(target), text)
    print(table)


def _side(text: str) -> list[Judged]:
    paths = [part for part in text.split(",") if part]
    if not paths:
        raise ValueError("compare needs a folder on each side")
    return [read_judged(path) for path in paths]

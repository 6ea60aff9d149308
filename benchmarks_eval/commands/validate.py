"""``validate``: is a suite fit to be scored? Exit code 1 when it is not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks_eval.tasks import TaskFile, load_tasks

if TYPE_CHECKING:
    from benchmarks_eval.checks import SuiteCheck, TaskCheck

SHOWN = 5
"""Findings of one task that are printed; ``--json`` has them all."""


def add(subparsers: Any) -> None:
    """Declares the command."""
    parser = subparsers.add_parser(
        "validate", help="check a suite: rows, pictures, repeats, positions, pairs, vocabulary"
    )
    parser.add_argument("--tasks", required=True, metavar="YAML", help="a file of configs/tasks")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="only these tasks of the file")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="data folder, instead of the file's"
    )
    parser.add_argument(
        "--model",
        nargs="+",
        action="extend",
        default=[],
        metavar="SPEC",
        help="models whose unknown words to count (only tokenisers are read)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the trials (default 0)")
    parser.add_argument(
        "--no-decode",
        action="store_true",
        help="only see whether pictures are there, do not read them",
    )
    parser.add_argument(
        "--extract",
        action="store_true",
        help="first take the pictures out of parquet files, into image_root",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all findings here")


def run(args: argparse.Namespace) -> int:
    """Checks, prints, and says by the exit code whether the suite can be scored.

    Raises:
        ValueError: a malformed task file, an unknown task, no tokeniser at a model.
    """
    from benchmarks_eval.checks import check_suite
    from benchmarks_eval.vocabulary import Vocabulary

    suite = load_tasks(args.tasks)
    if args.only:
        suite = suite.only(args.only)
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: a seed is 0 or more")
    root = args.root or Path(suite.root)
    vocabularies = [Vocabulary.read(spec) for spec in args.model]
    if args.extract:
        for line in _extract(suite, root):
            print(line)
    found = check_suite(
        suite, root, seed=args.seed, decode=not args.no_decode, vocabularies=vocabularies
    )
    print(describe(suite, root, found))
    if args.json is not None:
        _write(
            args.json,
            {
                "suite": suite.name,
                "version": suite.version,
                "root": str(root),
                "seed": args.seed,
                "tasks": [task.to_json() for task in found.tasks],
                "pairs": found.pairs()[0],
                "distinct_pairs": found.pairs()[1],
            },
        )
    return 1 if found.errors else 0


def describe(suite: TaskFile, root: Path, found: SuiteCheck) -> str:
    """The findings for people: one block a task, then the sums."""
    lines = [f"{suite.name} v{suite.version}, data in {root}"]
    for check in found.tasks:
        lines += ["", *_task_lines(check)]
    every, distinct = found.pairs()
    lines += [
        "",
        f"{every:,} pairs to score, {distinct:,} of them distinct; "
        f"{found.errors:,} errors, {found.warnings:,} warnings",
    ]
    return "\n".join(lines)


def _task_lines(check: TaskCheck) -> list[str]:
    from benchmarks_eval.checks import task_pairs
    from benchmarks_eval.data import pictures_of

    task, indent = check.task, "  "
    lines = [
        f"{task.name}  {task.kind}  {len(check.items):,} questions, "
        f"{len({item.cluster for item in check.items}):,} clusters, "
        f"{len(pictures_of(check.items)):,} pictures"
    ]
    for name, trials in check.trials.items():
        pairs = sum(trial.choices for trial in trials)
        said = f"{name}: {pairs:,} pairs, {len(task_pairs(task, trials)):,} distinct"
        if name in check.shuffled:
            said += (
                f"; right answer in place {_counts(check.in_file)} of the file, "
                f"{_counts(check.shuffled[name])} as asked"
            )
        lines.append(indent + said)
    lines += [indent + one.line(name) for name, one in check.coverage.items()]
    for what, findings in (("error", check.errors), ("warning", check.warnings)):
        lines += [f"{indent}{what}: {text}" for text in findings[:SHOWN]]
        if len(findings) > SHOWN:
            lines.append(f"{indent}... and {len(findings) - SHOWN:,} more {what}s")
    return lines


def _counts(places: Any) -> str:
    shown = sorted(places.items())
    said = " ".join(f"{place + 1}:{count:,}" for place, count in shown[:6])
    return said + (" ..." if len(shown) > 6 else "")


def _extract(suite: TaskFile, root: Path) -> Sequence[str]:
    from benchmarks_eval.formats.winoground import extract_pictures

    inside = [task for task in suite.tasks if task.file.endswith(".parquet")]
    if not inside:
        raise ValueError("--extract: no task of this suite reads a parquet file")
    lines: list[str] = []
    for task in inside:
        found, written = extract_pictures(task, root)
        lines.append(
            f"{root / task.file}: {found:,} pictures, {written:,} taken out now into "
            f"{root / task.image_root}"
        )
    return lines


def _write(path: Path, tree: dict[str, Any]) -> None:
    from benchmarks_eval.records import write_atomically

    write_atomically(path, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")

"""``python -m benchmarks_eval list`` and ``python -m benchmarks_eval run --model DIR ...``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks_eval.data import read_items
from benchmarks_eval.models import card_scores, load_models, output_folder
from benchmarks_eval.page import write_page
from benchmarks_eval.report import sample_lines, table, write_results
from benchmarks_eval.run import Options, evaluate, read_tasks
from benchmarks_eval.tasks import load_tasks

log = logging.getLogger("babyvlm")

TASK_FOLDER = Path("configs/tasks")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks_eval",
        description="Scores vision-language models beside chance and blind floors.")
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("list", help="task files, their tasks and whether the data is there")
    show.add_argument("folder", nargs="?", type=Path, default=TASK_FOLDER)
    run = commands.add_parser("run", help="score models on a task file")
    run.add_argument("--model", nargs="+", action="extend", required=True, metavar="DIR",
                     help="model folders, contrastive or generative; may be given repeatedly")
    run.add_argument("--tasks", required=True, metavar="YAML", help="a file of configs/tasks")
    run.add_argument("--only", nargs="+", metavar="TASK", help="only these tasks of the file")
    run.add_argument("--root", type=Path, metavar="DIR", help="data folder, instead of the file's")
    run.add_argument("--out", type=Path, metavar="DIR",
                     help="results folder (default: <run>/eval/<name of the task file>)")
    run.add_argument("--limit", type=_positive, metavar="N",
                     help="at most N questions a task, evenly spaced")
    run.add_argument("--seed", type=int, default=0, help="orders, foils, resamples (default 0)")
    run.add_argument("--normalise", choices=("mean", "sum"),
                     help="log-likelihood per token or summed (default: the task file's)")
    run.add_argument("--batch-size", type=_positive, default=32, metavar="N",
                     help="pictures at a time (default 32)")
    drawing = commands.add_parser("plot", help="draw losses and scores to a PNG")
    drawing.add_argument("--results", type=Path, required=True, metavar="JSON",
                         help="results.json of a run command")
    drawing.add_argument("--metrics", type=Path, metavar="JSONL",
                         help="metrics.jsonl of the training run, for its losses")
    drawing.add_argument("--group", default="test-view", help="tasks to show")
    drawing.add_argument("--out", type=Path, required=True, metavar="PNG")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, ... (default auto)")
    return parser


def list_tasks(folder: Path) -> str:
    """One block a task file: its tasks, kinds and numbers of questions.

    Raises:
        ValueError: the folder holds no task file, or one of them is malformed.
    """
    paths = sorted(folder.glob("*.yaml"))
    if not paths:
        raise ValueError(f"{folder}: no task files (*.yaml) here")
    lines: list[str] = []
    for path in paths:
        suite = load_tasks(path)
        lines.append(f"{path}  {suite.name} v{suite.version}  {suite.description}".rstrip())
        for task in suite.tasks:
            file = Path(suite.root) / task.file
            size = (f"{len(read_items(task, Path(suite.root)))} questions" if file.is_file()
                    else f"no data at {file}")
            lines.append(f"  {task.name:<28} {task.kind:<11} {size}")
    return "\n".join(lines)


def run(args: argparse.Namespace) -> None:
    """The ``run`` command: evaluates, prints, writes, refreshes model cards."""
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: a seed is 0 or more")
    suite = load_tasks(args.tasks)
    if args.only:
        suite = suite.only(args.only)
    root = args.root or Path(suite.root)
    options = Options(args.seed, args.limit, args.normalise, args.batch_size)
    read_tasks(suite, root, options)  # bad data should show before models load
    models = load_models(args.model, args.device)
    out = args.out or output_folder(args.model[0], suite.name)
    results = evaluate(models, suite, root, out, options)
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
        model.handle.record_scores(card_scores(suite.name, suite.version, figures))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; user errors become one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args = _parser().parse_args(argv)
    try:
        if args.command == "list":
            print(list_tasks(args.folder))
        elif args.command == "plot":
            from benchmarks_eval.plot import plot

            print(plot(args.results, args.metrics, args.out, args.group))
        else:
            run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

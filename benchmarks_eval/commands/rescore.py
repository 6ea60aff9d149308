"""``rescore``: every figure again from the records on disk, by other rules, without a model."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks_eval.commands.options import add_score_options, score_options
from benchmarks_eval.commands.report import write_page
from benchmarks_eval.data import missing_pictures
from benchmarks_eval.judge import judge, sweep
from benchmarks_eval.options import Options
from benchmarks_eval.plan import FILE, ModelInfo, difference, read_plan
from benchmarks_eval.questions import Questions
from benchmarks_eval.report import sweep_table, table, write_results
from benchmarks_eval.tasks import TaskFile


def add(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "rescore", help="figures from recorded scores by other rules, without a model")
    parser.add_argument("results", type=Path, metavar="OUT", help="results folder of a run")
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="data folder, where it is not the run's any more")
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="write results, trials and a page there; without it only the table is "
                             "printed. OUT itself is accepted")
    add_score_options(parser)
    parser.add_argument("--score-eos", choices=("no", "yes"),
                        help="with or without the end of sequence, as far as it is recorded "
                             "(default: the task file's)")


def run(args: argparse.Namespace) -> None:
    """Judges, prints, writes where asked to."""
    facts = read_plan(args.results)
    if facts is None:
        raise ValueError(f"{args.results}: no {FILE} here; a results folder of `run` has one")
    try:
        suite = TaskFile.model_validate(facts["suite"])
        infos = [ModelInfo(**entry) for entry in facts["models"]]
        ends = {"no": False, "yes": True}
        recorded = facts["options"]
        chosen = ends.get(args.score_eos, ends.get(recorded["ends"]))
        options = Options(**recorded, score=score_options(args, chosen))
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise ValueError(f"{args.results / FILE}: its suite is malformed: {why}") from None
    except (KeyError, TypeError) as error:
        raise ValueError(f"{args.results / FILE}: not a plan of this version: {error!r}") from None
    root = args.root or Path(facts["root"])
    questions = Questions.read(suite, root, options, pictures=False)
    odd = difference({"data": facts["data"]}, {"data": questions.data_facts})
    if odd is not None:
        raise ValueError(f"{root}: the data are no longer those that were scored: {odd} differ")
    results = judge(questions, infos, args.results, args.out)
    print(f"{suite.name} v{suite.version}, seed {options.seed}, rescored: "
          f"normalise {args.normalise or 'as the task file says'}, ties {args.ties}")
    print(table(results))
    swept = sweep_table(sweep(questions.bound, infos, args.results))
    if swept:
        print(f"\n{swept}")
    if args.out is not None:
        gone = suite.show_pictures and any(missing_pictures(root, task.items)
                                           for task in questions.bound)
        written = [write_results(results, args.out),
                   write_page(args.out, questions, pictures=False if gone else None)]
        if gone:
            print("\nthe page goes without pictures: some are no longer there")
        print("\n" + "\n".join(str(path) for path in written))

"""``report OUT [OUT2]``: one HTML file of a run, a sweep, or two runs and their difference."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks_eval.commands.sources import add_source_options, read_sources

if TYPE_CHECKING:
    from benchmarks_eval.questions import Questions


def add(subparsers: Any) -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "report", help="one HTML page of a run, a sweep, or two runs and their difference",
        description="Figures beside their floors, learning curves, confusions, breakdowns, single "
                    "trials, the difference of two runs, published figures: one file that loads "
                    "nothing. Reads what runs wrote; loads no model.")
    parser.add_argument("results", type=Path, metavar="OUT",
                        help="results folder of a run, a model's folder in it, or a sweep's folder")
    parser.add_argument("other", type=Path, nargs="?", metavar="OUT2",
                        help="what it is compared with, likewise")
    parser.add_argument("--published", action="store_true",
                        help="lay published figures beside the run's")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--pictures", action="store_true", default=None,
                       help="show pictures even where the task file keeps them to itself (SAYCam "
                            "frames: a page with them may not be passed on)")
    shown.add_argument("--no-pictures", action="store_false", dest="pictures",
                       help="show no picture at all")
    parser.add_argument("--root", type=Path, metavar="DIR",
                        help="folder of the pictures, where it is not the run's any more")
    parser.add_argument("--out", type=Path, metavar="HTML",
                        help="where the page goes (default: OUT/report.html, where `run` puts it "
                             "too; two runs: OUT/difference.html)")
    parser.add_argument("--all", action="store_true",
                        help="two runs: test every figure, not only the main one of each task")
    parser.add_argument("--common", action="store_true",
                        help="two runs: where their trials differ, compare those both have")
    add_source_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="of resamples (default 0)")


def run(args: argparse.Namespace) -> None:
    """Reads, renders, writes.

    Raises:
        ValueError: a folder holds no finished run, or a picture is missing.
    """
    from benchmarks_eval.pages import DIFFERENCE, FILE, Wishes, read_side, write_report

    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: a seed is 0 or more")
    one = read_side(args.results)
    other = None if args.other is None else read_side(args.other)
    wishes = Wishes(args.published, args.pictures, args.root, args.all, args.common, args.seed,
                    read_sources(args, one.results))
    path = args.out or args.results / (FILE if other is None else DIFFERENCE)
    print(write_report(path, one, other, wishes))


def write_page(out: Path, questions: Questions, *, pictures: bool | None = None) -> Path:
    """The page of a finished run or sweep, as ``report OUT`` makes it.

    Args:
        out: its folder.
        questions: what was asked; its word counts serve the breakdowns, too.
        pictures: None: where the task file shows them; False: never.
    """
    from benchmarks_eval.breakdowns.report import Sources
    from benchmarks_eval.pages import FILE, Wishes, read_side, write_report

    known = questions.frequencies
    sources = Sources(counts=None if known is None else known.counts)
    return write_report(out / FILE, read_side(out), None,
                        Wishes(pictures=pictures, sources=sources))

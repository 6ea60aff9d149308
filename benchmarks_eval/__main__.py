"""``python -m benchmarks_eval COMMAND ...``; ``--help`` lists the commands."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

COMMANDS = ("list", "validate", "run", "rescore", "compare", "breakdown", "sweep", "report", "plot",
            "bench")
"""Modules of ``benchmarks_eval.commands``, imported when they are asked for."""


def _parser(asked: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks_eval",
        description="Scores vision-language models beside chance and blind floors.")
    # `deepspeed` puts it before everything else; the environment says the same.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS if asked is None else (asked,):
        importlib.import_module(f"benchmarks_eval.commands.{name}").add(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; user errors become one line on stderr and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    given = list(sys.argv[1:] if argv is None else argv)
    # A known command needs its own module alone; help and mistakes need all of them.
    asked = next((word for word in given if not word.startswith("-")), None)
    args = _parser(asked if asked in COMMANDS else None).parse_args(given)
    command = importlib.import_module(f"benchmarks_eval.commands.{args.command}")
    try:
        code = command.run(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return code or 0


if __name__ == "__main__":
    sys.exit(main())

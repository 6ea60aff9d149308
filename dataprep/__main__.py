"""``python -m dataprep COMMAND``: make a corpus that the engine can train on."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

_COMMANDS = (
    "sources", "tools", "similarity", "rewrite", "transfer", "evalsets", "provenance", "demo",
)  # fmt: skip
"""Packages whose ``cli`` adds commands, in the order of a corpus's way."""


def _picturebook(arguments: argparse.Namespace) -> None:
    from dataprep.picturebook.build import build

    build(arguments.out, arguments.image_size, arguments.seed, force=arguments.force)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dataprep", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    book = commands.add_parser(
        "picturebook",
        help="drawings and photographs from installed packages, with words for children",
    )
    book.add_argument("--out", type=Path, required=True, help="corpus directory to make")
    book.add_argument("--image-size", type=int, default=128, help="side in pixels (32 to 1024)")
    book.add_argument("--seed", type=int, default=0, help="seed of splits, templates and foils")
    book.add_argument("--force", action="store_true", help="replace an existing corpus")
    book.set_defaults(run=_picturebook)
    for name in _COMMANDS:
        importlib.import_module(f"dataprep.{name}.cli").add_commands(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 after one line on stderr when the input was wrong."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted; the same command goes on or begins again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

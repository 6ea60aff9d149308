"""``python -m dataprep demo``."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_commands"]


def _demo(arguments: argparse.Namespace) -> None:
    from dataprep.demo.run import run_demo

    if arguments.seed < 0:
        raise ValueError(f"--seed {arguments.seed}: accepted are 0 and above")
    run_demo(
        arguments.out, small=arguments.small, seed=arguments.seed, training=arguments.train,
        run_dir=arguments.run_dir, force=arguments.force,
    )  # fmt: skip


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``demo``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="every command of these, run on films and pictures made from installed packages",
        description="Films with transcripts are made from photographs (Tux Paint), a general pool "
        "from the other stamps and OpenMoji; then every stage runs, from raw files to a mixed "
        "corpus and evaluation sets, printing the command lines as they could be typed. Nothing is "
        "fetched from anywhere: a local server with fixed rules answers in a language model's "
        "place, a tiny random Stable Diffusion 3 paints, ImageNet and MiniLM stand in for CLIP. "
        "OUT/index.html shows it and says what is real. Killed, the same command goes on.",
    )
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder for all of it")
    add("--train", action="store_true",
        help="then train configs/quickstart.yaml for some steps on the mixed corpus")  # fmt: skip
    add("--run-dir", type=Path, help="where that run goes (default: runs/ and the name of OUT)")
    add("--small", action="store_true", help="few pictures, in well under a minute")
    add("--seed", type=int, default=0, help="everything drawn by lot depends on it")
    add("--force", action="store_true", help="remove what an earlier demonstration left in OUT")
    parser.set_defaults(run=_demo)

"""The command ``document``."""

from __future__ import annotations

import argparse
from pathlib import Path


def _document(arguments: argparse.Namespace) -> None:
    from dataprep.provenance.document import CROISSANT, DATASHEET, document

    folder: Path = arguments.corpus or arguments.set
    warnings = document(folder, check=not arguments.no_check)
    for warning in warnings:
        print(f"mlcroissant: {' '.join(warning.split())}")
    checked = "not checked" if arguments.no_check else "valid"
    print(f"{folder / CROISSANT} ({checked}), {folder / DATASHEET}")


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add this package's command."""
    parser = commands.add_parser(
        "document", help="write Croissant metadata and a datasheet from a manifest"
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--corpus", type=Path, help="corpus directory")
    which.add_argument("--set", type=Path, help="folder of an evaluation set")
    parser.add_argument(
        "--no-check", action="store_true", help="do not have mlcroissant read the metadata"
    )
    parser.set_defaults(run=_document)

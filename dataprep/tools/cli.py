"""``python -m dataprep validate | inspect | merge``: check, show and mix corpora."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["add_commands"]


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to ``python -m dataprep``."""
    check = commands.add_parser("validate", help="check a corpus: files, pictures, words, leaks")
    check.add_argument("corpus", type=Path, help="corpus directory")
    check.add_argument("--quick", action="store_true", help="leave out hashes and pictures")
    check.add_argument("--strict", action="store_true", help="a warning is a problem, too")
    check.add_argument("--quiet", action="store_true", help="no progress bar")
    check.set_defaults(run=_validate)

    show = commands.add_parser(
        "inspect", help="counts, licences, lengths and words of corpora or evaluation sets"
    )
    show.add_argument(
        "paths", type=Path, nargs="+", help="corpus directories, or CSVs of the published benchmark"
    )
    show.add_argument(
        "--vocabulary", type=Path, nargs="+", default=[],
        help="vocab.json or tokenizer.json files: count what they do not know",
    )  # fmt: skip
    show.add_argument("--samples", type=int, default=4, help="pairs to print of every split (4)")
    show.add_argument("--sheet", type=Path, help="write a contact sheet (PNG) of the one corpus")
    show.add_argument("--sheet-rows", type=int, default=2, help="its rows a split and source (2)")
    show.add_argument("--seed", type=int, default=0, help="of samples and sheet")
    show.set_defaults(run=_inspect)

    mix = commands.add_parser("merge", help="mix corpora of one image size")
    mix.add_argument("corpora", type=Path, nargs="+", help="corpus directories")
    mix.add_argument("--out", type=Path, required=True, help="corpus directory to make")
    mix.add_argument("--name", default="mixed", help="its name (mixed)")
    mix.add_argument(
        "--weight", nargs="+", default=[], metavar="SOURCE=W",
        help="how often a source's pairs of train are taken: 0.5 a random half, 2 all twice",
    )  # fmt: skip
    mix.add_argument(
        "--cap", nargs="+", default=[], metavar="SOURCE=N", help="most pairs of train of a source"
    )
    mix.add_argument("--seed", type=int, default=0, help="of what is chosen at random")
    mix.add_argument(
        "--leaks", choices=["refuse", "drop", "keep"], default="refuse",
        help="what to do with pairs of train whose group or view another corpus holds out",
    )  # fmt: skip
    mix.add_argument("--force", action="store_true", help="replace an existing corpus")
    mix.add_argument("--quiet", action="store_true", help="no progress bar")
    mix.set_defaults(run=_merge)


def _validate(arguments: argparse.Namespace) -> None:
    from dataprep.tools.validate import validate

    found = validate(arguments.corpus, quick=arguments.quick, progress=not arguments.quiet)
    for line in found.checked:
        print(f"checked  {line}")
    for line in found.warnings:
        print(f"warning  {line}")
    for line in found.problems:
        print(f"problem  {line}")
    wrong = [*found.problems, *(found.warnings if arguments.strict else [])]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise ValueError(f"{arguments.corpus}: {wrong[0]}{more}")
    print(f"{arguments.corpus}: sound, {len(found.warnings)} warnings")


def _inspect(arguments: argparse.Namespace) -> None:
    from dataprep.tools.inspect import corpus_report, labels_report
    from dataprep.tools.vocabulary import open_tokenisers

    tokenisers = [t for path in arguments.vocabulary for t in open_tokenisers(path)]
    if arguments.samples < 0 or arguments.sheet_rows < 1 or arguments.seed < 0:
        raise ValueError("--samples, --seed: accepted are 0 and above; --sheet-rows: 1 and above")
    if arguments.sheet is not None and len(arguments.paths) != 1:
        raise ValueError("--sheet shows one corpus")
    reports = [
        labels_report(path, tokenisers)
        if path.suffix.lower() == ".csv"
        else corpus_report(path, tokenisers, arguments.samples, arguments.seed)
        for path in arguments.paths
    ]
    print("\n\n".join(reports))
    if arguments.sheet is not None:
        from dataprep.tools.sheet import contact_sheet

        contact_sheet(
            arguments.paths[0], arguments.sheet, arguments.sheet_rows, arguments.seed
        )
        print(f"\n{arguments.sheet}: contact sheet")


def _merge(arguments: argparse.Namespace) -> None:
    from dataprep.tools.merge import Mix, merge
    from dataprep.tools.tables import laid_out

    weights = {source: float(value) for source, value in _settings("--weight", arguments.weight)}
    caps = dict(_settings("--cap", arguments.cap))
    whole = {source: int(value) for source, value in caps.items() if value.is_integer()}
    if len(whole) < len(caps):
        raise ValueError(f"--cap {' '.join(arguments.cap)}: accepted are whole numbers")
    counts = merge(
        arguments.corpora, arguments.out,
        mix=Mix(weights, whole, arguments.seed, arguments.leaks),
        name=arguments.name, force=arguments.force, progress=not arguments.quiet,
    )  # fmt: skip
    rows: list[tuple[object, ...]] = [("split", "source", "pairs")]
    rows += [(split, s, n) for split, by in counts.items() for s, n in by.items()]
    print(laid_out(rows, (0, 1)))


def _settings(option: str, texts: list[str]) -> list[tuple[str, float]]:
    found = []
    for text in texts:
        source, equals, value = text.rpartition("=")
        try:
            number = float(value)
        except ValueError:
            number = None
        if not (equals and source) or number is None:
            raise ValueError(f"{option} {text}: accepted is SOURCE=NUMBER")
        found.append((source, number))
    return found

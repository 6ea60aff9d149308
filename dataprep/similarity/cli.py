"""``python -m dataprep embed | filter | duplicates | split``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_commands", "add_scorer", "add_stores"]

Commands = Any  # argparse._SubParsersAction has no public name

SCORER = (
    "what measures likeness: clip:NAME:WEIGHTS (an open_clip model and a local file; OpenAI's own "
    "weights are clip:ViT-B-32-quickgelu:FILE and clip:ViT-L-14-quickgelu:FILE), clip:FOLDER (a "
    "downloaded open_clip repository), checkpoint:RUN/contrastive/model, or standin (ImageNet and "
    "MiniLM, for trying things out)"
)


def add_scorer(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """Add ``--scorer``, ``--device`` and ``--batch-size``."""
    parser.add_argument("--scorer", required=required, help=SCORER)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto)")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures a pass (64)")


def add_stores(parser: argparse.ArgumentParser) -> None:
    """Add ``--stores``."""
    parser.add_argument(
        "--stores", type=Path, help="where vectors are kept (default CORPUS.embeddings)"
    )


def add_commands(commands: Commands) -> None:
    """Add the commands of this package to ``python -m dataprep``."""
    _add_embed(commands)
    _add_filter(commands)
    _add_duplicates(commands)
    _add_split(commands)


def _add_embed(commands: Commands) -> None:
    embed = commands.add_parser(
        "embed", help="pictures and utterances as vectors on disk; resumes where it was"
    )
    embed.add_argument("corpus", type=Path, help="corpus directory")
    embed.add_argument("--split", nargs="+", default=[], help="splits (default all)")
    embed.add_argument(
        "--what", nargs="+", choices=("images", "texts"), default=["images", "texts"],
        help="default both",
    )  # fmt: skip
    add_scorer(embed)
    add_stores(embed)
    embed.set_defaults(run=_embed)


def _embed(arguments: argparse.Namespace) -> None:
    from dataprep.similarity.embed import embed_corpus, store_folder, stores_of
    from dataprep.similarity.scorers import open_scorer
    from engine import read_corpus

    corpus = read_corpus(arguments.corpus)
    scorer = open_scorer(arguments.scorer, arguments.device)
    print(describe(scorer))
    for split in arguments.split or corpus.splits:
        for what in arguments.what:
            folder = store_folder(
                arguments.stores or stores_of(corpus), corpus, split, what, scorer.hash
            )
            store = embed_corpus(
                corpus, split, scorer, folder, what, batch_size=arguments.batch_size
            )
            print(f"{folder}: {len(store):,} {what} of {split} x {scorer.dim}")


def _add_filter(commands: Commands) -> None:
    filter_ = commands.add_parser(
        "filter", help="keep the pairs whose picture and words are alike (published: cosine > 0.2)"
    )
    filter_.add_argument("corpus", type=Path, help="corpus directory")
    filter_.add_argument("--out", type=Path, required=True, help="corpus directory to make")
    cut = filter_.add_mutually_exclusive_group()
    cut.add_argument(
        "--threshold", type=float,
        help="keep pairs of a raw cosine above it (default 0.2, as published; made for OpenAI's "
        "CLIP)",
    )  # fmt: skip
    cut.add_argument(
        "--quantile", type=float, help="keep pairs above this quantile: 0.7 keeps the best 30 %%"
    )
    filter_.add_argument("--split", nargs="+", default=[], help="splits (default all)")
    add_scorer(filter_)
    add_stores(filter_)
    _add_naming(filter_)
    filter_.set_defaults(run=_filter)


def _filter(arguments: argparse.Namespace) -> None:
    from dataprep.similarity.embed import stores_of
    from dataprep.similarity.filter import filter_corpus
    from dataprep.similarity.scorers import open_scorer
    from engine import read_corpus

    corpus = read_corpus(arguments.corpus)
    scorer = open_scorer(arguments.scorer, arguments.device)
    print(describe(scorer))
    done = filter_corpus(
        corpus, scorer, arguments.out,
        stores=arguments.stores or stores_of(corpus),
        threshold=arguments.threshold, quantile=arguments.quantile,
        splits=tuple(arguments.split), name=arguments.name, batch_size=arguments.batch_size,
        force=arguments.force,
    )  # fmt: skip
    for split, before in done.before.items():
        after = done.after[split]
        print(f"{split}: {after:,} of {before:,} pairs kept ({after / max(before, 1):.1%})")
    print(f"{arguments.out}: pairs of a cosine above {done.threshold:.4f} by {scorer.name}")


def _add_duplicates(commands: Commands) -> None:
    duplicates = commands.add_parser(
        "duplicates", help="find near-duplicate pictures and write them down; drop them if asked"
    )
    duplicates.add_argument("corpus", type=Path, help="corpus directory")
    duplicates.add_argument(
        "--out", type=Path, help="table to write (default CORPUS.duplicates.parquet)"
    )
    duplicates.add_argument("--drop", type=Path, help="also write a corpus without them here")
    duplicates.add_argument(
        "--split", nargs="+", default=[],
        help="splits, the first keeps its pictures first (default all, train last)",
    )  # fmt: skip
    _add_limits(duplicates)
    add_scorer(duplicates, required=False)
    add_stores(duplicates)
    _add_naming(duplicates)
    duplicates.set_defaults(run=_duplicates)


def _duplicates(arguments: argparse.Namespace) -> None:
    from dataprep.similarity.embed import stores_of
    from dataprep.similarity.resplit import deduplicate
    from engine import read_corpus

    corpus = read_corpus(arguments.corpus)
    path = corpus.path.resolve()
    table = arguments.out or path.with_name(f"{path.name}.duplicates.parquet")
    done = deduplicate(
        corpus, table, stores=arguments.stores or stores_of(corpus), scorer=_optional(arguments),
        hamming=arguments.hamming, cosine=arguments.cosine, splits=tuple(arguments.split),
        drop=arguments.drop, name=arguments.name, batch_size=arguments.batch_size,
        force=arguments.force,
    )  # fmt: skip
    for split, count in done.pictures.items():
        print(
            f"{split}: {count:,} pictures, near-duplicates by hash {done.by_hash[split]:,}, by "
            f"cosine {done.by_cosine[split]:,}"
        )
    print(f"{table}: groups")
    dropped = int((~done.found.kept).sum())
    if arguments.drop is not None:
        print(f"{arguments.drop}: without {dropped:,} pictures")
    else:
        print(f"nothing dropped ({dropped:,} pictures could be: --drop)")


def _add_split(commands: Commands) -> None:
    split = commands.add_parser(
        "split", help="divide a corpus into train, val and test, and measure what leaks between"
    )
    split.add_argument("corpus", type=Path, help="corpus directory")
    split.add_argument("--out", type=Path, required=True, help="corpus directory to make")
    split.add_argument(
        "--how", choices=("random", "group"), required=True,
        help="random: utterances, as CVCL did; group: whole recordings, without leaks",
    )  # fmt: skip
    split.add_argument(
        "--shares", nargs="+", metavar="SPLIT=SHARE",
        default=["train=0.9", "val=0.05", "test=0.05"],
        help="splits and their shares (default train=0.9 val=0.05 test=0.05, as published)",
    )  # fmt: skip
    split.add_argument("--seed", type=int, default=0, help="of the shuffle (0)")
    split.add_argument(
        "--together", type=Path, metavar="TABLE",
        help="with --how group: keep near-duplicates that `duplicates` found on one side too",
    )  # fmt: skip
    _add_limits(split)
    add_scorer(split, required=False)
    add_stores(split)
    _add_naming(split)
    split.set_defaults(run=_split)


def _split(arguments: argparse.Namespace) -> None:
    from dataprep.similarity.embed import stores_of
    from dataprep.similarity.leaks import leak_table
    from dataprep.similarity.resplit import split_corpus
    from dataprep.similarity.splits import read_groups
    from engine import read_corpus

    corpus = read_corpus(arguments.corpus)
    together = None
    if arguments.together is not None:
        if arguments.how != "group":
            raise ValueError("--together: only with --how group")
        together = read_groups(arguments.together, corpus)
    leaks, counts = split_corpus(
        corpus, arguments.out, arguments.how, stores=arguments.stores or stores_of(corpus),
        shares=dict(_share(text) for text in arguments.shares), seed=arguments.seed,
        scorer=_optional(arguments), together=together, hamming=arguments.hamming,
        cosine=arguments.cosine, name=arguments.name, batch_size=arguments.batch_size,
        force=arguments.force,
    )  # fmt: skip
    print(leak_table(leaks))
    parts = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    print(f"{arguments.out}: split by {arguments.how}: {parts} pictures")


def describe(scorer: Any) -> str:
    """A line that names a scorer and what its thresholds hang on."""
    activation = scorer.facts.get("activation")
    return f"scorer: {scorer.name}{f', {activation}' if activation else ''}, {scorer.hash[:12]}"


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hamming", type=int, default=4, help="bits of 64 in which near-duplicates may differ (4)"
    )
    parser.add_argument(
        "--cosine", type=float, default=0.95,
        help="with --scorer: pictures of a cosine above it are near-duplicates (0.95)",
    )  # fmt: skip


def _add_naming(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", help="name of the corpus made")
    parser.add_argument("--force", action="store_true", help="replace an existing corpus")


def _optional(arguments: argparse.Namespace) -> Any:
    from dataprep.similarity.scorers import open_scorer

    if arguments.scorer is None:
        return None
    scorer = open_scorer(arguments.scorer, arguments.device)
    print(describe(scorer))
    return scorer


def _share(text: str) -> tuple[str, float]:
    name, equals, share = text.partition("=")
    try:
        if name and equals:
            return name, float(share)
    except ValueError:
        pass
    raise ValueError(f"--shares {text}: accepted: SPLIT=SHARE, for example val=0.05")

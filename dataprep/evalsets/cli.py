"""Commands: ``build labeled|two-word|winoground|captions``, ``review``, ``apply-review``,
``prune``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dataprep.evalsets.evalset import TASKS, Finished

if TYPE_CHECKING:
    from dataprep.evalsets.asking import Ask

_Parser = argparse.ArgumentParser


def _out(parser: _Parser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder of the evaluation set")
    parser.add_argument("--seed", type=int, default=0, help="everything drawn by lot depends on it")
    parser.add_argument("--force", action="store_true", help="make a finished set anew")


def _corpus(parser: _Parser) -> None:
    parser.add_argument("--corpus", type=Path, required=True, help="corpus directory")
    parser.add_argument("--split", default="test", help="held-out split (default: test)")
    parser.add_argument(
        "--pictures-from", type=Path,
        help="folder that holds every frame under its key: nothing is copied, the tables name "
        "these files",
    )  # fmt: skip
    _allow(parser)


def _allow(parser: _Parser) -> None:
    parser.add_argument(
        "--allow-restricted", action="store_true",
        help="let words and frames of restricted sources go to the language model and into the set",
    )  # fmt: skip


def _llm(parser: _Parser) -> None:
    parser.add_argument("--model", default="gpt-4o-2024-08-06", help="the language model's name")
    parser.add_argument(
        "--backend", default="openai-batch",
        help="openai-batch, openai, replay, or the URL of a compatible server (default: "
        "openai-batch)",
    )  # fmt: skip
    parser.add_argument(
        "--store", type=Path, help="folder of paid answers (default: OUT with .requests behind it)"
    )


@contextmanager
def _asking(arguments: argparse.Namespace) -> Iterator[Ask]:
    from dataprep.evalsets.standin import RULES
    from dataprep.llm import RequestStore, answer
    from dataprep.llm.backends import open_backend

    out: Path = arguments.out
    store_path = arguments.store or out.with_name(f"{out.name}.requests")
    with (
        RequestStore(store_path) as store,
        open_backend(arguments.backend, rules=dict(RULES)) as backend,
    ):
        yield lambda requests: answer(requests, store, backend)


def _report(out: Path, done: Finished) -> None:
    for line in done.lines:
        print(line)
    counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in done.counts.items())
    print(f"{out}: {counts}; run it with `python -m benchmarks_eval` on {out / TASKS}")


def _labeled(arguments: argparse.Namespace) -> None:
    from dataprep.evalsets.build import build_labeled

    done = build_labeled(
        arguments.images, arguments.out, per_category=arguments.per_category, seed=arguments.seed,
        mirrored=arguments.mirrored, exclude=arguments.exclude, licence=arguments.licence,
        restricted=not arguments.open, force=arguments.force,
    )  # fmt: skip
    _report(arguments.out, done)


def _two_word(arguments: argparse.Namespace) -> None:
    from dataprep.evalsets.build import build_two_word
    from dataprep.evalsets.words import read_synonyms, read_vocabulary, vocabulary_of
    from dataprep.similarity.scorers import open_scorer
    from engine import read_corpus

    corpus = read_corpus(arguments.corpus)
    if arguments.min_margin is not None and not arguments.scorer:
        raise ValueError("--min-margin needs --scorer, which measures the margin")
    if arguments.any_word:
        vocabulary = None
    elif arguments.vocabulary:
        vocabulary = read_vocabulary(arguments.vocabulary)
    else:
        said = (text for split in arguments.train for text in corpus.pairs(split).utterance)
        vocabulary = vocabulary_of(said, arguments.min_count)
    with _asking(arguments) as ask:
        done = build_two_word(
            corpus, arguments.split, arguments.out, ask, model=arguments.model,
            vocabulary=vocabulary, synonyms=read_synonyms(arguments.synonyms),
            per_utterance=arguments.per_utterance, per_picture=arguments.per_picture,
            limit=arguments.limit, seed=arguments.seed,
            prune=not arguments.no_prune, with_images=arguments.with_images,
            scorer=open_scorer(arguments.scorer) if arguments.scorer else None,
            min_margin=arguments.min_margin, pictures_from=arguments.pictures_from,
            allow_restricted=arguments.allow_restricted, force=arguments.force,
        )  # fmt: skip
    _report(arguments.out, done)


def _captions(arguments: argparse.Namespace) -> None:
    from dataprep.evalsets.build import build_captions
    from engine import read_corpus

    done = build_captions(
        read_corpus(arguments.corpus), arguments.split, arguments.out, train=arguments.train,
        near=arguments.near, count=arguments.count, seed=arguments.seed,
        pictures_from=arguments.pictures_from, allow_restricted=arguments.allow_restricted,
        force=arguments.force,
    )  # fmt: skip
    _report(arguments.out, done)


def _winoground(arguments: argparse.Namespace) -> None:
    from dataprep.evalsets.build import build_winoground
    from dataprep.evalsets.candidates import Candidates
    from dataprep.evalsets.diffusion import Painter, Settings
    from dataprep.similarity.scorers import open_scorer

    settings = Settings(
        mode=arguments.mode, steps=arguments.steps, guidance=arguments.guidance,
        strength=arguments.strength, size=arguments.size, batch_size=arguments.batch_size,
        dtype=arguments.dtype, avoid=arguments.avoid,
    )  # fmt: skip
    settings.check()
    scorer = open_scorer(arguments.scorer)

    def paint(folder: Path) -> Candidates:
        painter = Painter(arguments.weights, settings, device=arguments.device)
        return Candidates(folder, painter, arguments.attempts, arguments.seed)

    with _asking(arguments) as ask:
        done = build_winoground(
            arguments.two_word, arguments.out, ask, paint, scorer, model=arguments.model,
            min_margin=arguments.min_margin, seed=arguments.seed, limit=arguments.limit,
            allow_restricted=arguments.allow_restricted, force=arguments.force,
        )  # fmt: skip
    _report(arguments.out, done)


def _review(arguments: argparse.Namespace) -> None:
    from dataprep.evalsets.review import write_page

    print(f"{write_page(arguments.set)}: open it in a browser")


def _apply(arguments: argparse.Namespace) -> None:
    from dataprep.evalsets.review import apply_review

    done = apply_review(
        arguments.set, arguments.decisions, reviewer=arguments.reviewer,
        unreviewed=arguments.unreviewed,
    )  # fmt: skip
    _report(arguments.set, done)


def _prune(arguments: argparse.Namespace) -> None:
    from dataprep.benchmarks.two_word import HEADER
    from dataprep.evalsets.files import csv_text, read_csv
    from dataprep.evalsets.pruning import prune
    from dataprep.files import write_whole

    rows = [row for _, row in read_csv(arguments.csv, HEADER)]
    pruning = prune([(r[HEADER[1]], r[HEADER[2]]) for r in rows], seed=arguments.seed)
    if arguments.out:
        kept = [r for r, stays in zip(rows, pruning.keep, strict=True) if stays]
        header = list(rows[0]) if rows else list(HEADER)
        write_whole(arguments.out, csv_text(header, [[r[h] for h in header] for r in kept]))
    for line in pruning.lines():
        print(line)


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add this package's commands."""
    build = commands.add_parser("build", help="make an evaluation set")
    kinds = build.add_subparsers(dest="kind", required=True)
    _add_labeled(kinds)
    _add_two_word(kinds)
    _add_winoground(kinds)
    _add_captions(kinds)

    review = commands.add_parser("review", help="write the page on which a set is reviewed")
    review.add_argument("--set", type=Path, required=True, help="folder of the evaluation set")
    review.set_defaults(run=_review)

    apply = commands.add_parser("apply-review", help="take a review's decisions over into a set")
    apply.add_argument("--set", type=Path, required=True, help="folder of the evaluation set")
    apply.add_argument("--decisions", type=Path, required=True, help="CSV that the page saved")
    apply.add_argument("--reviewer", default="", help="who decided, where the CSV does not say")
    apply.add_argument(
        "--unreviewed", choices=("drop", "keep"), default="drop",
        help="what becomes of candidates without a decision (default: drop)",
    )  # fmt: skip
    apply.set_defaults(run=_apply)

    prune = commands.add_parser(
        "prune", help="prune any two-word CSV until no phrase-only model beats chance"
    )
    prune.add_argument("--csv", type=Path, required=True, help="table in the official layout")
    prune.add_argument("--out", type=Path, help="where the pruned table goes")
    prune.add_argument("--seed", type=int, default=0, help="seed of folds and lots")
    prune.set_defaults(run=_prune)


def _add_labeled(kinds: argparse._SubParsersAction) -> None:
    from dataprep.evalsets.labeled import EXCLUDED, PER_CATEGORY

    parser = kinds.add_parser("labeled", help="one word, four pictures, from category folders")
    _out(parser)
    parser.add_argument("--images", type=Path, required=True, help="one folder a category")
    parser.add_argument(
        "--per-category", type=int, default=PER_CATEGORY, help="trials a category (published: 100)"
    )
    parser.add_argument(
        "--exclude", nargs="*", default=EXCLUDED,
        help=f"folders to leave out (published: {' '.join(EXCLUDED)})",
    )  # fmt: skip
    parser.add_argument(
        "--mirrored", action="store_true",
        help="four pictures make four trials, each the target once: no taste for pictures helps "
        "(published trials are not)",
    )  # fmt: skip
    parser.add_argument("--licence", default="", help="licence of the pictures, for the records")
    parser.add_argument("--open", action="store_true", help="the pictures may be shown to others")
    parser.set_defaults(run=_labeled)


def _add_two_word(kinds: argparse._SubParsersAction) -> None:
    from dataprep.evalsets.words import MIN_COUNT

    parser = kinds.add_parser("two-word", help="one picture, two phrases of two words")
    _out(parser)
    _corpus(parser)
    _llm(parser)
    parser.add_argument(
        "--train", nargs="+", default=["train"], help="splits whose words are known"
    )
    parser.add_argument(
        "--min-count", type=int, default=MIN_COUNT,
        help=f"how often a word must be said to be known (published vocabulary: {MIN_COUNT})",
    )  # fmt: skip
    parser.add_argument("--vocabulary", type=Path, help="vocab.json or a list of known words")
    parser.add_argument("--any-word", action="store_true", help="no vocabulary at all")
    parser.add_argument("--synonyms", type=Path, help="more groups of words that are no contrast")
    parser.add_argument(
        "--per-utterance", type=int, default=1, help="most frames of one utterance (default: 1)"
    )
    parser.add_argument(
        "--per-picture", type=int, default=1, help="most utterances of one frame (default: 1)"
    )
    parser.add_argument("--limit", type=int, help="most frames in all")
    parser.add_argument("--with-images", action="store_true", help="send the pictures along")
    parser.add_argument("--scorer", help="similarity model that measures margins")
    parser.add_argument("--min-margin", type=float, help="least margin of a candidate")
    parser.add_argument("--no-prune", action="store_true", help="keep what phrases give away")
    parser.set_defaults(run=_two_word)


def _add_winoground(kinds: argparse._SubParsersAction) -> None:
    from dataprep.evalsets.diffusion import MODES, Settings
    from dataprep.evalsets.winoground import ATTEMPTS

    usual = Settings()
    parser = kinds.add_parser("winoground", help="two pictures, two phrases; negatives generated")
    _out(parser)
    _llm(parser)
    _allow(parser)
    parser.add_argument("--two-word", type=Path, required=True, help="a finished two-word set")
    parser.add_argument(
        "--weights", type=Path, required=True, help="local folder of a StableDiffusion3Pipeline"
    )
    parser.add_argument("--scorer", required=True, help="similarity model that ranks candidates")
    parser.add_argument("--mode", choices=MODES, default=usual.mode, help="how negatives are made")
    parser.add_argument("--attempts", type=int, default=ATTEMPTS, help="candidates a picture")
    parser.add_argument(
        "--min-margin", type=float, default=0.0, help="least margin of the best negative"
    )
    parser.add_argument("--steps", type=int, default=usual.steps, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=usual.guidance, help="guidance scale")
    parser.add_argument("--strength", type=float, default=usual.strength, help="of editing, to 1")
    parser.add_argument("--size", type=int, default=usual.size, help="side in pixels")
    parser.add_argument("--batch-size", type=int, default=usual.batch_size, help="at a time")
    parser.add_argument("--dtype", default=usual.dtype, help="float32, float16, bfloat16")
    parser.add_argument("--avoid", default=usual.avoid, help="the negative prompt")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--limit", type=int, help="most instances")
    parser.set_defaults(run=_winoground)


def _add_captions(kinds: argparse._SubParsersAction) -> None:
    from dataprep.evalsets.captions import COUNT

    parser = kinds.add_parser("captions", help="one picture, one utterance new to training")
    _out(parser)
    _corpus(parser)
    parser.add_argument("--train", nargs="+", default=["train"], help="splits to compare with")
    parser.add_argument(
        "--near", type=float, default=1.0,
        help="share of common words from which a caption repeats training's (default 1: the same "
        "words; 2: off)",
    )  # fmt: skip
    parser.add_argument("--count", type=int, default=COUNT, help=f"captions (published: {COUNT})")
    parser.set_defaults(run=_captions)

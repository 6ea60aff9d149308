"""``python -m dataprep rewrite``."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path

from dataprep.llm.backends import NAMES, check_spec, open_backend
from dataprep.llm.store import RequestStore
from dataprep.rewrite.estimate import estimate
from dataprep.rewrite.rows import Rows
from dataprep.rewrite.run import Job, ask, report, write
from dataprep.rewrite.stand_in import RULES
from dataprep.rewrite.template import SHIPPED, load_template
from dataprep.sources.cli import GENERAL, ingest
from engine import read_corpus

PUBLISHED_MODEL = "gpt-4o"
STAND_IN = "stand-in"


def _model(arguments: argparse.Namespace) -> str:
    """The model's name: GPT-4o where OpenAI is asked, the stand-in's own, else to be given."""
    check_spec(arguments.backend)
    if arguments.backend == STAND_IN:
        if arguments.model not in (None, STAND_IN):
            raise ValueError(f"--model {arguments.model}: the stand-in backend has no such model")
        return STAND_IN
    if arguments.model is None and arguments.backend in ("openai", "openai-batch"):
        return PUBLISHED_MODEL
    if arguments.model is None:
        raise ValueError(f"--backend {arguments.backend} needs --model, as the server calls it")
    return arguments.model


def _corpus(arguments: argparse.Namespace) -> Path:
    """The corpus to rewrite; raw pictures are ingested first, once."""
    if (arguments.corpus is None) == (arguments.rows is None):
        raise ValueError("--corpus or --rows is needed, and one of them only")
    if arguments.corpus is not None:
        return arguments.corpus
    out: Path = arguments.out.with_name(f"{arguments.out.name}.source")
    if not (out / "corpus.json").is_file():
        whose = {"source": arguments.source, "licence": arguments.licence}
        options = [f"--{name}={value}" for name, value in whose.items() if value is not None]
        options += [] if arguments.pictures is None else [f"--pictures={arguments.pictures}"]
        options += ["--quiet"] if arguments.quiet else []
        print(f"{out}: the pictures as a corpus")
        ingest([f"--kind={arguments.kind}", "--rows", *arguments.rows, f"--out={out}", *options])
    return out


def _check_out(out: Path, force: bool) -> None:
    if out.exists() and not force:
        raise ValueError(f"{out} exists already; --force replaces it")
    if out.exists() and not (out / "corpus.json").is_file():
        raise ValueError(f"{out} is not a corpus (no corpus.json); --force replaces only corpora")


def run(arguments: argparse.Namespace) -> None:
    """Rewrite, or say what it would cost."""
    model = _model(arguments)
    if (arguments.price_in is None) != (arguments.price_out is None):
        raise ValueError("--price-in and --price-out go together")
    template = load_template(arguments.template)
    corpus = read_corpus(_corpus(arguments))
    splits = tuple(name for name in (arguments.splits or "").split(",") if name)
    rows = Rows(corpus, splits, arguments.limit)
    out: Path = arguments.out
    job = Job(corpus, rows, template, model, arguments.seed, out.name)
    folder: Path = arguments.store or out.with_name(f"{out.name}.requests")
    if arguments.dry_run:
        known = (folder / "store.json").is_file()
        with RequestStore(folder) if known else nullcontext() as store:
            found = estimate(job.requests, len(rows), store, model)
        print("\n".join(found.lines(arguments.price_in, arguments.price_out)))
        return
    if not arguments.force and job.is_done(out):
        print(f"{out}: there already, from the same corpus, template, model, seed and code")
        return
    _check_out(out, arguments.force)
    progress = not arguments.quiet
    with (
        open_backend(
            arguments.backend, concurrency=arguments.concurrency,
            enforced=arguments.schema == "enforced", forget_lost=arguments.forget_lost,
            rules=RULES,
        ) as backend,
        RequestStore(folder) as store,
    ):  # fmt: skip
        if store.dropped_bytes:
            print(f"{folder}: a half-written last line ({store.dropped_bytes} bytes) was cut off",
                  file=sys.stderr)  # fmt: skip
        try:
            summary = ask(
                job, store, backend, allow_failures=arguments.allow_failures, progress=progress
            )
            written = write(job, store, summary, out, overwrite=arguments.force, progress=progress)
        except KeyboardInterrupt:
            print(
                f"error: interrupted; {len(store)} answers are kept in {folder}: run the same "
                "command again to go on", file=sys.stderr,
            )  # fmt: skip
            raise SystemExit(130) from None
        print("\n".join(report(written, summary, store, out)))


def add_commands(commands: argparse._SubParsersAction) -> None:
    """Add ``rewrite``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "rewrite",
        help="captions of general pictures into child-directed speech, by a language model",
        description="For every caption: does it describe what a small child sees in daily life, "
        "and if so one short utterance spoken to a two-year-old. Every answer is kept in a "
        "request store as soon as it comes: killed or stopped, the same command goes on where it "
        "was. The key is read from OPENAI_API_KEY only. The published model is GPT-4o; the "
        "paper's exact prompt is not published, the shipped template is ours.",
    )
    add = parser.add_argument
    add("--corpus", type=Path, help="corpus of general pictures with captions")
    add("--out", type=Path, required=True, help="corpus to make: kept pictures, new utterances")
    add("--backend", required=True, help=f"who answers: {NAMES}".replace("%", "%%"))
    add("--model", help=f"model (with OpenAI default {PUBLISHED_MODEL}; prefer a dated snapshot)")
    add("--template", type=Path, help=f"template file (default: the shipped {SHIPPED})")
    add("--store", type=Path, help="folder of the request store (default: OUT.requests)")
    add("--splits", help="comma-separated splits to rewrite (default: all)")
    add("--limit", type=int, help="only the first so many rows")
    add("--seed", type=int, default=0, help="sent with every request (default %(default)s)")
    add("--concurrency", type=int, default=16,
        help="requests under way at a time, one by one (default %(default)s)")  # fmt: skip
    add("--schema", choices=("enforced", "unenforced"), default="enforced",
        help="have the server enforce the answer's schema, or only check it here "
        "(default %(default)s)")  # fmt: skip
    add("--dry-run", action="store_true", help="send nothing: print requests, tokens, price bound")
    add("--price-in", type=float, help="price of a million tokens sent, as you pay it (OpenAI's "
        "batches cost half the listed price)")  # fmt: skip
    add("--price-out", type=float, help="price of a million tokens received")
    add("--allow-failures", action="store_true",
        help="write the corpus although requests are left without an answer")  # fmt: skip
    add("--forget-lost", action="store_true",
        help="send requests again whose batch the server does not know any more (they may have "
        "been paid)")  # fmt: skip
    add("--force", action="store_true", help="replace an existing corpus at OUT")
    add("--quiet", action="store_true", help="no progress bars")
    raw = parser.add_argument_group(
        "raw pictures instead of --corpus", "ingested first into OUT.source; other settings of "
        "`ingest` need a corpus that it made",
    )  # fmt: skip
    add = raw.add_argument
    add("--kind", choices=GENERAL, default=GENERAL[0], help="layout (default %(default)s)")
    add("--rows", nargs="+", metavar="[SPLIT=]PATH", help="as `ingest` takes them")
    add("--pictures", type=Path, help="folder or zip of the pictures, read in place")
    add("--source", help="name of the source (llava: llava-pretrain)")
    add("--licence", help="its licence; needed for csv, tsv and webdataset")
    parser.set_defaults(run=run)

"""``python -m dataprep ingest`` and ``bench-frames``: the commands of this package."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dataprep.sources.splits import RULES

__all__ = ["GENERAL", "add_commands", "ingest"]

GENERAL = ("llava", "csv", "tsv", "webdataset")
KINDS = ("saycam", "cvcl", *GENERAL)
_EXAMPLES = """
SAYCam from Databrary:   ingest --kind saycam --pictures VIDEOS --rows TRANSCRIPTS --out CORPUS
CVCL's frames:           ingest --kind cvcl --pictures frames.txt --rows METADATA --out CORPUS
LLaVA's pretraining set: ingest --kind llava --pictures images.zip \\
                                --rows blip_laion_cc_sbu_558k.json --out POOL
BabyVLM's CSVs:          ingest --kind csv --pictures FRAMES --rows val=val.csv test=test.csv \\
                                --source saycam --licence restricted --out CORPUS
WebDataset shards:       ingest --kind webdataset --rows shards/*.tar --source cc12m \\
                                --licence CC-BY-4.0 --out POOL
"""


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to ``python -m dataprep``."""
    ingest = commands.add_parser(
        "ingest", help="files as their owners hold them, into a corpus",
        description="Read videos, frames or captioned pictures into a corpus.",
        epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    _ingest_arguments(ingest)
    ingest.set_defaults(run=_ingest)
    bench = commands.add_parser(
        "bench-frames",
        help="speed of taking frames from a video, against a seek for every time stamp",
    )
    bench.add_argument("--video", type=Path, help="a video (by default one is made: 640x480 H.264)")
    bench.add_argument("--minutes", type=float, default=3.0, help="length of the video made (3)")
    bench.add_argument("--group", type=int, default=250, help="its frames a keyframe (250)")
    bench.add_argument(
        "--per-minute", type=float, nargs="+", default=[20.0], help="time stamps a minute (20)"
    )
    bench.add_argument("--repeats", type=int, default=5, help="runs of each; the median counts (5)")
    bench.add_argument("--seed", type=int, default=0, help="of the time stamps")
    bench.set_defaults(run=_bench)


def _ingest_arguments(parser: argparse.ArgumentParser) -> None:
    add: Any = parser.add_argument
    add("--kind", required=True, choices=KINDS, help="layout of the files")
    add("--rows", required=True, nargs="+", metavar="[SPLIT=]PATH",
        help="what is said: folder of transcripts (saycam) or of train/val/test.json (cvcl); "
        "JSON, CSV, TSV or tar files otherwise, each in a split of its own if one is named")
    add("--pictures", type=Path,
        help="folder of videos (saycam); folder or zip of pictures, read in place (others; by "
        "default the folder of the rows)")
    add("--out", type=Path, required=True, help="corpus directory to make")
    add("--image-size", type=int, default=224, help="side of the pictures in pixels (224)")
    add("--split", choices=["files", *RULES],
        help="random: 90/5/5 %% by utterance (published; by picture for general ones); recording: "
        "by recording, without a leak; train: all train; files: as the metadata says. Default: "
        "random for saycam, files for cvcl, train for others")
    add("--seed", type=int, default=0, help="of the split (0)")
    add("--workers", type=int, help="videos or pictures at a time (one a processor)")
    add("--force", action="store_true", help="replace an existing corpus")
    add("--quiet", action="store_true", help="no progress bar")
    whose = parser.add_argument_group("whose they are (cvcl: always SAYCam)")
    add = whose.add_argument
    add("--source", help="name of the source (saycam: saycam; llava: llava-pretrain)")
    add("--licence", help="its licence; needed for csv, tsv and webdataset, and with --source for "
        "saycam")
    add("--url", default="", help="where it comes from")
    general = parser.add_argument_group("general pictures")
    add = general.add_argument
    add("--fit", choices=["pad", "crop", "stretch"], default="pad",
        help="how a picture becomes square (pad, as published)")
    add("--columns", help="csv: IMAGE,TEXT names of the columns (image,text); tsv without a "
        "header: their order (text,image)")
    add("--limit", type=int, help="only the first rows of every file")
    child = parser.add_argument_group("videos and frames of SAYCam (defaults: published values)")
    add = child.add_argument
    add("--fps", type=float, default=5.0, help="frames a second of an utterance (5)")
    add("--max-frames", type=int, default=32, help="most frames of an utterance (32)")
    add("--every", type=int, default=5,
        help="keep every n-th of them (5: one a second, BabyVLM's; 1: all, CVCL's)")
    add("--speakers", help="spellings of the speakers to keep, commas between (the published "
        "eight: M,Mom,mom,m,mother,Mother,papa,the mom)")
    add("--splitter", choices=["rules", "spacy"], default="rules",
        help="what parts sentences: spacy (published; needs spaCy and en_core_web_sm) or rules")
    add("--inaudible", default="<unk>", metavar="WORD",
        help="what is written for what could not be heard (<unk>; '' for nothing)")
    add("--shorter-side", type=int, default=256, help="of the frame after resizing (256)")
    add("--crop", type=int, default=224, help="side of the square cut out (224)")
    add("--raise-by", type=int, default=16, help="how far above the centre, in pixels (16)")
    add("--no-turn", action="store_true",
        help="do not turn by 180 degrees (SAYCam's camera hangs upside down)")
    add("--way", choices=["auto", "sequential", "seek"], default="auto",
        help="how videos are read; the frames are the same (auto)")
    add("--skip-unreadable", action="store_true",
        help="list videos that cannot be read as left out instead of stopping")


def ingest(options: list[str]) -> None:
    """Run ``ingest`` with these options, for a command that begins with raw files.

    Raises:
        ValueError, OSError: as the command's own line would say.
    """
    parser = argparse.ArgumentParser("ingest")
    _ingest_arguments(parser)
    _ingest(parser.parse_args(options))


def _ingest(arguments: argparse.Namespace) -> None:
    if arguments.seed < 0 or (arguments.workers is not None and arguments.workers < 1):
        raise ValueError(
            f"--seed {arguments.seed}, --workers {arguments.workers}: accepted are 0 and above, "
            "1 and above"
        )
    common = {
        "seed": arguments.seed, "workers": arguments.workers, "force": arguments.force,
        "progress": not arguments.quiet,
    }  # fmt: skip
    if arguments.kind == "saycam":
        _saycam(arguments, common)
    elif arguments.kind == "cvcl":
        from dataprep.sources.cvcl import ingest_cvcl

        if arguments.source or arguments.licence or arguments.url:
            raise ValueError("--kind cvcl: its frames are SAYCam's: no --source, --licence, --url")
        ingest_cvcl(
            _pictures(arguments), _folder(arguments), arguments.out,
            split=arguments.split or "files", every=arguments.every,
            image_size=arguments.image_size, **common,
        )  # fmt: skip
    else:
        _general(arguments, common)


def _pictures(arguments: argparse.Namespace) -> Path:
    if arguments.pictures is None:
        raise ValueError(f"--kind {arguments.kind} needs --pictures")
    return arguments.pictures


def _folder(arguments: argparse.Namespace) -> Path:
    if len(arguments.rows) != 1:
        raise ValueError(f"--kind {arguments.kind}: --rows takes one folder")
    return Path(arguments.rows[0])


def _saycam(arguments: argparse.Namespace, common: dict[str, Any]) -> None:
    from dataprep.frames.view import View
    from dataprep.sources.saycam import SAYCAM, ingest_saycam
    from dataprep.sources.transcripts import SPEAKERS, Rules
    from engine import Source

    named = bool(arguments.source)
    if named != bool(arguments.licence) or (arguments.url and not named):
        raise ValueError(
            "--kind saycam: --source and --licence go together (with --url where there is one); "
            "without them the recordings are SAYCam's"
        )
    whose = Source(arguments.source, arguments.licence, arguments.url) if named else SAYCAM
    speakers = tuple(arguments.speakers.split(",")) if arguments.speakers else SPEAKERS
    ingest_saycam(
        _pictures(arguments), _folder(arguments), arguments.out, source=whose,
        rules=Rules(
            speakers, arguments.fps, arguments.max_frames, arguments.every, arguments.splitter,
            arguments.inaudible,
        ),
        view=View(
            arguments.shorter_side, arguments.crop, arguments.raise_by, not arguments.no_turn,
            arguments.image_size,
        ),
        split=arguments.split or "random", way=arguments.way,
        skip_unreadable=arguments.skip_unreadable, **common,
    )  # fmt: skip


def _general(arguments: argparse.Namespace, common: dict[str, Any]) -> None:
    from dataclasses import replace

    from dataprep.sources.general import LLAVA, Layout, ingest_general
    from engine import Source

    if arguments.kind == "llava":
        source = replace(
            LLAVA, name=arguments.source or LLAVA.name, licence=arguments.licence or LLAVA.licence,
            url=arguments.url or ("" if arguments.source else LLAVA.url),
            notes="" if arguments.source else LLAVA.notes,
        )  # fmt: skip
    elif not (arguments.source and arguments.licence):
        raise ValueError(f"--kind {arguments.kind} needs --source and --licence")
    else:
        source = Source(arguments.source, arguments.licence, arguments.url)
    columns = tuple(arguments.columns.split(",")) if arguments.columns else None
    if columns is not None and len(columns) != 2:
        raise ValueError(f"--columns {arguments.columns}: accepted are two names with a comma")
    files = []
    for text in arguments.rows:
        split, equals, path = text.partition("=")
        named = bool(equals) and not Path(text).exists()
        files.append((split, Path(path)) if named else ("", Path(text)))
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit {arguments.limit}: accepted are 1 and above")
    ingest_general(
        Layout(arguments.kind, tuple(files), arguments.split or "train", columns),
        arguments.pictures, arguments.out, source=source, image_size=arguments.image_size,
        fit=arguments.fit, limit=arguments.limit, **common,
    )  # fmt: skip


def _bench(arguments: argparse.Namespace) -> None:
    from dataprep.frames.bench import bench

    bench(
        arguments.video, minutes=arguments.minutes, group=arguments.group,
        per_minute=arguments.per_minute, repeats=arguments.repeats, seed=arguments.seed,
    )  # fmt: skip

"""The stages of the demonstration: the command lines that a user would type, in their order."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dataprep.demo.choice import Scale
from dataprep.demo.materials import MANIFEST, make_materials

__all__ = ["POOL_SOURCES", "SOURCE", "Stage", "stages"]

SOURCE = ("tux-films", "GPL-2.0", "https://tuxpaint.org/stamps/")
"""Name, licence and address of the films: of what they show."""
POOL_SOURCES = (
    ("tux-pool", "GPL-2.0", "https://tuxpaint.org/stamps/"),
    ("openmoji-pool", "CC-BY-SA-4.0", "https://openmoji.org"),
)
SCORER = "standin"
MIN_COSINE = 0.2
"""The published threshold. It was chosen for CLIP; what it means for the stand-in is shown."""


@dataclass(frozen=True)
class Stage:
    """One thing that is done.

    Attributes: ``name``, of its log; ``title``, what it does; ``words`` after
    ``python -m dataprep`` (empty for what is no command); ``whole``, files that are there when it
    is done and only then; ``call`` and ``typed``, for what is no command: the function, and how it
    could be typed.
    """

    name: str
    title: str
    words: tuple[str, ...] = ()
    whole: tuple[Path, ...] = ()
    call: Callable[[], object] | None = None
    typed: str = ""

    @property
    def line(self) -> str:
        """The line to type."""
        return self.typed or "python -m dataprep " + shlex.join(self.words)


def _save_tiny(folder: Path) -> None:
    from dataprep.evalsets.tiny import save_tiny_sd3

    save_tiny_sd3(folder)


def stages(out: Path, scale: Scale, seed: int) -> list[Stage]:
    """All of them, with paths below `out`."""
    raw = out / "materials"
    size = ("--image-size", str(scale.image_size))

    def at(*names: str) -> str:
        return str(out.joinpath(*names))

    def command(name: str, title: str, *words: str, whole: str = "") -> Stage:
        return Stage(name, title, words, (out / whole,) if whole else ())

    def corpus(name: str, title: str, makes: str, *words: str) -> Stage:
        return command(name, title, *words, "--out", at(makes), whole=f"{makes}/corpus.json")

    def evalset(name: str, title: str, makes: str, *words: str) -> Stage:
        made = f"{makes}/evalset.json"
        return command(name, title, "build", *words, "--out", at(makes), whole=made)

    llm = ("--backend", "stand-in", "--model", "stand-in")
    name, licence, url = SOURCE
    found = [
        Stage(
            "materials", "films with transcripts, the general pool, category folders",
            whole=(raw / MANIFEST,), call=lambda: make_materials(raw, scale, seed),
            typed=f"python -c 'from pathlib import Path; from dataprep.demo.choice import "
            f"{scale.name.upper()}; from dataprep.demo.materials import make_materials; "
            f"make_materials(Path(\"{raw}\"), {scale.name.upper()}, {seed})'",
        ),
        corpus(
            "ingest-films", "videos and transcripts: speech rules, frames at the times of words",
            "frames", "ingest", "--kind", "saycam", "--pictures", str(raw / "films"), "--rows",
            str(raw / "transcripts"), "--source", name, "--licence", licence, "--url", url,
            "--split", "train", *size, "--quiet",
        ),
        command(
            "embed", "frames and utterances as vectors", "embed", at("frames"), "--scorer", SCORER,
        ),
        corpus(
            "filter", "pairs whose picture and words are alike", "filtered", "filter",
            at("frames"), "--threshold", str(MIN_COSINE), "--scorer", SCORER,
        ),
        command(
            "duplicates", "near-duplicates: neighbours in a film, written down", "duplicates",
            at("filtered"), "--out", at("filtered.duplicates.parquet"),
            whole="filtered.duplicates.parquet",
        ),
        corpus(
            "split", "train, val and test by recording; the leaks between them measured", "child",
            "split", at("filtered"), "--how", "group", "--together",
            at("filtered.duplicates.parquet"), "--shares", "train=0.6", "val=0.1", "test=0.3",
            "--seed", str(seed), "--name", "child",
        ),
    ]  # fmt: skip
    pools = []
    for kind, rows, pictures, (pool, terms, place) in (
        ("stamps", "stamps.json", "stamps", POOL_SOURCES[0]),
        ("emoji", "emoji.json", "emoji.zip", POOL_SOURCES[1]),
    ):
        pools.append(at(f"pool-{kind}"))
        found.append(
            corpus(
                f"ingest-{kind}",
                "general pictures from a folder, dead rows counted" if kind == "stamps"
                else "general pictures from a zip, read in place",
                f"pool-{kind}", "ingest", "--kind", "llava", "--rows", str(raw / "pool" / rows),
                "--pictures", str(raw / "pool" / pictures), "--source", pool, "--licence", terms,
                "--url", place, *size, "--quiet",
            )
        )  # fmt: skip
    found += [
        corpus(
            "pool", "the general pool", "pool", "merge", *pools, "--name", "pool", "--quiet",
        ),
        corpus(
            "rewrite", "captions into child-directed speech, over OpenAI's protocol",
            "spoken", "rewrite", "--corpus", at("pool"), "--backend", "stand-in", "--quiet",
        ),
        corpus(
            "match", "for every frame a different picture, most alike in all, proven and verified",
            "transferred", "match", at("child"), at("spoken"), "--scorer", SCORER, "--verify",
            "--sheet", at("matched.png"),
        ),
        corpus(
            "mix", "the mixed corpus", "mixed", "merge", at("child"), at("transferred"), "--name",
            "mixed", "--quiet",
        ),
        evalset(
            "two-word", "two phrases for a picture; pruned against phrase-only models", "two-word",
            "two-word", "--corpus", at("mixed"), "--split", "test", "--vocabulary",
            str(raw / "vocabulary.txt"), "--per-picture", "2", *llm, "--scorer", SCORER, "--seed",
            str(seed),
        ),
        Stage(
            "tiny-sd3", "a tiny Stable Diffusion 3 with random weights",
            whole=(out / "tiny-sd3" / "model_index.json",),
            call=lambda: _save_tiny(out / "tiny-sd3"),
            typed="python -c 'from pathlib import Path; from dataprep.evalsets.tiny import "
            f"save_tiny_sd3; save_tiny_sd3(Path(\"{out / 'tiny-sd3'}\"))'",
        ),
        evalset(
            "winoground", "a generated picture for the wrong phrase (here: noise)", "winoground",
            "winoground", "--two-word", at("two-word"), "--weights", at("tiny-sd3"), *llm,
            "--scorer", SCORER, "--steps", "2", "--size", "64", "--min-margin", "-1",
            "--limit", str(scale.instances), "--device", "cpu", "--seed", str(seed),
        ),
        evalset(
            "labeled", "one word, four pictures, from category folders", "labeled", "labeled",
            "--images", str(raw / "labels"), "--per-category", "4", "--mirrored", "--licence",
            licence, "--open", "--seed", str(seed),
        ),
        evalset(
            "captions", "utterances that training never says", "captions", "captions",
            "--corpus", at("mixed"), "--split", "test", "--seed", str(seed),
        ),
        *(
            command(
                f"review-{kind}", "the page on which the set is reviewed", "review", "--set",
                at(kind), whole=f"{kind}/review.html",
            )
            for kind in ("two-word", "winoground")
        ),
        command("document", "Croissant and datasheet", "document", "--corpus", at("mixed")),
        command(
            "document-set", "Croissant and datasheet of a set", "document", "--set", at("two-word"),
        ),
        command("validate", "files, hashes, pictures, leaks", "validate", at("mixed"), "--quiet"),
        command(
            "sheet", "what is in the mixed corpus", "inspect", at("mixed"), "--samples", "2",
            "--sheet", at("mixed.png"), "--seed", str(seed), whole="mixed.png",
        ),
    ]  # fmt: skip
    return found

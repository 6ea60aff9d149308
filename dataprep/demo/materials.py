"""The raw files of the demonstration, as their owners would hold them: films, transcripts, pool.

films/NAME.mp4  transcripts/NAME.csv      in SAYCam's layout
pool/stamps/  pool/stamps.json            a folder of pictures with LLaVA's JSON
pool/emoji.zip  pool/emoji.json           a zip of pictures, likewise
vocabulary.txt                            words that the child is taken to know
labels/CATEGORY/                          pictures of a category, for labelled trials
materials.json                            what is shown when; written last
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataprep.demo.choice import Scale, choose, file_name
from dataprep.demo.film import FPS, HEIGHT, SIDE, WIDTH, Scene, length_s, shoot
from dataprep.demo.pool import DEAD, write_emoji, write_stamps
from dataprep.demo.speech import lines, write_transcript
from dataprep.evalsets.standin import QUALITIES, THINGS, VERBS
from dataprep.files import write_whole
from dataprep.picturebook.book import collect
from dataprep.picturebook.colours import COLOURS
from dataprep.picturebook.drawings import Drawing, Rendered
from dataprep.picturebook.render import render, render_all

__all__ = ["MANIFEST", "make_materials", "scenes_of", "stem_of"]

MANIFEST = "materials.json"
POOL_SIDE = 192
"""Side of the pool's pictures in pixels."""


def stem_of(number: int) -> str:
    """Name of a film, in the form of SAYCam's: child, date, age and part (T for Tux)."""
    return f"T_202601{number + 1:02}_12{number + 1:02}_01"


def scenes_of(drawings: Sequence[Drawing], number: int, seed: int) -> list[Scene]:
    """Photographs one after the other, each for three to six seconds.

    Raises:
        ValueError: a photograph cannot be drawn.
    """
    rng = np.random.default_rng([seed, 67, number])
    found: list[Scene] = []
    begin_s = 0
    for drawing in drawings:
        rendered, problems = render((drawing, SIDE))
        if rendered is None:
            raise ValueError(problems[-1])
        end_s = begin_s + int(rng.integers(3, 7))
        found.append(Scene(rendered, begin_s, end_s))
        begin_s = end_s
    return found


def make_materials(folder: Path, scale: Scale, seed: int) -> None:
    """Make what is not there yet: films one by one, each of the pool's two sets, the rest.

    A folder with its manifest is whole. What a killed run left is not made again.

    Raises:
        ValueError: a package is missing.
    """
    if (folder / MANIFEST).is_file():
        return
    chosen = choose(scale, seed)
    films = {
        stem_of(number): _film(folder, number, drawings, seed)
        for number, drawings in enumerate(chosen.films)
    }
    pool = folder / "pool"
    if not (pool / "stamps.json").is_file():
        write_stamps(pool / "stamps", pool / "stamps.json", _drawn(chosen.stamps), seed)
    if not (pool / "emoji.json").is_file():
        write_emoji(pool / "emoji.zip", pool / "emoji.json", _drawn(chosen.emoji), seed)
    rows = {
        name: len(json.loads((pool / f"{name}.json").read_text())) for name in ("stamps", "emoji")
    }
    rows["stamps"] -= len(DEAD)
    print(
        f"pool: {rows['stamps']} stamps (and {len(DEAD)} dead rows), {rows['emoji']} drawings by "
        "OpenMoji"
    )
    for category, drawings in chosen.labels.items():
        for one in _drawn(drawings):
            out = io.BytesIO()
            Image.fromarray(one.picture).save(out, "JPEG", quality=92)
            write_whole(
                folder / "labels" / category / f"{file_name(one.drawing)}.jpg", out.getvalue()
            )
    write_whole(folder / "vocabulary.txt", "\n".join(_vocabulary()) + "\n")
    facts = {
        "seed": seed, "scale": asdict(scale), "fps": FPS, "width": WIDTH, "height": HEIGHT,
        "films": films, **rows, "dead_rows": len(DEAD),
        "labels": {name: len(found) for name, found in chosen.labels.items()},
    }  # fmt: skip
    write_whole(folder / MANIFEST, json.dumps(facts, indent=1) + "\n")


def _film(
    folder: Path, number: int, drawings: Sequence[Drawing], seed: int
) -> list[dict[str, Any]]:
    """Make a film and its transcript where they are not; what is shown when."""
    stem = stem_of(number)
    film, transcript = folder / "films" / f"{stem}.mp4", folder / "transcripts" / f"{stem}.csv"
    scenes = scenes_of(drawings, number, seed)
    if not film.is_file():
        shoot(film, scenes, seed=seed + number)
    if not transcript.is_file():
        write_transcript(transcript, lines(scenes, seed + number), seed + number)
    print(f"{stem}.mp4: {len(scenes)} photographs, {length_s(scenes)} s")
    return [
        {
            "begin_s": scene.begin_s, "end_s": scene.end_s,
            "stamp": scene.rendered.drawing.key, "noun": scene.rendered.drawing.noun,
        }
        for scene in scenes
    ]  # fmt: skip


def _vocabulary() -> list[str]:
    """The nouns and colours of the picture book, and the stand-in's words, sorted.

    Films are few: most of what a held-out one shows is named in no other.
    """
    words = {word for drawing in collect() for word in drawing.noun.split()}
    words |= {*COLOURS, *VERBS, *THINGS, "see", *(word for pair in QUALITIES for word in pair)}
    return sorted(words)


def _drawn(drawings: Sequence[Drawing]) -> list[Rendered]:
    """Drawings that can be drawn; few of them in this process, many in two others."""
    if len(drawings) > 100:
        return render_all(drawings, POOL_SIDE, 2).rendered
    return [made for made, _ in (render((one, POOL_SIDE)) for one in drawings) if made is not None]

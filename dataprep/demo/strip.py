"""The beginning of a film as cards: a frame of every scene, and the lines said meanwhile."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from PIL import Image

from dataprep.files import whole_file
from dataprep.frames.video import frames_at
from dataprep.frames.view import View
from dataprep.sources.stamps import seconds
from dataprep.sources.transcripts import SPEAKERS

__all__ = ["film_cards"]

CARDS = 8
FOLDER = "page"
SIDE = 224
"""Side of the pictures in pixels."""


def film_cards(out: Path) -> dict[str, Any]:
    """Write the pictures into ``OUT/page`` and return what to show beside them.

    ``stem``, the film's name; ``raw``, a frame as the camera gives it; ``cards``, for each of the
    first scenes its picture, begin and end (s), noun and lines (typed stamp, speaker, words,
    whether the speaker rules keep it).
    """
    films = json.loads((out / "materials" / "materials.json").read_text("utf-8"))["films"]
    stem = next(iter(films))
    scenes = films[stem][:CARDS]
    times_s = [scene["begin_s"] + 1.0 for scene in scenes]
    found = {
        frame.stamp: frame.pixels
        for frame in frames_at(out / "materials" / "films" / f"{stem}.mp4", times_s)
    }
    view = View(size=SIDE)
    raw = Image.fromarray(found[0])
    _save(raw.resize((raw.width * SIDE // raw.height, SIDE)), out / FOLDER / "camera.jpg")
    cards = []
    for number, scene in enumerate(scenes):
        name = f"{FOLDER}/scene-{number}.jpg"
        _save(Image.fromarray(view.pixels(found[number])), out / name)
        cards.append({**scene, "image": name, "lines": []})
    for typed, speaker, words, at_s in _lines(out / "materials" / "transcripts" / f"{stem}.csv"):
        for card in cards:
            if card["begin_s"] <= at_s < card["end_s"]:
                kept = speaker in SPEAKERS
                card["lines"].append(
                    {"typed": typed, "speaker": speaker, "words": words, "kept": kept}
                )
    return {"stem": stem, "raw": f"{FOLDER}/camera.jpg", "cards": cards}


def _lines(path: Path) -> list[tuple[str, str, str, int]]:
    """Typed stamp, speaker, words and about when, for every line in its order.

    A stamp that cannot be read, or is before the one before it, is taken for the one before it.
    """
    found: list[tuple[str, str, str, int]] = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            at_s = max(seconds(row["Time"]) or 0, found[-1][3] if found else 0)
            found.append((row["Time"].strip(), row["Speaker"], row["Utterance"], at_s))
    return found


def _save(picture: Image.Image, path: Path) -> None:
    with whole_file(path) as file:
        picture.save(file, "JPEG", quality=90)

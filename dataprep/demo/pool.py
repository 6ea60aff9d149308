"""The general pool: pictures with captions as the web has them, in LLaVA's layout.

Stamps lie as JPEG in a folder, drawings by OpenMoji as PNG in a zip; each set has its JSON in the
layout of ``blip_laion_cc_sbu_558k.json``. Captions are templates in the manner of alternative
texts: wordy, for grown-ups, some of them advertisements. Some rows are dead on purpose.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataprep.demo.choice import file_name
from dataprep.files import write_whole
from dataprep.picturebook.drawings import Rendered
from dataprep.picturebook.utterances import phrase
from dataprep.picturebook.words import words_in

__all__ = ["DEAD", "QUESTION", "caption_of", "write_emoji", "write_stamps"]

QUESTION = "Render a clear and concise summary of the photo.\n<image>"
DEAD = ("missing picture", "broken picture", "no answer", "no picture named")
"""Rows that cannot be used, one of each in the stamps' JSON."""

_PHOTO = (
    "{c} on a plain white background , studio shot , high resolution",
    "close up view of {c} with soft shadows",
    "picture of {c} , royalty free stock photography",
    "{c} in natural light , photographed from the front",
    "image of {c} for editorial use",
)
_DRAWN = (
    "{c} , flat cartoon style , isolated on white",
    "picture of {c} for kids and schools",
    "image of {c} in bright colours , hand drawn",
    "{c} in a simple style , children 's book illustration",
)
_ELSE = (
    "vector icon set with {noun} , flat design template for web and mobile",
    "{noun} logo concept , minimal line symbol",
    "buy {noun} online , best price and free shipping , save with our discount code",
)
"""What the rewriting is to leave out: abstract pictures and advertisements."""
_SHARE_ELSE = 0.14


def caption_of(rendered: Rendered, seed: int) -> str:
    """An alternative text for a drawing; depends on the seed and the drawing alone."""
    drawing = rendered.drawing
    rng = np.random.default_rng([seed, 61, zlib.crc32(drawing.key.encode())])

    def one(texts: Sequence[str]) -> str:
        return texts[int(rng.integers(len(texts)))]

    if rng.random() < _SHARE_ELSE:
        return one(_ELSE).format(noun=drawing.noun)
    drawn = drawing.vendor != "tuxpaint" or drawing.files[0].endswith(".svg")
    words = drawing.caption.rstrip(".").lower()
    named = words.startswith(("a ", "an ", "some ", "the ")) and len(words_in(words)) <= 4
    if not named or rng.random() < 0.3:
        colour = rendered.colour if rendered.colour not in drawing.noun.split() else None
        words = phrase(drawing.noun, colour)
    return one(_DRAWN if drawn else _PHOTO).format(c=words)


def _item(number: int, image: str | None, caption: str | None) -> dict[str, Any]:
    turns = [{"from": "human", "value": QUESTION}]
    if caption is not None:
        turns.append({"from": "gpt", "value": caption})
    item: dict[str, Any] = {"id": f"{number:09}", "conversations": turns}
    return item if image is None else {"id": item["id"], "image": image, **item}


def write_stamps(folder: Path, rows: Path, rendered: Sequence[Rendered], seed: int) -> None:
    """Write stamps as JPEG into a folder, and then their JSON with the dead rows in it."""
    items = []
    for number, one in enumerate(rendered):
        name = f"{number // 100:05}/{file_name(one.drawing)}.jpg"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(_bytes(one, "JPEG"))
        items.append(_item(number, name, caption_of(one, seed)))
    whole = _bytes(rendered[0], "JPEG")
    broken = f"{len(rendered) // 100:05}/broken.jpg"
    (folder / broken).parent.mkdir(parents=True, exist_ok=True)
    (folder / broken).write_bytes(whole[: len(whole) // 3])
    number = len(rendered)
    dead = [
        _item(number, "00099/gone.jpg", "a picture that is not there any more"),
        _item(number + 1, broken, "a picture that was cut off"),
        _item(number + 2, items[0]["image"], None),
        _item(number + 3, None, "words without a picture"),
    ]
    assert len(dead) == len(DEAD)
    # among the others, as in real life
    for k, item in enumerate(dead):
        items.insert((k + 1) * len(items) // (len(dead) + 1), item)
    write_whole(rows, json.dumps(items, indent=1, ensure_ascii=False) + "\n")


def write_emoji(archive: Path, rows: Path, rendered: Sequence[Rendered], seed: int) -> None:
    """Write drawings as PNG into a zip (no times in it), and then their JSON."""
    items = []
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_STORED) as pictures:
        for number, one in enumerate(rendered):
            name = f"{number // 100:05}/{file_name(one.drawing)}.png"
            pictures.writestr(zipfile.ZipInfo(name), _bytes(one, "PNG"))
            items.append(_item(number, name, caption_of(one, seed)))
    write_whole(archive, data.getvalue())
    write_whole(rows, json.dumps(items, indent=1, ensure_ascii=False) + "\n")


def _bytes(rendered: Rendered, kind: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rendered.picture).save(out, kind, quality=92)
    return out.getvalue()

"""From held-out drawings to the pictures and words of the evaluation sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dataprep.benchmarks.items import HeldOut
from dataprep.picturebook.colours import dominant_colour, turn_hue
from dataprep.picturebook.drawings import Rendered
from dataprep.picturebook.utterances import phrase

_HUES = {
    "red": 0.0, "orange": 28.0, "yellow": 52.0, "green": 125.0, "blue": 215.0, "purple": 275.0,
    "pink": 325.0,
}
"""A hue in degrees in the middle of each colour word that is a hue."""


def file_name(rendered: Rendered, colour: str | None = None) -> str:
    """``images/twemoji_1f34e.png``; recoloured versions end in ``_blue.png``."""
    stem = rendered.drawing.key.replace("/", "_")
    return f"images/{stem}{'' if colour is None else '_' + colour}.png"


def held_out(rendered: Rendered, known_words: frozenset[str] | None) -> HeldOut:
    """The evaluation item of a drawing.

    known_words: what the training utterances say; a colour word or noun outside it makes no
    two-word phrase. None: no such condition (new words are the point of test-concept).
    """
    drawing, colour = rendered.drawing, rendered.colour
    if known_words is not None and not {colour, drawing.noun} <= known_words:
        colour = None
    return HeldOut(
        image=file_name(rendered),
        noun=drawing.noun,
        group=drawing.group,
        colour=colour,
        caption=drawing.caption or phrase(drawing.noun),
    )


def recoloured(rendered: Rendered, known: Sequence[str]) -> dict[str, np.ndarray]:
    """Versions of a drawing in other colours: colour word -> uint8 [S, S, 3].

    The hue of every pixel is turned by one angle. Kept only if the colour measured afterwards is
    the one that was meant; pictures without a hue (black, white, grey) and brown ones give none.
    """
    colour = rendered.colour
    if colour not in _HUES:
        return {}
    out = {}
    for other, hue in _HUES.items():
        if other == colour or other not in known or other == rendered.drawing.noun:
            continue
        # around the hue meant: a drawing's own red may lie off the middle of what is called red
        for nudge in (0.0, -12.0, 12.0, -24.0, 24.0):
            turned = turn_hue(rendered.picture, hue - _HUES[colour] + nudge)
            if dominant_colour(turned, rendered.alpha, share=0.75) == other:
                out[other] = turned
                break
    return out


def evaluation_items(
    rendered: Sequence[Rendered], colours: Sequence[str], known_words: frozenset[str] | None
) -> tuple[list[HeldOut], dict[str, list[HeldOut]], dict[str, np.ndarray]]:
    """The items of a split, the recoloured versions of each by file name, and all the pictures."""
    items, versions, pictures = [], {}, {}
    for r in rendered:
        item = held_out(r, known_words)
        items.append(item)
        pictures[item.image] = r.picture
        versions[item.image] = []
        for colour, picture in recoloured(r, colours).items():
            other = replace(item, image=file_name(r, colour), colour=colour)
            pictures[other.image] = picture
            versions[item.image].append(other)
    return items, versions, pictures

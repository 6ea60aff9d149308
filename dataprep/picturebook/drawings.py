"""One drawing of one thing: what every step of the picture book passes on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Drawing:
    """A picture, what is on it, and what is said about it."""

    key: str
    """Where it comes from, e.g. ``twemoji/1f34e`` or ``tuxpaint/food/fruit/apple_red``; also the
    `view`: no other drawing has it."""
    vendor: str
    """openmoji, twemoji or tuxpaint."""
    concept: str
    """Emoji short name (both vendors draw it), or the key of a stamp."""
    noun: str
    """What it is called, e.g. ``"ice cream"``."""
    group: str
    """The family of concepts it belongs to."""
    files: tuple[str, ...]
    """Files that hold it, best first."""
    caption: str = ""
    """The caption that came with it (Tux Paint); empty where utterances are templated."""


@dataclass(frozen=True)
class Rendered:
    """A drawing together with its pixels."""

    drawing: Drawing
    picture: np.ndarray
    """uint8 [S, S, 3]."""
    alpha: np.ndarray
    """uint8 [S, S]."""
    colour: str | None
    """Dominant colour word, or None."""
    file: str
    """The file that was drawn."""

"""What is said about a drawing: real captions as they are, emoji names in a caregiver's frames."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from dataprep.picturebook.drawings import Rendered
from dataprep.picturebook.words import how_counted

FRAMES: dict[str, tuple[str, ...]] = {
    "naming": (
        "look, {a}!", "that's {a}", "it's {a}", "see {the}?", "here is {the}", "what's that? {a}!",
    ),
    "asking": ("where is {the}?", "do you see {the}?", "can you find {the}?", "is that {a}?"),
    "coloured": ("{c}", "look, {c}!", "that's {c}", "{the} is {colour}"),
}
"""Frames by what they do. {a}: "a dog", "some grapes"; {the}: "the dog"; {c}: "a brown dog"."""

PLURAL_FRAMES = {
    "that's {a}": "those are {a}", "it's {a}": "they are {a}", "here is {the}": "here are {the}",
    "what's that? {a}!": "what are those? {a}!", "where is {the}?": "where are {the}?",
    "is that {a}?": "are those {a}?", "that's {c}": "those are {c}",
    "{the} is {colour}": "{the} are {colour}",
}
"""How a frame changes for nouns in the plural."""


_AN = ("hourglass", "x-ray")
_A = ("ufo", "unicorn")


def article(words: str) -> str:
    """The indefinite article by the first sound of what follows: an apple, an hourglass, a ufo."""
    if words.startswith(_A):
        return "a"
    return "an" if words[0] in "aeiou" or words.startswith(_AN) else "a"


def phrase(noun: str, colour: str | None = None) -> str:
    """The plain form: ``"a dog"``, ``"some grapes"``, ``"the moon"``, ``"a red apple"``."""
    how = how_counted(noun)
    words = noun if colour is None else f"{colour} {noun}"
    lead = {"count": article(words), "plural": "some", "mass": "some", "unique": "the"}[how]
    return f"{lead} {words}"


def fill(frame: str, noun: str, colour: str | None = None) -> str:
    """One utterance from a frame of `FRAMES`."""
    if how_counted(noun) == "plural":
        frame = PLURAL_FRAMES.get(frame, frame)
    coloured = phrase(noun, colour) if colour else ""
    return frame.format(a=phrase(noun), the=f"the {noun}", c=coloured, colour=colour)


@dataclass(frozen=True)
class Said:
    """One utterance and the frame that it was filled from (empty for real captions)."""

    text: str
    frame: str


PLAIN = "{a}"


def utterances(rendered: Rendered, seed: int, count: int = 5) -> list[Said]:
    """What is said about one drawing; a real caption alone, or 4 to `count` templated utterances.

    The plain form is always first. A drawing with a clear colour gets one utterance that says it,
    and a second one three times in ten. The draw depends on the seed and the drawing alone.
    """
    drawing = rendered.drawing
    if drawing.caption:
        return [Said(drawing.caption, "")]
    rng = np.random.default_rng([seed, zlib.crc32(drawing.key.encode())])
    colour = None if rendered.colour == drawing.noun else rendered.colour
    frames: list[str] = [PLAIN]
    if colour:
        frames += _draw(rng, FRAMES["coloured"], 2 if rng.random() < 0.3 else 1)
    frames += _draw(rng, FRAMES["asking"], 2 if rng.random() < 0.3 else 1)
    frames += _draw(rng, FRAMES["naming"], max(1, count - len(frames)))
    said: dict[str, Said] = {}
    for frame in frames:
        text = fill(frame, drawing.noun, colour)
        said.setdefault(text, Said(text, frame))
    return list(said.values())


def _draw(rng: np.random.Generator, frames: tuple[str, ...], count: int) -> list[str]:
    return [frames[i] for i in rng.permutation(len(frames))[:count]]

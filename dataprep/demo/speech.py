"""What is said while a film runs: a transcript with the columns and the sloppiness of SAYCam's.

Lines of the mother (in several of the published spellings), of a child and of others, whom the
speaker rules leave out; remarks in brackets; words that could not be heard; lines about something
else than what is seen; time stamps in every form that transcribers used, some beyond reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataprep.demo.film import Scene, length_s
from dataprep.evalsets.files import csv_text
from dataprep.files import write_whole
from dataprep.picturebook.utterances import FRAMES, fill, phrase
from dataprep.picturebook.words import how_counted

__all__ = ["COLUMNS", "Line", "lines", "stamp", "write_transcript"]

COLUMNS = ("Time", "Speaker", "Utterance", "Video Name", "Location", "Notes")
"""The four that are read and two that are not."""
MOTHER = ("M", "M", "M", "Mom", "mom", "Mother")
CHILD = ("C", "child", "T")
OTHERS = ("grandma", "TV", "Q")
_ASIDE = (
    "Are you hungry? Come here, sweetie.", "Oh, (laughs) where did you go?", "[inaudible] okay.",
    "One second. *phone rings* Mama is coming.", "Don't pull that! Thank you.",
    "Did you have a good nap?", "Shall we go upstairs? Let's go.",
)  # fmt: skip
_PRAISE = ("Yeah, {a}!", "That's right. {The}!", "Good job! You found {the}.", "Mhm. [points] {A}.")
_MORE = {
    "food": ("Do you want to eat {the}? Yummy {noun}!", "Eat {nouns}? Let's eat {nouns}!"),
    "animals": ("Listen to {the}! It's a happy {noun}.", "Hello {noun}! Can you wave to {the}?"),
    "plants": ("Smell {the}! It's a wet {noun}.", "Can you draw {a}? Draw {nouns}!"),
    "vehicles": ("Let's push {the}! Push {nouns}!", "Look, a fast {noun}!"),
    "": ("Can you hold {the}?", "Do you want to play with {the}? It's a new {noun}.",
         "Wash {nouns}? Yes, a clean {noun}!"),
}  # fmt: skip
"""By the stamps' folder: what is said next."""
_SIZES = ("What a big {noun}!", "Oh, a little {noun}.", "Is it a big {noun}?")
_BABBLE = ("{noun}", "{noun}!", "mama", "da", "xxx", "uh oh", "more")


@dataclass(frozen=True)
class Line:
    """One line of a transcript: when (seconds), who, what."""

    time_s: int
    speaker: str
    text: str


_FRAMES = {
    use: [frame for frame in found if not frame.startswith(("what's", "{the}"))]
    for use, found in FRAMES.items()
}
"""The picture book's frames that name what is seen last, as the stand-in's rules expect."""


def _filled(template: str, noun: str) -> str:
    """A template of this file filled; ``{nouns}`` is the plural (or the noun, where none is)."""
    a, the = phrase(noun), f"the {noun}"
    nouns = f"{noun}s" if how_counted(noun) == "count" and noun[-1] not in "shxy" else noun
    return template.format(
        a=a, the=the, noun=noun, nouns=nouns, A=a[0].upper() + a[1:], The=the[0].upper() + the[1:]
    )


def _naming(scene: Scene, rng: np.random.Generator) -> str:
    """The first thing said of a picture: a caption, or one of the picture book's frames or two."""
    drawing, colour = scene.rendered.drawing, scene.rendered.colour
    if drawing.caption and len(drawing.caption) < 40 and rng.random() < 0.2:
        return drawing.caption
    known = colour if colour and colour not in drawing.noun.split() else None
    uses = ["coloured" if known and rng.random() < 0.85 else "naming"]
    if rng.random() < 0.5:
        uses.append("asking")
    frames = [_FRAMES[use][int(rng.integers(len(_FRAMES[use])))] for use in uses]
    said = [fill(frame, drawing.noun, known) for frame in frames]
    if len(said) == 1 and how_counted(drawing.noun) == "count":
        said.append(_filled(_SIZES[int(rng.integers(len(_SIZES)))], drawing.noun))
    ended = [text if text[-1] in ".?!" else f"{text}." for text in said]
    return " ".join(text[0].upper() + text[1:] for text in ended)


def _of_scene(scene: Scene, rng: np.random.Generator) -> list[Line]:
    def one(texts: Sequence[str]) -> str:
        return texts[int(rng.integers(len(texts)))]

    noun = scene.rendered.drawing.noun
    kind = scene.rendered.drawing.key.split("/")[1]
    found = [Line(scene.begin_s, one(MOTHER), _naming(scene, rng))]
    time_s = scene.begin_s + 2
    if rng.random() < 0.45:
        found.append(Line(time_s, one(CHILD), _filled(one(_BABBLE), noun)))
        time_s += 1
        if time_s < scene.end_s and rng.random() < 0.6:
            found.append(Line(time_s, one(MOTHER), _filled(one(_PRAISE), noun)))
            time_s += 1
    if time_s < scene.end_s:
        chance = rng.random()
        if chance < 0.7:
            text = _filled(one(_MORE.get(kind, _MORE[""])), noun)
            found.append(Line(time_s, one(MOTHER), text))
        elif chance < 0.84:
            found.append(Line(time_s, one(MOTHER), one(_ASIDE)))
        elif chance < 0.92:
            found.append(Line(time_s, one(OTHERS), one(("Is she awake?", "la la la", "Hi there."))))
    return found


def lines(scenes: Sequence[Scene], seed: int) -> list[Line]:
    """What is said in a film, in order; the last line ends it."""
    rng = np.random.default_rng([seed, 53])
    found = [line for scene in scenes for line in _of_scene(scene, rng)]
    return [*found, Line(length_s(scenes), "C", "bye bye")]


def stamp(time_s: int, rng: np.random.Generator) -> str:
    """A time as some transcriber might have typed it; the published rules read it as `time_s`."""
    minutes, rest = divmod(time_s, 60)
    mark = ":.;:,:"[int(rng.integers(6))]
    forms = [f"{minutes}{mark}{rest:02}", f"{minutes}:{rest:02}", f"{minutes}:{rest:02} "]
    forms.append(f"{minutes}:{rest:02}-{minutes}:{rest:02}")
    if rest in (10, 20, 30, 40, 50):
        forms.append(f"{minutes}.{rest // 10}")  # a spreadsheet dropped the zero
    if not minutes:
        forms.append(f":{rest:02}")
    return forms[int(rng.integers(len(forms)))]


def write_transcript(path: Path, said: Sequence[Line], seed: int) -> None:
    """Write a film's transcript, ``NAME.csv`` beside no film but of ``NAME.mp4``.

    One stamp of about forty cannot be read (the line and the one before it are then left out by
    the published rules), and one of about forty is typed a minute too early.
    """
    rng = np.random.default_rng([seed, 59])
    rows: list[tuple[str, ...]] = []
    for number, line in enumerate(said):
        typed = stamp(line.time_s, rng)
        chance = rng.random()
        if 0 < number < len(said) - 1 and line.speaker not in MOTHER and chance < 0.1:
            typed = f"{line.time_s // 60}:{line.time_s % 60:02}5" if chance < 0.05 else ""
        elif number > 4 and chance > 0.98:
            typed = stamp(max(line.time_s - 60, 0), rng)
        name = f"{path.stem}.mp4" if number == 0 or rng.random() < 0.3 else ""
        rows.append((typed, line.speaker, line.text, name, "living room" if not number else "", ""))
    write_whole(path, csv_text(COLUMNS, rows))

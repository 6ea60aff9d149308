"""The contact sheet: one page on which a person sees what is in the book and how it is split."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataprep.benchmarks.write import Written
from dataprep.picturebook.drawings import Rendered
from dataprep.picturebook.utterances import Said

_CELL = 104
_GAP = 14
_TEXT = 30
_MARGIN = 48
_COLUMNS = 12
_INK, _SOFT, _PAPER, _LINE = "#24292f", "#6e7781", "#fbfaf7", "#e3dfd6"
_TINTS = {
    "train": "#2f6f4f", "val": "#8a6d1d", "test-view": "#1f5fa8", "test-concept": "#a8442a",
    "evaluation": "#6b3fa0",
}


class _Page:
    """A page that grows downwards; `y` is where the next thing goes."""

    def __init__(self) -> None:
        self.width = 2 * _MARGIN + _COLUMNS * _CELL + (_COLUMNS - 1) * _GAP
        self.image = Image.new("RGB", (self.width, 4000), _PAPER)
        self.draw = ImageDraw.Draw(self.image)
        self.y = _MARGIN
        self._fonts: dict[int, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}

    def font(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        if size not in self._fonts:
            self._fonts[size] = ImageFont.load_default(size)
        return self._fonts[size]

    def text(self, x: int, y: int, text: str, size: int, colour: str = _INK) -> None:
        self.draw.text((x, y), text, font=self.font(size), fill=colour)

    def heading(self, title: str, explanation: str, tint: str) -> None:
        self.y += 10
        self.draw.rounded_rectangle((_MARGIN, self.y, _MARGIN + 6, self.y + 26), 3, fill=tint)
        self.text(_MARGIN + 18, self.y - 1, title, 22, tint)
        left = _MARGIN + 18 + round(self.draw.textlength(title, font=self.font(22))) + 16
        self.text(left, self.y + 6, explanation, 15, _SOFT)
        self.y += 42

    def wrapped(self, text: str, width: int, size: int) -> list[str]:
        """The text in at most two lines that fit a width, the second one cut short."""
        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".strip()
            if self.draw.textlength(longer, font=self.font(size)) <= width or not lines[-1]:
                lines[-1] = longer
            else:
                lines.append(word)
        if len(lines) > 2:
            lines = [lines[0], lines[1] + "\u2026"]
        while self.draw.textlength(lines[-1], font=self.font(size)) > width:
            lines[-1] = lines[-1].rstrip("\u2026")[:-1] + "\u2026"
        return lines

    def cell(self, column: int, picture: np.ndarray, caption: str, tint: str | None = None) -> None:
        x = _MARGIN + column * (_CELL + _GAP)
        box = (x - 1, self.y - 1, x + _CELL, self.y + _CELL)
        self.draw.rounded_rectangle(box, 8, fill="white", outline=tint or _LINE, width=1)
        inner = _CELL - 12
        small = Image.fromarray(picture).resize((inner, inner), Image.Resampling.LANCZOS)
        self.image.paste(small, (x + 6, self.y + 6))
        for row, line in enumerate(self.wrapped(caption, _CELL + 6, 12)):
            left = x + (_CELL - round(self.draw.textlength(line, font=self.font(12)))) // 2
            self.text(left, self.y + _CELL + 5 + 14 * row, line, 12)

    def next_row(self) -> None:
        self.y += _CELL + _TEXT + _GAP

    def finished(self) -> Image.Image:
        return self.image.crop((0, 0, self.width, self.y + _MARGIN - 20))


def contact_sheet(
    rendered: Sequence[Rendered],
    said: Sequence[Sequence[Said]],
    split_of: Mapping[str, str],
    written: Mapping[str, Written],
    pictures: Mapping[str, np.ndarray],
    seed: int,
) -> Image.Image:
    """Samples of every split with what is said about them, and of the evaluation sets.

    pictures: the evaluation pictures by file name, uint8 [S, S, 3].
    """
    rng = np.random.default_rng([seed, 4])
    page = _Page()
    page.text(_MARGIN, page.y, "The picture book", 34)
    counts = defaultdict(int)
    for r in rendered:
        counts[split_of[r.drawing.key]] += 1
    utterances = sum(map(len, said))
    line = f"{len(rendered)} pictures, {utterances} utterances: " + ", ".join(
        f"{name} {counts[name]}" for name in ("train", "val", "test-view", "test-concept")
    )
    page.text(_MARGIN, page.y + 46, line, 16, _SOFT)
    page.y += 88
    words: dict[str, list[str]] = {}
    by_split: dict[str, list[Rendered]] = defaultdict(list)
    for r, texts in zip(rendered, said, strict=True):
        words[r.drawing.key] = [s.text for s in texts]
        by_split[split_of[r.drawing.key]].append(r)

    def sample(items: Sequence[Rendered], count: int) -> list[Rendered]:
        return [items[i] for i in rng.permutation(len(items))[:count]]

    def row(items: Sequence[Rendered], tint: str | None = None) -> None:
        for column, r in enumerate(items):
            texts = words[r.drawing.key]
            page.cell(column, r.picture, texts[int(rng.integers(len(texts)))], tint)
        page.next_row()

    train = by_split["train"]
    page.heading("train", "Tux Paint with its real captions", _TINTS["train"])
    stamps = sample([r for r in train if r.drawing.vendor == "tuxpaint"], 2 * _COLUMNS)
    row(stamps[:_COLUMNS])
    row(stamps[_COLUMNS:])
    page.heading("train", "OpenMoji and Twemoji, names in templates", _TINTS["train"])
    for vendor in ("openmoji", "twemoji"):
        row(sample([r for r in train if r.drawing.vendor == vendor], _COLUMNS))

    for name, title in (
        ("test-view", "known words, new drawings: left in training, right held out"),
        ("val", "likewise, for validation"),
    ):
        page.heading(name, title, _TINTS[name])
        other = {r.drawing.concept: r for r in train if r.drawing.vendor == "openmoji"}
        held = sample(by_split[name], _COLUMNS if name == "test-view" else _COLUMNS // 2)
        for start in range(0, len(held), _COLUMNS // 2):
            for column, r in enumerate(held[start : start + _COLUMNS // 2]):
                known = other[r.drawing.concept]
                page.cell(2 * column, known.picture, words[known.drawing.key][0])
                page.cell(2 * column + 1, r.picture, words[r.drawing.key][0], _TINTS[name])
            page.next_row()

    page.heading("test-concept", "words that training never says", _TINTS["test-concept"])
    new = sample(by_split["test-concept"], 2 * _COLUMNS)
    row(new[:_COLUMNS], _TINTS["test-concept"])
    row(new[_COLUMNS:], _TINTS["test-concept"])

    page.heading(
        "evaluation", "contrasts of noun, colour (hue turned) and both", _TINTS["evaluation"]
    )
    for kind in ("noun", "colour", "both"):
        pairs = [c for c in written["test-view"].contrasts if c.kind == kind]
        for column, i in enumerate(rng.permutation(len(pairs))[: _COLUMNS // 2]):
            for side in (0, 1):
                picture = pictures[pairs[i].images[side]]
                page.cell(2 * column + side, picture, pairs[i].phrases[side])
        page.next_row()
    return page.finished()

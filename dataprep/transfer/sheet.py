"""The contact sheet: child frames and the pictures matched to them, side by side, with words."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dataprep.transfer.write import Taken
from engine import Corpus

__all__ = ["contact_sheet"]

COLUMNS, ROWS = 4, 6
SIDE, GAP, MARGIN, HEAD, WORDS = 156, 26, 44, 96, 84
INK, SOFT, PAPER, LINE = "#24292f", "#6e7781", "#fbfaf7", "#e3dfd6"
FRAME_TINT, PICTURE_TINT = "#2f6f4f", "#1f5fa8"
LOW, HIGH = (200, 116, 44), (47, 111, 79)


def contact_sheet(
    file: Path, frames: Corpus, pool: Corpus, frames_split: str, pool_split: str, taken: Taken,
    scorer: str,
) -> None:  # fmt: skip
    """Draw pairs spread evenly from the most to the least similar.

    Args:
        file: PNG to write. It shows frames of ``frames``: it may go where they may.
        frames: the child's corpus.
        pool: the general corpus.
        frames_split: which split of it.
        pool_split: likewise.
        taken: the matched pairs.
        scorer: its name.
    """
    order = np.argsort(taken.rank)
    shown = order[np.unique(np.linspace(0, len(order) - 1, COLUMNS * ROWS).round().astype(int))]
    rows = -(-len(shown) // COLUMNS)
    card, height = 2 * SIDE + 6, SIDE + WORDS
    width = 2 * MARGIN + COLUMNS * card + (COLUMNS - 1) * GAP
    page = Image.new("RGB", (width, 2 * MARGIN + HEAD + rows * (height + GAP) - GAP), PAPER)
    draw = _Drawing(page)
    draw.text(MARGIN, MARGIN - 8, f"{frames.name} and {pool.name}", 30, INK)
    draw.text(
        MARGIN, MARGIN + 34,
        f"{len(taken):,} matched pairs; {len(shown)} of them from the most to the least similar "
        f"({scorer})", 15, SOFT,
    )  # fmt: skip
    x = draw.text(MARGIN, MARGIN + 60, "left: child's frame", 14, FRAME_TINT)
    draw.text(x + 18, MARGIN + 60, "right: general picture, words for the child", 14, PICTURE_TINT)
    said = {name: _words(corpus, split) for name, corpus, split in (
        ("frame", frames, frames_split), ("picture", pool, pool_split))}  # fmt: skip
    values = taken.similarity
    for number, at in enumerate(shown):
        left = MARGIN + number % COLUMNS * (card + GAP)
        top = MARGIN + HEAD + number // COLUMNS * (height + GAP)
        frame, picture = int(taken.frame[at]), int(taken.picture[at])
        draw.picture(left, top, frames.images(frames_split).picture(frame))
        draw.picture(left + SIDE + 6, top, pool.images(pool_split).picture(picture))
        span = float(values.max() - values.min()) or 1.0
        share = (float(values[at]) - float(values.min())) / span
        draw.bar(left, top + SIDE + 6, card, share)
        draw.text(left, top + SIDE + 14, f"{values[at]:.3f}", 13, INK)
        rank = f"rank {int(taken.rank[at]):,}"
        draw.text(left + card - draw.width(rank, 12), top + SIDE + 15, rank, 12, SOFT)
        draw.line(left, top + SIDE + 33, card, said["frame"].get(frame, ""), 13, FRAME_TINT)
        draw.wrapped(left, top + SIDE + 50, card, said["picture"].get(picture, ""), 14, INK)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        page.save(partial, "PNG")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _words(corpus: Corpus, split: str) -> dict[int, str]:
    """First utterance of each picture, by row."""
    pairs = corpus.pairs(split)
    rows, first = np.unique(pairs.row, return_index=True)
    return {int(row): pairs.utterance[at] for row, at in zip(rows, first, strict=True)}


class _Drawing:
    def __init__(self, page: Image.Image) -> None:
        self.page, self.draw = page, ImageDraw.Draw(page)
        self.fonts: dict[int, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}

    def font(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return self.fonts.setdefault(size, ImageFont.load_default(size))

    def width(self, text: str, size: int) -> int:
        return round(self.draw.textlength(text, font=self.font(size)))

    def text(self, x: int, y: int, text: str, size: int, colour: str) -> int:
        self.draw.text((x, y), text, font=self.font(size), fill=colour)
        return x + self.width(text, size)

    def picture(self, x: int, y: int, picture: Image.Image) -> None:
        self.page.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
        self.draw.rectangle((x, y, x + SIDE - 1, y + SIDE - 1), outline=LINE)

    def bar(self, x: int, y: int, width: int, share: float) -> None:
        colour = tuple(round(a + (b - a) * share) for a, b in zip(LOW, HIGH, strict=True))
        self.draw.rectangle((x, y, x + width, y + 3), fill=LINE)
        self.draw.rectangle((x, y, x + max(2, round(width * share)), y + 3), fill=colour)

    def line(self, x: int, y: int, width: int, text: str, size: int, colour: str) -> None:
        self.text(x, y, self.cut(text, width, size), size, colour)

    def wrapped(self, x: int, y: int, width: int, text: str, size: int, colour: str) -> None:
        """Up to two lines, the second one cut short."""
        words, first = text.split(), ""
        while words and self.width(f"{first} {words[0]}".strip(), size) <= width:
            first = f"{first} {words.pop(0)}".strip()
        if not first and words:
            first = self.cut(words.pop(0), width, size)
        self.text(x, y, first, size, colour)
        self.line(x, y + size + 4, width, " ".join(words), size, colour)

    def cut(self, text: str, width: int, size: int) -> str:
        if self.width(text, size) <= width:
            return text
        while text and self.width(text + "\u2026", size) > width:
            text = text[:-1]
        return text.rstrip() + "\u2026"

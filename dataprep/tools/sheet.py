"""A contact sheet: one page on which a person sees what a corpus shows and says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine import Corpus, read_corpus

__all__ = ["contact_sheet"]

_CELL, _GAP, _TEXT, _MARGIN, _COLUMNS = 144, 16, 46, 48, 8
_INK, _SOFT, _PAPER, _LINE = "#24292f", "#6e7781", "#fbfaf7", "#e3dfd6"
_SIZE = 13


def contact_sheet(path: Path, out: Path, rows: int, seed: int) -> None:
    """Write a PNG: for every split and source some pictures, with what is said about each.

    Args:
        path: the corpus.
        out: the PNG to write.
        rows: rows of eight pictures for each split and source.
        seed: which pictures.
    """
    corpus = read_corpus(path)
    sections = [
        (split, str(source), _chosen(corpus, split, str(source), rows * _COLUMNS, seed))
        for split in corpus.splits
        for source in sorted(set(corpus.pairs(split).source))
    ]
    width = 2 * _MARGIN + _COLUMNS * _CELL + (_COLUMNS - 1) * _GAP
    height = 2 * _MARGIN + 60 + sum(
        50 + -(-len(chosen) // _COLUMNS) * (_CELL + _TEXT + _GAP) for *_, chosen in sections
    )  # fmt: skip
    page = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(page)
    counts = ", ".join(f"{s} {c['pairs']:,} pairs" for s, c in corpus.info["splits"].items())
    draw.text((_MARGIN, _MARGIN - 12), corpus.name, _INK, ImageFont.load_default(30))
    draw.text((_MARGIN, _MARGIN + 26), counts, _SOFT, ImageFont.load_default(15))
    y = _MARGIN + 60
    for split, source, chosen in sections:
        draw.text((_MARGIN, y), f"{split} \u00b7 {source}", _INK, ImageFont.load_default(19))
        draw.line((_MARGIN, y + 30, width - _MARGIN, y + 30), _LINE)
        y += 42
        for start in range(0, len(chosen), _COLUMNS):
            for column, pair in enumerate(chosen[start : start + _COLUMNS]):
                _cell(page, draw, corpus, split, pair, _MARGIN + column * (_CELL + _GAP), y)
            y += _CELL + _TEXT + _GAP
        y += 8
    page.crop((0, 0, width, y + _MARGIN // 2)).save(out, "PNG", optimize=True)


def _chosen(corpus: Corpus, split: str, source: str, count: int, seed: int) -> list[int]:
    """Pairs to show: of different pictures where there are enough."""
    pairs = corpus.pairs(split)
    mine = np.flatnonzero(pairs.source == source)
    mine = mine[np.random.default_rng([seed, 13]).permutation(len(mine))]
    _, first = np.unique(pairs.image[mine], return_index=True)
    return [int(mine[k]) for k in np.sort(first)[:count]]


def _cell(
    page: Image.Image, draw: ImageDraw.ImageDraw, corpus: Corpus, split: str, pair: int, x: int,
    y: int,
) -> None:  # fmt: skip
    pairs = corpus.pairs(split)
    picture = corpus.images(split).picture(int(pairs.row[pair]))
    page.paste(picture.resize((_CELL, _CELL), Image.Resampling.LANCZOS), (x, y))
    font = ImageFont.load_default(_SIZE)
    lines = _wrapped(draw, pairs.utterance[pair], font)
    for number, line in enumerate(lines):
        draw.text((x, y + _CELL + 4 + number * (_SIZE + 1)), line, _INK, font)


def _wrapped(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    """The text in at most three lines as wide as a cell, the last one cut short."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= _CELL or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > 3:
        lines = [*lines[:2], lines[2] + "\u2026"]
    for number, line in enumerate(lines):
        while draw.textlength(line, font) > _CELL:
            line = line.rstrip("\u2026")[:-1] + "\u2026"
        lines[number] = line
    return lines

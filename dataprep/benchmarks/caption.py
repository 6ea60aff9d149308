"""Captions: one picture, one reference sentence. Official layout: ``image,text``."""

from __future__ import annotations

from collections.abc import Sequence

from dataprep.benchmarks.items import HeldOut

HEADER = ("image", "text")


def caption_rows(items: Sequence[HeldOut]) -> list[tuple[str, str]]:
    """One row a picture: its real caption, or the plain form ("a dog") where words are templated.

    Templated frames are drawn at random, so only the plain form is something to expect of a model.
    """
    return [(item.image, item.caption) for item in items]

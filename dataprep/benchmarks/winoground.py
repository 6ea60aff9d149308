"""Winoground: two pictures and two phrases, which belongs to which?

Official layout: ``instance_id,positive_phrase,negative_phrase,image,image_tag``, two rows an
instance: the positive phrase's picture (tag ``positive``) and the negative phrase's. Of two
contrasted pictures either may be the positive one, in turn, so that neither recoloured pictures nor
any word stand more often on one side.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataprep.benchmarks.items import Contrast

HEADER = ("instance_id", "positive_phrase", "negative_phrase", "image", "image_tag")


def winoground_rows(contrasts: Sequence[Contrast]) -> list[tuple[int, str, str, str, str]]:
    """Two rows for each contrast, the positive picture first."""
    rows = []
    for number, contrast in enumerate(contrasts):
        phrases, images = contrast.phrases, contrast.images
        if number % 2:
            phrases, images = phrases[::-1], images[::-1]
        for image, tag in zip(images, ("positive", "negative"), strict=True):
            rows.append((number, *phrases, image, tag))
    return rows

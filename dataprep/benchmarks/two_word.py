"""Two-word task: one picture, two phrases of two words, which one fits?

Official layout: ``image,positive_phrase,negative_phrase``. Every contrast (two pictures, two
phrases) gives two mirrored rows: "red apple" is right and "red car" wrong for the apple, and the
other way round for the car. So every phrase, and every word in every place, is right exactly as
often as it is wrong, and a model that sees only the phrases scores exactly chance (.5): whatever
it prefers, it is right on one row of each mirrored pair and wrong on the other.

Who tests this with a trained classifier must keep all rows of a phrase in one fold. With folds
drawn by row, a phrase whose right row lies in the training part has its wrong row in the test part,
and the classifier learns the opposite of the truth: below chance, which proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from dataprep.benchmarks.items import Contrast

HEADER = ("image", "positive_phrase", "negative_phrase")


def two_word_rows(contrasts: Sequence[Contrast]) -> list[tuple[str, str, str]]:
    """Two mirrored rows for each contrast."""
    rows = []
    for contrast in contrasts:
        (left, right), (one, other) = contrast.images, contrast.phrases
        rows += [(left, one, other), (right, other, one)]
    return rows

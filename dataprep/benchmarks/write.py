"""Build the four evaluation sets of one held-out split and write them as CSV files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataprep.benchmarks import caption, labeled, two_word, winoground
from dataprep.benchmarks.contrasts import Recolour, contrasts
from dataprep.benchmarks.items import Contrast, HeldOut, write_csv

DRAWS = 12
"""Labelled trials for every held-out drawing (its foils are drawn anew for each)."""

FILES = ("labeled.csv", "two_word.csv", "winoground.csv", "caption.csv")


@dataclass(frozen=True)
class Written:
    """What was written for one split."""

    counts: dict[str, int]
    """Trials, items and instances by file name."""
    contrasts: list[Contrast]
    images: list[str]
    """Every picture that the CSV files name, sorted."""


def write_benchmarks(
    items: Sequence[HeldOut],
    recolour: Recolour,
    target: Callable[[str], Path],
    seed: int,
    draws: int = DRAWS,
) -> Written:
    """Write the four CSV files.

    Args:
        items: the held-out pictures of one split.
        recolour: gives recoloured versions of a picture.
        target: where a file of the given name is to be written.
        seed: seed of foils and partners.
        draws: labelled trials for every picture.
    """
    trials = labeled.labeled_trials(items, draws, seed)
    pairs = contrasts(items, recolour, seed)
    rows = {
        "labeled.csv": (labeled.HEADER, labeled.labeled_rows(trials)),
        "two_word.csv": (two_word.HEADER, two_word.two_word_rows(pairs)),
        "winoground.csv": (winoground.HEADER, winoground.winoground_rows(pairs)),
        "caption.csv": (caption.HEADER, caption.caption_rows(items)),
    }
    assert tuple(rows) == FILES
    counts = {name: write_csv(target(name), *table) for name, table in rows.items()}
    counts["labeled.csv"] //= labeled.CHOICES
    counts["winoground.csv"] //= 2
    images = {item.image for item in items} | {image for pair in pairs for image in pair.images}
    return Written(counts, pairs, sorted(images))

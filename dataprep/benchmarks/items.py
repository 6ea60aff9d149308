"""What the four evaluation sets are built from: held-out pictures and the words for them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class HeldOut:
    """A held-out picture. Two pictures of one `group` are never each other's foils."""

    image: str
    """File name of the picture relative to the benchmark folder."""
    noun: str
    """What it is called; the category of labelled trials."""
    group: str
    """Family of concepts."""
    colour: str | None
    """Dominant colour word, or None."""
    caption: str
    """Reference caption."""

    @property
    def phrase(self) -> str | None:
        """Two words, colour and noun ("red apple"); None where either is missing or doubtful."""
        if self.colour is None or self.colour == self.noun or " " in self.noun:
            return None
        return f"{self.colour} {self.noun}"


@dataclass(frozen=True)
class Contrast:
    """Two pictures and two phrases, each phrase true of its own picture only."""

    kind: str
    """noun ("red apple" / "red car"), colour ("red apple" / "blue apple") or both."""
    images: tuple[str, str]
    phrases: tuple[str, str]


def disjoint_pairs(
    items: Sequence[HeldOut], rounds: int, rng: np.random.Generator
) -> list[tuple[HeldOut, HeldOut]]:
    """Up to `rounds` partners for every item, no pair twice; groups and phrases differ.

    In each round the shuffled items are paired greedily, so every item is used about equally often.
    """
    seen: set[frozenset[str]] = set()
    pairs = []
    for _ in range(rounds):
        waiting = [items[i] for i in rng.permutation(len(items))]
        while waiting:
            first = waiting.pop()
            for position, second in enumerate(waiting):
                key = frozenset((first.image, second.image))
                if first.group != second.group and first.noun != second.noun and key not in seen:
                    seen.add(key)
                    pairs.append((first, second))
                    del waiting[position]
                    break
    return pairs


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    """Write a CSV with unix line ends and return its number of rows."""
    count = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for row in rows:
            writer.writerow(row)
            count += 1
    return count

"""Near-identical pictures: what must not lie on both sides of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataprep.picturebook.drawings import Rendered

NEAR_IDENTICAL = 0.90
"""Correlation of 32-px pictures from which two count as the same picture."""
SAME_HAND = 0.75
"""The same for two drawings by one vendor of one group: a dog, and that dog with a harness."""
_KEEP_FIRST = ("test-view", "test-concept", "val", "train")


@dataclass(frozen=True)
class Twin:
    """Two drawings that look alike: positions in the list, correlation, same bytes or not."""

    first: int
    second: int
    correlation: float
    same_bytes: bool


def thumbnails(pictures: Sequence[np.ndarray], side: int = 32) -> np.ndarray:
    """Unit-length, zero-mean 32-px versions: uint8 [S, S, 3] each -> float32 [N, side*side*3].

    Area-averaged; S must be a multiple of `side` or is cut to one.
    """
    out = []
    for picture in pictures:
        block = picture.shape[0] // side
        cut = picture[: block * side, : block * side].astype(np.float32)
        out.append(cut.reshape(side, block, side, block, 3).mean((1, 3)).ravel())
    x = np.stack(out)
    x -= x.mean(1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-6)


def find_twins(rendered: Sequence[Rendered]) -> list[Twin]:
    """Every pair above `NEAR_IDENTICAL`, or above `SAME_HAND` within a vendor and a group."""
    x = thumbnails([r.picture for r in rendered])
    md5 = [hashlib.md5(r.picture.tobytes(), usedforsecurity=False).digest() for r in rendered]
    hands = {r.drawing.vendor + "/" + r.drawing.group for r in rendered}
    number = {name: i for i, name in enumerate(sorted(hands))}
    hand = np.array([number[r.drawing.vendor + "/" + r.drawing.group] for r in rendered])
    twins = []
    for start in range(0, len(x), 512):
        correlation = x[start : start + 512] @ x.T
        same_hand = hand[start : start + 512, None] == hand[None]
        close = (correlation >= NEAR_IDENTICAL) | (same_hand & (correlation >= SAME_HAND))
        for i, j in np.argwhere(close):
            if start + i < j:
                a, b = int(start + i), int(j)
                twins.append(Twin(a, b, round(float(correlation[i, j]), 4), md5[a] == md5[b]))
    return twins


def cannot_be_held_out(
    rendered: Sequence[Rendered], twins: Sequence[Twin]
) -> tuple[frozenset[str], frozenset[str]]:
    """Drawings with a twin (keys: no held-out views) and groups with a twin in another group."""
    keys, groups = set(), set()
    for twin in twins:
        a, b = rendered[twin.first].drawing, rendered[twin.second].drawing
        keys |= {a.key, b.key}
        if a.group != b.group:
            groups |= {a.group, b.group}
    return frozenset(keys), frozenset(groups)


def leaks(
    rendered: Sequence[Rendered], twins: Sequence[Twin], split_of: Mapping[str, str]
) -> list[tuple[str, str, Twin]]:
    """Twins on two sides of a split: (key to drop, key to keep, twin); the test set is kept."""
    found = []
    for twin in twins:
        pair = [rendered[i].drawing.key for i in (twin.first, twin.second)]
        if split_of[pair[0]] != split_of[pair[1]]:
            keep, drop = sorted(pair, key=lambda key: (_KEEP_FIRST.index(split_of[key]), key))
            found.append((drop, keep, twin))
    return found

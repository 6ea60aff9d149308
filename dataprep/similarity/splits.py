"""Dividing a corpus into train, validation and test: as published, and without leaks."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from dataprep.similarity.recordings import Frames, frames_of
from engine import Corpus

__all__ = ["SHARES", "by_group", "by_utterance", "pooled", "read_groups"]

SHARES: Mapping[str, float] = {"train": 0.90, "val": 0.05, "test": 0.05}
"""CVCL's, at the level of utterances (Vong et al., Science 2024)."""


def by_utterance(corpus: Corpus, shares: Mapping[str, float], seed: int) -> NDArray[np.object_]:
    """CVCL's random split: utterances are shuffled and cut; their frames go with them.

    Pairs of one utterance have the same recording, time and words; utterances that share a
    picture cannot be parted. Neighbours in time do land on both sides: that is the leak.

    Returns:
        Object ``[pictures]``: the split of each picture, through the corpus's splits in order.
    """
    frames, starts = pooled(corpus)
    names: dict[tuple[str, float, str], int] = {}
    utterance, picture = [], []
    for split, start in zip(corpus.splits, starts[:-1], strict=True):
        pairs = corpus.pairs(split)
        for at in range(len(pairs)):
            time = float(pairs.time_s[at])
            if np.isnan(time):
                continue
            said = (str(pairs.group[at]), time, pairs.utterance[at])
            utterance.append(names.setdefault(said, len(names)))
            picture.append(int(pairs.row[at] + start))
    unit = _joined(len(frames.image), np.array(picture, np.int64), np.array(utterance, np.int64))
    order = list(range(int(unit.max(initial=-1)) + 1))
    random.Random(seed).shuffle(order)
    ends = np.rint(np.cumsum(list(_checked(shares).values())) * len(order)).astype(int)
    of_unit = np.empty(len(order), object)
    for name, first, last in zip(shares, [0, *ends[:-1]], ends, strict=True):
        of_unit[order[first:last]] = name
    return of_unit[unit]


def by_group(
    corpus: Corpus, shares: Mapping[str, float], seed: int,
    together: Sequence[NDArray[np.int64]] = (),
) -> NDArray[np.object_]:  # fmt: skip
    """Split whole recordings (the pairs' ``group``), so that no scene is on two sides.

    The largest goes first, each to the split that lacks most of its share; the seed decides among
    equals. Groups that share a picture stay together.

    Args:
        corpus: what is divided.
        shares: share of the pictures of each split, adding up to 1.
        seed: of the order among recordings of one size.
        together: arrays ``[pictures]`` of numbers; pictures with the same number stay together
            too (near-duplicates found across recordings).

    Returns:
        As `by_utterance`.
    """
    frames, starts = pooled(corpus)
    picture, names = [np.arange(len(frames))], [frames.group]
    for split, start in zip(corpus.splits, starts[:-1], strict=True):
        picture.append(corpus.pairs(split).row + start)
        names.append(corpus.pairs(split).group)
    number = [np.unique(np.concatenate(names).astype(str), return_inverse=True)[1]]
    for labels in together:
        picture.append(np.arange(len(frames)))
        number.append(labels + int(max(part.max(initial=0) for part in number)) + 1)
    at, to = np.concatenate(picture), np.concatenate(number)
    unit = _joined(len(frames), at, to)
    sizes = np.bincount(unit)
    draw = list(range(len(sizes)))
    random.Random(seed).shuffle(draw)
    wanted = {name: share * len(frames) for name, share in _checked(shares).items()}
    of_unit = np.empty(len(sizes), object)
    for which in sorted(draw, key=lambda one: -int(sizes[one])):
        name = max(wanted, key=lambda split: wanted[split])
        of_unit[which] = name
        wanted[name] -= float(sizes[which])
    return of_unit[unit]


def pooled(corpus: Corpus) -> tuple[Frames, NDArray[np.int64]]:
    """All pictures of a corpus as if of one split, and where each split begins (and the end)."""
    parts = [frames_of(corpus, split) for split in corpus.splits]
    starts = np.cumsum([0, *(len(part) for part in parts)])
    names = ("image", "view", "group", "time_s")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    return Frames("all", **joined), starts


def read_groups(file: Path, corpus: Corpus) -> NDArray[np.int64]:
    """Read what ``duplicates`` wrote of this corpus: the group of each picture, ``[pictures]``.

    Raises:
        ValueError: it is no such file, or does not list exactly this corpus's pictures.
    """
    try:
        table = pq.read_table(file, columns=["image", "group"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{file}: not a table of duplicates ({_first_line(error)})") from None
    image, group = table["image"].to_numpy(), table["group"].to_numpy()
    wanted = pooled(corpus)[0].image
    if not np.array_equal(np.sort(image), np.sort(wanted)):
        raise ValueError(f"{file}: lists other pictures than {corpus.path}; run duplicates on it")
    back = np.argsort(image)[np.searchsorted(np.sort(image), wanted)]
    return group[back].astype(np.int64)


def _joined(
    pictures: int, picture: NDArray[np.int64], label: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Number of the connected component of each picture; labels join those that have them.

    Components are numbered by their first picture.
    """
    size = pictures + int(label.max(initial=-1)) + 1
    links = coo_array((np.ones(len(picture), np.int8), (picture, label + pictures)), (size, size))
    _, found = connected_components(links, directed=False)
    _, first, back = np.unique(found[:pictures], return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[back]


def _checked(shares: Mapping[str, float]) -> Mapping[str, float]:
    if not shares or min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(
            f"--shares {' '.join(f'{name}={share:g}' for name, share in shares.items())}: accepted "
            "are shares of 0 and above that add up to 1"
        )
    return shares


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

"""Which stamps and drawings play which part: in the films, in the general pool, in the labels.

No drawing plays two parts. Films show photographs only, because the stand-in for CLIP knows
photographs (ImageNet) and hardly drawings; the general pool is all the rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataprep.picturebook.drawings import Drawing
from dataprep.picturebook.emoji import collect_emoji
from dataprep.picturebook.tuxpaint import collect_stamps

__all__ = ["FULL", "SMALL", "Choice", "Scale", "choose", "is_photograph"]

_NO_PHOTOGRAPHS = (
    "cartoon", "roadsigns", "flags", "planets", "hanukkah", "naturalforces", "newyears",
)  # fmt: skip
"""Folders of stamps without photographs, or of which one is like the other."""
LEAST_SIDE = 90
"""Shortest longer side of a photograph in a film, in pixels."""
LEAST_SOLID = 0.1
"""Least share of a photograph's pixels that hide the ground: sparks and poles are hardly seen."""
MOST_FLAT = 0.2
"""Share of equal neighbours among its pixels from which a stamp is drawn, not photographed."""
CATEGORIES = (
    "apple", "ball", "bird", "car", "deer", "fish", "flower", "mushroom", "rabbit", "tree",
)  # fmt: skip
"""Nouns' groups of which labelled trials are made, those first that come first."""


@dataclass(frozen=True)
class Scale:
    """How much is made.

    Attributes: ``films``; ``scenes``, photographs in each; ``stamps`` and ``emoji``, most of each
    in the general pool (null: all that is left); ``categories`` of the labelled trials and
    ``of_each``, pictures of every one; ``instances`` of Winoground; ``image_size`` in pixels.
    """

    name: str
    films: int
    scenes: int
    stamps: int | None
    emoji: int | None
    categories: int
    of_each: int
    instances: int
    image_size: int


FULL = Scale("full", 14, 12, None, 400, 8, 2, 12, 160)
SMALL = Scale("small", 3, 5, 50, 40, 4, 2, 2, 64)


@dataclass(frozen=True)
class Choice:
    """``films``: the photographs of each, in order; ``stamps`` and ``emoji`` of the pool;
    ``labels``: category -> its photographs."""

    films: list[list[Drawing]]
    stamps: list[Drawing]
    emoji: list[Drawing]
    labels: dict[str, list[Drawing]]


def is_photograph(drawing: Drawing) -> bool:
    """Whether a stamp is a photograph that is large enough to be filmed."""
    if len(drawing.files) != 1 or not drawing.files[0].endswith(".png"):
        return False  # stamps that also exist as vectors were drawn
    if set(drawing.key.split("/")) & set(_NO_PHOTOGRAPHS) or "outline" in drawing.key:
        return False
    with Image.open(drawing.files[0]) as picture:
        if max(picture.size) < LEAST_SIDE:
            return False
        pixels = np.asarray(picture.convert("RGBA"))
    solid = pixels[..., 3] > 250
    pairs = solid[:, 1:] & solid[:, :-1]
    same = (pixels[:, 1:, :3] == pixels[:, :-1, :3]).all(-1)
    return bool(solid.mean() > LEAST_SOLID and same[pairs].mean() < MOST_FLAT)


def choose(scale: Scale, seed: int) -> Choice:
    """Deal the drawings.

    Raises:
        ValueError: a package is missing, or there are fewer photographs than the films need.
    """
    every = collect_emoji()
    stamps = collect_stamps(every)
    rng = np.random.default_rng([seed, 41])
    photographs = _shuffled([d for d in stamps if is_photograph(d)], rng)
    labels = _labels(photographs, scale)
    used = {d.key for found in labels.values() for d in found}
    photographs = [d for d in photographs if d.key not in used]
    need = scale.films * scale.scenes
    if len(photographs) < need:
        raise ValueError(
            f"{len(photographs)} photographs among the stamps; the films need {need}: is "
            "tuxpaint-stamps-default complete?"
        )
    films = [photographs[k * scale.scenes : (k + 1) * scale.scenes] for k in range(scale.films)]
    used |= {d.key for d in photographs[:need]}
    rest = [d for d in stamps if d.key not in used]
    emoji = [d for d in every if d.vendor == "openmoji"]
    return Choice(films, _some(rest, scale.stamps, rng), _some(emoji, scale.emoji, rng), labels)


def _labels(photographs: Sequence[Drawing], scale: Scale) -> dict[str, list[Drawing]]:
    found: dict[str, list[Drawing]] = defaultdict(list)
    for drawing in photographs:
        found[drawing.group].append(drawing)
    wanted = [name for name in CATEGORIES if len(found[name]) > scale.of_each]
    return {name: found[name][: scale.of_each] for name in wanted[: scale.categories]}


def _shuffled(drawings: Sequence[Drawing], rng: np.random.Generator) -> list[Drawing]:
    return [drawings[k] for k in rng.permutation(len(drawings))]


def _some(drawings: list[Drawing], most: int | None, rng: np.random.Generator) -> list[Drawing]:
    if most is None:
        return drawings
    kept = set(rng.permutation(len(drawings))[:most].tolist())
    return [drawing for k, drawing in enumerate(drawings) if k in kept]


def file_name(drawing: Drawing) -> str:
    """A name for a file of this drawing: its key below the vendor, without folders."""
    return Path(drawing.key).as_posix().partition("/")[2].replace("/", "_")

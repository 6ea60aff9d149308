"""The frames of a corpus split that evaluation sets are made of, and their files."""

from __future__ import annotations

import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from dataprep.evalsets.files import sha256
from dataprep.files import write_whole
from engine import Corpus

OPEN_LICENCES = ("CC0", "CC-BY", "APACHE", "MIT", "BSD", "GPL", "LGPL", "PUBLIC DOMAIN")
"""How the licences begin under which pictures and words may be shown to others."""


@dataclass(frozen=True)
class Frame:
    """One picture of a split with the utterance that goes with it."""

    image: int
    row: int
    split: str
    pair: int
    utterance: str
    source: str
    """Of the picture."""
    words_source: str
    """Of the utterance."""
    group: str
    view: str
    key: str
    """File or record that the picture came from."""
    time_s: float | None


def is_restricted(source: dict[str, Any]) -> bool:
    """Whether a source of ``corpus.json`` must stay where it is.

    Its field ``restricted`` decides; without the field, every licence not known to be open does.
    """
    if "restricted" in source:
        return bool(source["restricted"])
    licence = str(source.get("licence", "")).upper()
    return not licence.startswith(OPEN_LICENCES)


def restricted_sources(info: dict[str, Any]) -> list[str]:
    """Names of the restricted sources of a ``corpus.json`` or ``evalset.json``, sorted."""
    return sorted(source["name"] for source in info["sources"] if is_restricted(source))


def frames_of(corpus: Corpus, split: str) -> list[Frame]:
    """Every pair of a split as a frame, in the order of the pairs' ids."""
    pairs = corpus.pairs(split)
    table = corpus.image_table
    return [
        Frame(
            image=int(image),
            row=int(pairs.row[i]),
            split=split,
            pair=int(pairs.id[i]),
            utterance=pairs.utterance[i],
            source=str(table["source"][image]),
            words_source=str(pairs.source[i]),
            group=str(pairs.group[i]),
            view=str(pairs.view[i]),
            key=str(table["key"][image]),
            time_s=None if np.isnan(pairs.time_s[i]) else float(pairs.time_s[i]),
        )
        for i, image in enumerate(pairs.image)
    ]


def choose_frames(
    frames: Iterable[Frame],
    *,
    per_utterance: int,
    per_picture: int = 1,
    limit: int | None,
    seed: int,
) -> list[Frame]:
    """By lot at most `per_utterance` frames of every (group, utterance) and `limit` in all.

    No picture is chosen with more than `per_picture` utterances. The result is in the order of the
    pairs' ids.
    """
    by_utterance: dict[tuple[str, str], list[Frame]] = defaultdict(list)
    for frame in frames:
        by_utterance[frame.group, frame.utterance].append(frame)
    rng = np.random.default_rng([seed, 21])
    taken: Counter[int] = Counter()
    chosen: list[Frame] = []
    spoken = list(by_utterance.values())
    for members in (spoken[k] for k in rng.permutation(len(spoken))):
        count = 0
        for k in rng.permutation(len(members)):
            if count < per_utterance and taken[members[k].image] < per_picture:
                taken[members[k].image] += 1
                chosen.append(members[k])
                count += 1
    if limit is not None and limit < len(chosen):
        chosen = [chosen[k] for k in rng.permutation(len(chosen))[:limit]]
    return sorted(chosen, key=lambda frame: frame.pair)


def path_from(folder: Path, file: Path) -> str:
    """A file's path relative to a folder, with slashes."""
    return Path(os.path.relpath(file.resolve(), folder.resolve())).as_posix()


class Pictures:
    """Where the pictures of a set lie: written into it, or left where their owner holds them.

    Args:
        corpus: the corpus they come from.
        folder: the set's folder, in which ``images/`` is made.
        pictures_from: folder in which every frame lies under its key; nothing is copied then.
        allow_restricted: whether frames of restricted sources may be written into the set.
    """

    def __init__(
        self, corpus: Corpus, folder: Path, pictures_from: Path | None, allow_restricted: bool
    ) -> None:
        self.corpus, self.folder, self.pictures_from = corpus, folder, pictures_from
        self._restricted = set(restricted_sources(corpus.info))
        self._allowed = allow_restricted

    def stored(self, frame: Frame) -> bytes:
        """The picture's bytes as the corpus holds them (a JPEG, or a PNG of raw pixels)."""
        reader = self.corpus.images(frame.split)
        data = reader.stored(frame.row).tobytes()
        if data[:2] == b"\xff\xd8":
            return data
        out = io.BytesIO()
        reader.picture(frame.row).save(out, "PNG")
        return out.getvalue()

    def pixels(self, frame: Frame) -> np.ndarray:
        """The picture as uint8 [H, W, 3]."""
        return self.corpus.images(frame.split).pixels(frame.row)

    def picture(self, frame: Frame) -> Image.Image:
        """The picture, RGB."""
        return self.corpus.images(frame.split).picture(frame.row)

    def place(self, frame: Frame) -> tuple[str, str]:
        """The picture's path from the set's folder and its SHA-256; it is written where needed.

        Raises:
            ValueError: the frame is restricted and may neither be copied nor is it at hand.
        """
        if self.pictures_from is not None:
            name = PurePosixPath(frame.key)
            file = self.pictures_from / name
            if not frame.key or name.is_absolute() or ".." in name.parts or not file.is_file():
                raise ValueError(
                    f"{self.pictures_from}: no picture {frame.key!r} (key of image {frame.image} "
                    f"of {self.corpus.path}); --pictures-from is the folder that keys start from"
                )
            return path_from(self.folder, file), sha256(file.read_bytes())
        self.check(frame)
        data = self.stored(frame)
        name = f"images/{frame.image:07d}.{'jpg' if data[:2] == bytes((255, 216)) else 'png'}"
        target = self.folder / name
        if not target.is_file() or target.read_bytes() != data:
            write_whole(target, data)
        return name, sha256(data)

    def check(self, frame: Frame) -> None:
        """ValueError when the frame's picture may not be written."""
        if frame.source in self._restricted and not self._allowed:
            raise ValueError(
                f"{self.corpus.path}: pictures of source {frame.source!r} are restricted and are "
                "not copied; give --pictures-from DIR with the owner's files, or "
                "--allow-restricted to write them into the set"
            )

"""Reading a corpus directory: its pictures, pairs and counts, checked against each other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.beton import BetonReader

FORMAT = 1
PAIRS = pa.schema(
    [
        ("id", pa.int64()),
        ("split", pa.string()),
        ("image", pa.int64()),
        ("utterance", pa.string()),
        ("source", pa.string()),
        ("group", pa.string()),
        ("time_s", pa.float64()),
        ("similarity", pa.float64()),
        ("provenance", pa.string()),
    ]
)
IMAGES = pa.schema(
    [
        ("image", pa.int64()),
        ("split", pa.string()),
        ("row", pa.int64()),
        ("view", pa.string()),
        ("source", pa.string()),
        ("key", pa.string()),
        ("crc32", pa.uint32()),
        ("size_bytes", pa.int64()),
    ]
)


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs of one split as columns, in the order of their ids (n of them).

    Attributes:
        id: int64 [n], the pair's id in the whole corpus.
        image: int64 [n], the image's id in the whole corpus.
        row: int64 [n], the image's row in the split's ``.beton``.
        utterance: the words as they were written, n strings.
        source: where each pair comes from, object [n].
        group: concept, utterance or recording, object [n].
        view: drawing or frame of the pair's image, object [n].
        time_s: float64 [n], time of the utterance in its recording, NaN where unknown.
        similarity: float64 [n], measured image-text similarity, NaN where unknown.
        provenance: how the words were made, object [n]; empty where they are original.
    """

    id: NDArray[np.int64]
    image: NDArray[np.int64]
    row: NDArray[np.int64]
    utterance: list[str]
    source: NDArray[np.object_]
    group: NDArray[np.object_]
    view: NDArray[np.object_]
    time_s: NDArray[np.float64]
    similarity: NDArray[np.float64]
    provenance: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.id)


class Corpus:
    """A corpus directory, opened and checked; made by :func:`read_corpus`.

    Attributes: ``path``; ``info``, the contents of ``corpus.json``; ``image_table``, the columns
    of ``images.parquet`` as a dict of arrays (image, split, row, view, source, key, crc32,
    size_bytes), one entry an image, in the order of the image ids.
    """

    def __init__(self, path: Path, info: dict[str, Any]) -> None:
        self.path = path
        self.info = info
        self._pairs: dict[str, Pairs] = {}
        self._betons: dict[str, BetonReader] = {}

    @property
    def name(self) -> str:
        """Name of the corpus."""
        return self.info["name"]

    @property
    def image_size(self) -> int:
        """Side of every picture in pixels."""
        return self.info["image_size"]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.info["splits"])

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``corpus.json``, which lists the hash of every file: names the contents."""
        return hashlib.sha256((self.path / "corpus.json").read_bytes()).hexdigest()

    @cached_property
    def image_table(self) -> dict[str, NDArray[Any]]:
        """The columns of ``images.parquet``."""
        return _columns(self.path / "images.parquet", IMAGES)

    @cached_property
    def _pair_table(self) -> dict[str, NDArray[Any]]:
        return _columns(self.path / "pairs.parquet", PAIRS)

    def _check_split(self, split: str) -> None:
        if split not in self.splits:
            raise ValueError(
                f"{self.path}: no split {split!r}; it has {', '.join(self.splits) or 'none'}"
            )

    def image_rows(self, split: str) -> NDArray[np.int64]:
        """Entries of :attr:`image_table` that belong to ``split``, by row of its ``.beton``."""
        self._check_split(split)
        entries = np.flatnonzero(self.image_table["split"] == split)
        return entries[np.argsort(self.image_table["row"][entries], kind="stable")]

    def pairs(self, split: str) -> Pairs:
        """The pairs of a split; ``ValueError`` when there is no such split."""
        self._check_split(split)
        if split not in self._pairs:
            table = self._pair_table
            chosen = np.flatnonzero(table["split"] == split)
            images = table["image"][chosen]
            self._pairs[split] = Pairs(
                id=table["id"][chosen],
                image=images,
                row=self.image_table["row"][images],
                utterance=list(table["utterance"][chosen]),
                source=table["source"][chosen],
                group=table["group"][chosen],
                view=self.image_table["view"][images],
                time_s=table["time_s"][chosen],
                similarity=table["similarity"][chosen],
                provenance=table["provenance"][chosen],
            )
        return self._pairs[split]

    def images(self, split: str) -> BetonReader:
        """The pictures of a split; ``ValueError`` when there is no such split."""
        self._check_split(split)
        if split not in self._betons:
            self._betons[split] = BetonReader(self.path / f"{split}.beton")
        return self._betons[split]

    def check(self) -> None:
        """Compare ``corpus.json``, both tables and every ``.beton``; ``ValueError`` on a mismatch.

        Counts, ids and sizes are compared here, the pictures' bytes (CRC-32) when they are read.
        """
        images, pairs = self.image_table, self._pair_table
        _expect(
            np.array_equal(images["image"], np.arange(len(images["image"]))),
            f"{self.path}/images.parquet: image ids are not 0, 1, 2, ...",
        )
        _expect(
            len(np.unique(pairs["id"])) == len(pairs["id"]),
            f"{self.path}/pairs.parquet: pair ids are not unique",
        )
        _expect(
            set(images["split"]) | set(pairs["split"]) <= set(self.splits),
            f"{self.path}/corpus.json: lists the splits {', '.join(self.splits)}, the tables "
            f"have {', '.join(sorted(set(images['split']) | set(pairs['split'])))}",
        )
        outside = (pairs["image"] < 0) | (pairs["image"] >= len(images["image"]))
        _expect(
            not outside.any(),
            f"{self.path}/pairs.parquet: {int(outside.sum())} pairs name an image that "
            "images.parquet does not list",
        )
        moved = images["split"][pairs["image"]] != pairs["split"]
        _expect(
            not moved.any(),
            f"{self.path}/pairs.parquet: {int(moved.sum())} pairs are in another split "
            "than their image",
        )
        for split, counts in self.info["splits"].items():
            self._check_images(split, counts)

    def _check_images(self, split: str, counts: dict[str, int]) -> None:
        entries = self.image_rows(split)
        found_pairs = len(self.pairs(split))
        beton = self.images(split)
        _expect(
            counts == {"images": len(entries), "pairs": found_pairs},
            f"{self.path}/corpus.json: split {split} should have {counts['images']} images and "
            f"{counts['pairs']} pairs, the tables have {len(entries)} and {found_pairs}",
        )
        if len(beton) != len(entries):
            raise ValueError(
                f"{beton.path}: {len(beton)} images, but images.parquet and pairs.parquet "
                f"describe {len(entries)} of split {split}"
            )
        _expect(
            np.array_equal(self.image_table["row"][entries], np.arange(len(entries))),
            f"{self.path}/images.parquet: rows of split {split} are not 0, 1, 2, ...",
        )
        for expected, found, what in (
            (self.image_table["image"][entries], beton.image_ids, "image id"),
            (self.image_table["size_bytes"][entries], beton.sizes, "size in bytes"),
            (np.full(len(entries), self.image_size), beton.heights, "height"),
            (np.full(len(entries), self.image_size), beton.widths, "width"),
        ):
            wrong = np.flatnonzero(expected != found)
            if len(wrong):
                row = int(wrong[0])
                raise ValueError(
                    f"{beton.path}: row {row} has {what} {found[row]}, the corpus's tables say "
                    f"{expected[row]}: the file does not belong to images.parquet/pairs.parquet"
                )


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _columns(path: Path, schema: pa.Schema) -> dict[str, NDArray[Any]]:
    """The columns of a parquet file as numpy arrays; nulls of float columns become NaN."""
    if not path.is_file():
        raise ValueError(f"{path}: missing from the corpus")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from None
    if not table.schema.equals(schema):
        raise ValueError(
            f"{path}: columns are {', '.join(table.schema.names)}; "
            f"accepted: {', '.join(f'{field.name} {field.type}' for field in schema)}"
        )
    return {name: np.asarray(table[name].to_numpy(zero_copy_only=False)) for name in schema.names}


def read_corpus(path: str | os.PathLike[str]) -> Corpus:
    """Open a corpus directory and check that its files belong together.

    Raises ``ValueError`` with one line when the directory is missing or its ``corpus.json``,
    tables and ``.beton`` files disagree.
    """
    path = Path(path)
    manifest = path / "corpus.json"
    if not manifest.is_file():
        raise ValueError(
            f"no corpus at {path} (no corpus.json); make one, for example with "
            f"`python -m dataprep picturebook --out {path}`"
        )
    try:
        info = json.loads(manifest.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{manifest}: not JSON ({error})") from None
    wanted = ("format", "name", "image_size", "splits", "sources")
    absent: Sequence[str] = [key for key in wanted if not isinstance(info, dict) or key not in info]
    if absent:
        raise ValueError(f"{manifest}: lacks {', '.join(absent)}")
    if info["format"] != FORMAT:
        raise ValueError(f"{manifest}: format {info['format']}; accepted: {FORMAT}")
    corpus = Corpus(path, info)
    corpus.check()
    return corpus

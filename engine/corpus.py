"""The corpus format: a directory of pictures and utterances, and its one writer and reader.

    corpus.json      name, version, sources with their licences, counts, sha256 of every file
    pairs.parquet    one row a pair: id, split, image, utterance, source, group, time_s, ...
    images.parquet   one row an image: image, split, row, view, source, key, crc32, size_bytes
    <split>.beton    the pictures (FFCV's container): an RGB image and its id, nothing else

Text never goes into the ``.beton``, so that another tokeniser never rewrites a picture, and
several pairs may share an image. ``group`` is what must not straddle train and a test of new
things, ``view`` what must not straddle train and a test of new views of known things.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from engine.beton import BetonWriter, check_jpeg, encode_jpeg
from engine.corpus_read import FORMAT, IMAGES, PAIRS, Corpus, Pairs, read_corpus
from engine.files import fsync, recover_directory, replace_directory, sha256_file

__all__ = ["Corpus", "CorpusWriter", "Pairs", "Source", "read_corpus"]


@dataclass(frozen=True)
class Source:
    """Where pictures or words of a corpus come from, and under which licence."""

    name: str
    licence: str
    url: str
    notes: str = ""


def _remove_stale(path: Path) -> None:
    """Delete half-written siblings whose writer is gone (killed before it could clean up)."""
    recover_directory(path)
    for stale in path.parent.glob(f"{path.name}.tmp-*"):
        pid = stale.name.rsplit("-", 1)[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(stale, ignore_errors=True)


class CorpusWriter:
    """Writes a corpus directory; it appears under its name only when it is whole.

    A context manager: everything goes to ``<path>.tmp-<pid>``, which is renamed to ``path`` on
    leaving the block without an error and deleted otherwise. The same calls give the same bytes.

    Args:
        path: directory to make.
        name: name of the corpus, e.g. ``picturebook``.
        version: version of its contents.
        image_size: side of every picture in pixels.
        sources: every source that images and pairs name.
        made_by: how it was made (command, seed, package versions); stored as JSON.
        notes: free text (templates used, what is synthetic).
        jpeg_quality: quality at which pixel arrays are encoded, 1 to 100.
        overwrite: replace an existing corpus at ``path`` when the new one is whole.

    Raises ``ValueError`` when ``path`` exists and ``overwrite`` is off.

    >>> with CorpusWriter(path, name="demo", version="1", image_size=64,
    ...                   sources=[Source("mine", "CC0-1.0", "")], made_by={}) as writer:
    ...     image = writer.add_image("train", pixels, view="mine/1", source="mine")
    ...     writer.add_pair(image, "look , a ball", source="mine", group="ball")
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        name: str,
        version: str,
        image_size: int,
        sources: Iterable[Source],
        made_by: Mapping[str, Any],
        notes: str = "",
        jpeg_quality: int = 95,
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self.image_size = image_size
        self._name, self._version, self._notes = name, version, notes
        self._sources = list(sources)
        self._known_sources = {source.name for source in self._sources}
        self._made_by = dict(made_by)
        self._quality = jpeg_quality
        self._overwrite = overwrite
        if self.path.exists() and not overwrite:
            raise ValueError(f"{self.path} exists already; remove it or ask to overwrite it")
        self._work = self.path.with_name(f"{self.path.name}.tmp-{os.getpid()}")
        self._betons: dict[str, BetonWriter] = {}
        self._image_rows: list[dict[str, Any]] = []
        self._pair_rows: list[dict[str, Any]] = []
        self._files: list[str] = []

    def __enter__(self) -> CorpusWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(self.path)
        shutil.rmtree(self._work, ignore_errors=True)
        self._work.mkdir()
        return self

    def _check_source(self, source: str, what: str) -> None:
        if source not in self._known_sources:
            known = ", ".join(sorted(self._known_sources)) or "none"
            raise ValueError(f"{what}: source {source!r} is not declared; declared: {known}")

    def add_image(
        self,
        split: str,
        picture: NDArray[np.uint8] | bytes,
        *,
        view: str,
        source: str,
        key: str = "",
    ) -> int:
        """Add a picture to a split and return its id (consecutive over the whole corpus).

        ``picture`` is uint8 [S, S, 3] with S = ``image_size`` or the bytes of such a JPEG, which
        are checked by decoding them and stored as they are. ``view`` names the drawing or frame,
        ``key`` the file or record it came from (used in error messages).
        """
        image = len(self._image_rows)
        what = f"image {image} (split {split}, key {key or view!r})"
        self._check_source(source, what)
        if not split or not set(split) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_"):
            raise ValueError(f"{what}: split names have a-z, 0-9, - and _")
        if not view:
            raise ValueError(f"{what}: view is empty; name the drawing or frame")
        size = self.image_size
        if isinstance(picture, bytes):
            try:
                shape = check_jpeg(picture)
            except ValueError as error:
                raise ValueError(f"{what}: {error}") from None
            if shape != (size, size):
                raise ValueError(f"{what}: {shape[0]}x{shape[1]} JPEG; accepted: {size}x{size}")
            jpeg = picture
        else:
            if picture.dtype != np.uint8 or picture.shape != (size, size, 3):
                raise ValueError(
                    f"{what}: {picture.dtype} array of shape {picture.shape}; "
                    f"accepted: uint8 ({size}, {size}, 3) or JPEG bytes"
                )
            jpeg = encode_jpeg(picture, self._quality)
        if split not in self._betons:
            self._betons[split] = BetonWriter(self._work / f"{split}.beton")
        beton = self._betons[split]
        row = beton.add(jpeg, image, size, size)
        self._image_rows.append(
            {
                "image": image,
                "split": split,
                "row": row,
                "view": view,
                "source": source,
                "key": key,
                "crc32": zlib.crc32(jpeg),
                "size_bytes": len(jpeg),
            }
        )
        return image

    def add_pair(
        self,
        image: int,
        utterance: str,
        *,
        source: str,
        group: str,
        time_s: float | None = None,
        similarity: float | None = None,
        provenance: str = "",
    ) -> int:
        """Add an utterance for an image (into the image's split) and return the pair's id.

        ``group`` is the concept, utterance or recording; ``time_s`` the time of the utterance in
        its recording; ``similarity`` what an image-text filter measured; ``provenance`` how the
        words were made (for example a template's or prompt's name), empty when they are original.
        """
        pair = len(self._pair_rows)
        what = f"pair {pair} (image {image}, {utterance!r})"
        self._check_source(source, what)
        if not 0 <= image < len(self._image_rows):
            raise ValueError(f"{what}: no such image; {len(self._image_rows)} were added")
        if not utterance.strip():
            raise ValueError(f"{what}: the utterance is empty")
        if not group:
            raise ValueError(f"{what}: group is empty; name the concept, utterance or recording")
        self._pair_rows.append(
            {
                "id": pair,
                "split": self._image_rows[image]["split"],
                "image": image,
                "utterance": utterance,
                "source": source,
                "group": group,
                "time_s": time_s,
                "similarity": similarity,
                "provenance": provenance,
            }
        )
        return pair

    def add_file(self, relative_path: str) -> Path:
        """Where to write an extra file of the corpus (its folder is made); hashed at the end."""
        target = Path(relative_path)
        if target.is_absolute() or ".." in target.parts:
            raise ValueError(f"{relative_path}: extra files lie inside the corpus directory")
        self._files.append(target.as_posix())
        (self._work / target).parent.mkdir(parents=True, exist_ok=True)
        return self._work / target

    def _finish(self) -> None:
        for beton in self._betons.values():
            beton.close()
        pq.write_table(pa.Table.from_pylist(self._pair_rows, PAIRS), self._work / "pairs.parquet")
        pq.write_table(
            pa.Table.from_pylist(self._image_rows, IMAGES), self._work / "images.parquet"
        )
        splits = {
            split: {
                "images": len(beton),
                "pairs": sum(pair["split"] == split for pair in self._pair_rows),
            }
            for split, beton in self._betons.items()
        }
        names = ["pairs.parquet", "images.parquet", *(f"{split}.beton" for split in splits)]
        for name in (missing := dict.fromkeys(self._files)):
            if not (self._work / name).is_file():
                raise ValueError(f"{name}: announced with add_file but never written")
        files = {}
        for name in [*names, *missing]:
            file = self._work / name
            fsync(file)
            files[name] = {"sha256": sha256_file(file), "size_bytes": file.stat().st_size}
        info = {
            "format": FORMAT,
            "name": self._name,
            "version": self._version,
            "image_size": self.image_size,
            "splits": splits,
            "sources": [asdict(source) for source in self._sources],
            "made_by": self._made_by,
            "notes": self._notes,
            "files": files,
        }
        manifest = self._work / "corpus.json"
        manifest.write_text(json.dumps(info, indent=2, ensure_ascii=False) + "\n", "utf-8")
        fsync(manifest)
        fsync(self._work)
        replace_directory(self._work, self.path)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            for beton in self._betons.values():
                beton.abort()
            shutil.rmtree(self._work, ignore_errors=True)

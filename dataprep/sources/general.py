"""General pictures with captions, in any of the usual layouts, as a corpus.

Rows that cannot be used (no picture, a damaged one, no words) are counted and listed, never fatal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dataprep.files import sha256_file
from dataprep.sources.kept import Kept, kept_folder, kept_until_whole
from dataprep.sources.layouts import Row, read_csv, read_llava, read_tsv, read_webdataset
from dataprep.sources.pictures import Fit, Prepared, Store, open_store
from dataprep.sources.prepare import prepare, prepared_in_order
from dataprep.sources.splits import SHARES
from dataprep.sources.write import Dead, Ingest, Origin, check_out, no_space_named, summary
from engine import Source

__all__ = ["KINDS", "LLAVA", "Layout", "ingest_general"]

KINDS = ("llava", "csv", "tsv", "webdataset")
LLAVA = Source(
    "llava-pretrain",
    "mixed: see the terms of CC3M, LAION and SBU",
    "https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain",
    "558,128 pictures of CC3M, LAION and SBU with BLIP captions (Liu et al. 2023)",
)


@dataclass(frozen=True)
class Layout:
    """Which rows to read and how.

    Attributes: ``kind``, one of `KINDS`; ``files``, pairs of a split's name (empty: by `rule`) and
    a file; ``rule``, ``train`` or ``random`` (by picture, at the published shares); ``columns``,
    names of a CSV's columns with the picture and the words, or the order of a TSV without header.
    """

    kind: str
    files: tuple[tuple[str, Path], ...]
    rule: str = "train"
    columns: tuple[str, str] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r}: accepted are {', '.join(KINDS)}")
        if self.rule not in ("train", "random"):
            raise ValueError(f"--split {self.rule}: accepted for {self.kind} are train, random")
        if self.kind == "tsv" and self.columns and set(self.columns) != {"image", "text"}:
            raise ValueError(
                f"--columns {','.join(self.columns)}: accepted for tsv are image,text or text,image"
            )
        for _, path in self.files:
            if not path.is_file():
                raise ValueError(f"{path}: no such file")

    def rows(self, path: Path) -> Iterator[Row | Dead]:
        """The rows of one file."""
        if self.kind == "llava":
            return read_llava(path)
        if self.kind == "webdataset":
            return read_webdataset(path)
        if self.kind == "csv":
            return read_csv(path, *(self.columns or ("image", "text")))
        return read_tsv(path, self.columns or ("text", "image"))

    def split(self, given: str, name: str, seed: int) -> str:
        """The split of a picture: a picture is in one split only, whoever speaks of it."""
        if given:
            return given
        if self.rule == "train":
            return "train"
        draw = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        share = int.from_bytes(draw[:8], "big") / 2**64
        if share < SHARES["train"]:
            return "train"
        return "val" if share < SHARES["train"] + SHARES["val"] else "test"


def ingest_general(
    layout: Layout,
    pictures: Path | None,
    out: Path,
    *,
    source: Source,
    image_size: int = 224,
    fit: Fit = "pad",
    seed: int = 0,
    limit: int | None = None,
    workers: int | None = None,
    jpeg_quality: int = 95,
    force: bool = False,
    progress: bool = True,
) -> None:
    """Make a corpus of general pictures.

    Args:
        layout: the files of rows.
        pictures: folder or zip of pictures; null: beside each file of rows (a tar has its own).
        out: corpus directory to make.
        source: whose pictures they are, and under which licence.
        image_size: side of the pictures in pixels.
        fit: how a picture becomes square, see `dataprep.sources.pictures.made_square`.
        seed: of the random split.
        limit: only the first rows of every file.
        workers: threads that prepare pictures (null: one a processor).
        jpeg_quality: 1 to 100.
        force: replace an existing corpus.
        progress: show a bar.

    Raises:
        ValueError: a file is not of its layout, half a zip, or no row could be used.
        OSError: a full disk; the pictures made are kept for the next run of the same call.
    """
    if not 1 <= image_size <= 4096:
        raise ValueError(f"--image-size {image_size}: accepted are 1 to 4096 pixels")
    check_out(out, force)
    store = open_store(pictures) if pictures is not None else None
    ingest = Ingest(
        out, name=source.name, image_size=image_size, sources=[source],
        command=f"python -m dataprep ingest --kind {layout.kind}",
        facts={
            "files": [path.name for _, path in layout.files], "split": layout.rule, "seed": seed,
            "fit": fit, "limit": limit, "jpeg_quality": jpeg_quality,
        },
        notes="Group and view: the picture.", jpeg_quality=jpeg_quality, force=force,
    )  # fmt: skip
    folder = kept_folder(out)
    advice = f"what is made is kept in {folder}; free some and run again"
    with no_space_named(out, advice), kept_until_whole(folder), ingest:
        for number, (given, path) in enumerate(layout.files):
            digest = sha256_file(path)
            ingest.add_input(path.name, digest, path.stat().st_size)
            beside = store
            if beside is None and layout.kind != "webdataset":
                beside = open_store(path.parent)

            def work(row: Row | Dead, beside: Store | None = beside) -> Prepared | str | None:
                if isinstance(row, Dead) or not row.text.strip():
                    return None
                return prepare(_reader(row, beside), image_size, fit, jpeg_quality)

            about = [
                digest, layout.kind, layout.columns, limit, image_size, fit, jpeg_quality,
                None if beside is None else beside.facts,
            ]  # fmt: skip
            with Kept(folder / f"{number}.bin", about) as kept:
                _add(
                    ingest, layout, given, path, work, source, seed, limit, workers, progress,
                    beside, kept,
                )  # fmt: skip
    print(f"{out}: {summary(ingest)}")


def _reader(row: Row, store: Store | None) -> Callable[[], bytes]:
    if row.data is not None:
        data = row.data
        return lambda: data
    assert store is not None  # only rows of tars bring their pictures
    return lambda: store.read(row.image)


def _limited(rows: Iterator[Row | Dead], limit: int | None, bar: tqdm[Any]) -> Iterator[Row | Dead]:
    for number, row in enumerate(rows):
        if limit is not None and number >= limit:
            return
        bar.update()
        yield row


def _add(
    ingest: Ingest, layout: Layout, given: str, path: Path,
    work: Callable[[Row | Dead], Prepared | str | None], source: Source, seed: int,
    limit: int | None, workers: int | None, progress: bool, store: Store | None, kept: Kept,
) -> None:  # fmt: skip
    ids: dict[tuple[str, str], int] = {}
    shard = path.stem if layout.kind == "webdataset" else ""
    with tqdm(
        total=_count(layout.kind, path, limit), unit="row", desc=path.name, disable=not progress
    ) as bar:
        rows = _limited(layout.rows(path), limit, bar)
        for row, made in prepared_in_order(rows, work, workers, kept):
            if isinstance(row, Dead):
                ingest.leave_out(row)
                continue
            if made is None:
                ingest.leave_out(Dead(row.file, row.where, row.image, "no words"))
                continue
            if isinstance(made, str):
                ingest.leave_out(Dead(row.file, row.where, row.image, made))
                continue
            name = f"{shard}/{row.image}" if shard else row.image
            view = f"{source.name}/{name}"
            split = layout.split(given, name, seed)
            image = ids.get((split, name))
            if image is None:
                label = path.name if store is None else store.label
                image = ingest.add_image(
                    split, made.jpeg, view=view, source=source.name, key=row.image,
                    origin=Origin(label, made.sha256, row.image),
                )  # fmt: skip
                ids[split, name] = image
            ingest.add_pair(image, row.text.strip(), source=source.name, group=view)


def _count(kind: str, path: Path, limit: int | None) -> int | None:
    """About how many rows a file has, for the bar; None where only reading tells."""
    if kind == "webdataset":
        return limit
    mark = b'"conversations"' if kind == "llava" else b"\n"
    count, tail = 0, b""
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            count += (tail + chunk).count(mark)
            tail = chunk[-len(mark) + 1 :] if len(mark) > 1 else b""
    return min(count, limit) if limit is not None else count

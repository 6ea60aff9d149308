"""Small corpora of drawn scenes and near-duplicates; a real open_clip model of toy size."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataprep.sources.write import ORIGINS
from engine import Corpus, CorpusWriter, Source, read_corpus

SIZE = 48
WORDS = "look at the red blue green ball dog cup car a big small one there yes no more".split()
Pixels = NDArray[np.uint8]

TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 32},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def scene(seed: int, size: int = SIZE) -> Pixels:
    """A picture of a slope of two colours with some boxes, uint8 ``[size, size, 3]``."""
    draw = np.random.default_rng(seed)
    a, b = draw.integers(0, 256, (2, 3))
    slope = draw.normal(size=2)
    y, x = np.mgrid[0:size, 0:size] / size
    t = np.clip(0.5 + slope[0] * (x - 0.5) + slope[1] * (y - 0.5), 0, 1)[..., None]
    picture = a * t + b * (1 - t)
    for _ in range(6):
        top, left = draw.integers(0, size - 6, 2)
        high, wide = draw.integers(5, size // 2, 2)
        picture[top : top + high, left : left + wide] = draw.integers(0, 256, 3)
    return picture.astype(np.uint8)


def jitter(picture: Pixels, seed: int) -> Pixels:
    """The next frame: a little brighter, a little noise."""
    draw = np.random.default_rng(seed)
    out = picture.astype(float) * draw.uniform(0.95, 1.05) + draw.normal(0, 1.5, picture.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


def utterance(seed: int) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, 5))


def writer(path: Path, name: str = "small", sources: Sequence[str] = ("mine",)) -> CorpusWriter:
    return CorpusWriter(
        path, name=name, version="1", image_size=SIZE, made_by={},
        sources=[Source(source, "CC0-1.0", "") for source in sources],
    )  # fmt: skip


def video_corpus(path: Path, recordings: int = 6, scenes: int = 4, frames: int = 5) -> Corpus:
    """Recordings of scenes of near-duplicate frames, one utterance a frame, all in ``train``."""
    with writer(path, "frames") as out:
        for recording in range(recordings):
            time_s = 0.0
            for number in range(scenes):
                first = scene(1000 * recording + number)
                for frame in range(frames):
                    seed = 10_000 * recording + 100 * number + frame
                    image = out.add_image("train", jitter(first, seed) if frame else first,
                                          view=f"R{recording}_{number}_{frame}", source="mine",
                                          key=f"R{recording}.mp4")  # fmt: skip
                    out.add_pair(image, utterance(seed), source="mine", group=f"R{recording}",
                                 time_s=time_s)  # fmt: skip
                    time_s += 1.0
    return read_corpus(path)


def pool_corpus(path: Path, pictures: int = 60, sources: Sequence[str] = ("cc", "sbu")) -> Corpus:
    """General pictures, each with one rewritten utterance and what is known of it."""
    with writer(path, "pool", sources) as out:
        for number in range(pictures):
            source = sources[number % len(sources)]
            image = out.add_image("train", scene(77_000 + number), view=f"{source}/{number}",
                                  source=source, key=f"{number:05}.jpg")  # fmt: skip
            known = json.dumps({"request": f"{number:064x}"}) if number % 2 else "plain"
            out.add_pair(image, utterance(500 + number), source=source, group=f"{source}/{number}",
                         provenance=known, similarity=0.25)  # fmt: skip
        rows = [(n, f"{n}.png", f"{n:064x}", None, None) for n in range(pictures)]
        origins = [dict(zip(ORIGINS.names, row, strict=True)) for row in rows]
        pq.write_table(pa.Table.from_pylist(origins, ORIGINS), out.add_file("origins.parquet"))
        out.add_file("inputs.csv").write_text("file,sha256,size_bytes\n")
    return read_corpus(path)


def tiny_clip(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """Make an open_clip repository: configuration and random weights. Returns the folder."""
    import open_clip
    import torch

    folder.mkdir(parents=True)
    config = {**TINY, **changes}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}), "utf-8")
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder


def run(add_commands: Callable[[Any], None], *words: str | Path) -> None:
    """Run a command of a package as its command line does."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args([str(word) for word in words])
    arguments.run(arguments)

"""``python -m engine.bench_loader``: FFCV beside torch's DataLoader with PIL.

Both loaders see the same JPEG pictures and do the same work: decode, cut the same random resized
crops, scale them to 224 pixels, normalise to float. Epochs of the two alternate, so that whatever
else the machine does falls on both; each pair is run ``--repeat`` times after one warm-up epoch
(which also pays FFCV's compilation and the start of the worker processes). CPU seconds include
worker processes. The best epoch counts: interference only ever adds time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from engine.augment import AugmentConfig, normalise, random_crops
from engine.corpus import Corpus, CorpusWriter, Source, read_corpus
from engine.files import write_atomically
from engine.images import DataConfig, ImageStream, open_images

SIDE, SIZE, BATCH = 256, 224, 64
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROP = AugmentConfig(crop_scale=(0.08, 1.0))


def natural_picture(generator: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """A picture with the 1/f spectrum of photographs (which sets the size of a JPEG)."""
    total = np.zeros((side, side, 3))
    octave = 4
    while octave <= side:
        coarse = generator.integers(0, 256, (octave, octave, 3), dtype=np.uint8)
        scaled = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        total += (np.asarray(scaled, dtype=float) - 127.5) * (4 / octave)
        octave *= 2
    return np.clip(total + 127.5, 0, 255).astype(np.uint8)


def make_corpus(path: Path, num: int, side: int = SIDE) -> Corpus:
    """``num`` pictures of ``side`` pixels as JPEG of quality 90, without pairs."""
    generator = np.random.default_rng(0)
    source = Source("noise", "CC0-1.0", "", "made by this benchmark")
    with CorpusWriter(
        path,
        name="loader-benchmark",
        version="1",
        image_size=side,
        sources=[source],
        made_by={"seed": 0},
        jpeg_quality=90,
    ) as writer:
        for number in tqdm(range(num), desc="pictures", unit="img", mininterval=2):
            writer.add_image(
                "train", natural_picture(generator, side), view=str(number), source="noise"
            )
    return read_corpus(path)


def cpu_seconds() -> float:
    """CPU time of this process and its living children so far."""
    me = psutil.Process()
    times = [process.cpu_times() for process in [me, *me.children(recursive=True)]]
    return sum(t.user + t.system for t in times)


def epoch(images: ImageStream, num: int, side: int, number: int) -> tuple[float, float]:
    """(wall, CPU) seconds of one epoch of ``num`` pictures of ``side`` pixels."""
    rows = np.random.default_rng(number).permutation(num)
    crops = random_crops(rows, seed=0, epoch=number, config=CROP, height=side, width=side)
    sizes = [min(BATCH, num - first) for first in range(0, num, BATCH)]
    wall, cpu = time.perf_counter(), cpu_seconds()
    for batch in images.stream(rows, sizes, crops):
        normalise(batch, MEAN, STD)
    return time.perf_counter() - wall, cpu_seconds() - cpu


def compare(corpus: Corpus, split: str, workers: int, repeat: int) -> dict[str, dict[str, float]]:
    """Best images/s by wall clock and per CPU-second of both loaders."""
    num = len(corpus.images(split))
    streams = {
        name: open_images(
            corpus,
            split,
            size=SIZE,
            config=DataConfig(loader=name, workers=workers, batch=BATCH, ram_cache_bytes=0),
        )
        for name in ("ffcv", "torch")
    }
    best = {name: [float("inf"), float("inf")] for name in streams}
    try:
        for number in range(repeat + 1):
            for name, images in streams.items():
                seconds = epoch(images, num, corpus.image_size, number)
                if number:
                    best[name] = [min(a, b) for a, b in zip(best[name], seconds, strict=True)]
    finally:
        for images in streams.values():
            images.close()
    return {
        name: {"images_per_s": num / wall, "images_per_cpu_s": num / cpu}
        for name, (wall, cpu) in best.items()
    }


def run(corpus: Corpus, split: str, workers: list[int], repeat: int) -> list[dict[str, object]]:
    """Compare for each number of workers and print a table; returns its rows."""
    sizes = corpus.images(split).sizes
    print(
        f"{len(sizes)} JPEG pictures of {corpus.image_size} px ({sizes.mean() / 1000:.1f} kB each),"
        f" random resized crop to {SIZE}, normalised to float; {os.cpu_count()} CPUs"
    )
    print(f"{'workers':>7}  {'loader':<15}  {'img/s':>8}  {'img per CPU-s':>13}")
    rows: list[dict[str, object]] = []
    for count in workers:
        found = compare(corpus, split, count, repeat)
        for name, label in (("ffcv", "FFCV"), ("torch", "DataLoader+PIL")):
            wall, cpu = found[name]["images_per_s"], found[name]["images_per_cpu_s"]
            print(f"{count:>7}  {label:<15}  {wall:>8.0f}  {cpu:>13.0f}")
            rows.append({"workers": count, "loader": label, **found[name]})
        ratios = [found["ffcv"][key] / found["torch"][key] for key in found["ffcv"]]
        print(f"{count:>7}  {'ratio':<15}  {ratios[0]:>8.2f}  {ratios[1]:>13.2f}")
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m engine.bench_loader", description=__doc__)
    parser.add_argument("--corpus", type=Path, help="corpus to read; default: one is made")
    parser.add_argument("--split", default="train")
    parser.add_argument("--num", type=int, default=2000, help="pictures to make (default 2000)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeat", type=int, default=3, help="timed epochs (default 3)")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            corpus = (
                read_corpus(options.corpus)
                if options.corpus
                else make_corpus(Path(folder) / "corpus", options.num)
            )
            rows = run(corpus, options.split, options.workers, options.repeat)
        if options.out:
            write_atomically(options.out, json.dumps(rows, indent=2) + "\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The feature store: a frozen tower runs once per picture, later epochs only read.

On disk the store is one memory-mapped file per split, keyed by the tower's hash; a killed
computation goes on where it was.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from pydantic import Field
from tqdm import tqdm

from engine.augment import normalise
from engine.checkpoints import fsync_directory
from engine.corpus_read import Corpus
from engine.guard import gigabytes, require_space
from engine.images import DataConfig, open_images
from engine.models.vision import VisionTower, tower_hash
from engine.schema import Section
from engine.zero import World

log = logging.getLogger("babyvlm")

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


class FeatureConfig(Section):
    """Where the features of a frozen tower are kept."""

    store: Literal["auto", "on", "off"] = "auto"
    """``auto`` and ``on``: compute once in every phase whose tower is frozen; ``off``: run the
    tower in every step."""

    location: Literal["disk", "ram", "device"] = "disk"
    """``disk``: memory-mapped under ``path``, shared by phases and launches; ``ram`` and
    ``device``: also copied into memory, for random reads without the page cache."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision of the stored features; bfloat16 halves the store."""

    path: str | None = None
    """Directory of the stores; null = ``run_dir/features``. A shared one serves many runs."""

    batch: int = Field(default=64, ge=1)
    """Pictures per tower pass while the store is filled."""

    reserve_bytes: int = Field(default=500_000_000, ge=0)
    """Free space (disk, memory) that must remain."""


def store_bytes(num_images: int, num_tokens: int, dim: int, dtype: str) -> int:
    """Size of a store in bytes: images x tokens x channels x bytes per element."""
    return num_images * num_tokens * dim * _DTYPES[dtype].itemsize


class FeatureStore:
    """Features ``[N, P, C]`` of one split, by row of the split's picture file."""

    def __init__(self, data: np.ndarray, dtype: str, device: torch.device | None) -> None:
        self._data, self._dtype = data, _DTYPES[dtype]
        self._resident: torch.Tensor | None = None
        if device is not None:
            self._resident = self._tensor(np.array(data)).to(device)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        return tensor.view(self._dtype) if self._dtype == torch.bfloat16 else tensor

    def read(self, rows: np.ndarray) -> torch.Tensor:
        """Features ``[len(rows), P, C]`` in the store's dtype."""
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self._resident.device)]
        return self._tensor(self._data[rows])


def _numpy_dtype(dtype: str) -> str:
    return {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}[dtype]


def check_fits(corpus: Corpus, splits: list[str], tower: VisionTower, config: FeatureConfig,
               directory: Path) -> int:
    """Raise ``ValueError`` naming the size when the stores would not fit; return the size."""
    missing = 0
    total = 0
    for split in splits:
        size = store_bytes(len(corpus.images(split)), tower.num_tokens, tower.dim, config.dtype)
        total += size
        if not (_split_dir(directory, corpus, split, tower, config) / "features.json").exists():
            missing += size
    what = f"the feature store ({gigabytes(total)}; features.dtype=bfloat16 halves float32, " \
           "features.store=off runs the tower instead)"
    if missing:
        require_space(directory, missing + config.reserve_bytes, what)
    free = None
    if config.location == "ram":
        free = psutil.virtual_memory().available
    elif config.location == "device" and torch.cuda.is_available():
        free = torch.cuda.mem_get_info()[0]
    if free is not None and free < total + config.reserve_bytes:
        raise ValueError(
            f"features.location={config.location}: {what} does not fit: "
            f"{gigabytes(total + config.reserve_bytes)} needed, {gigabytes(free)} free; "
            "accepted: features.location=disk"
        )
    return total


def _split_dir(directory: Path, corpus: Corpus, split: str, tower: VisionTower,
               config: FeatureConfig) -> Path:
    key = f"{tower_hash(tower)[:16]}-{corpus.digest[:12]}-{config.dtype}"
    return directory / key / split


def open_stores(
    corpus: Corpus, splits: list[str], tower: VisionTower, *, config: FeatureConfig,
    data: DataConfig, image_size: int, directory: Path, world: World,
) -> dict[str, FeatureStore]:
    """The stores of ``splits``, computed where they are not there yet (all ranks call it)."""
    total = check_fits(corpus, splits, tower, config, directory)
    stores = {}
    for split in splits:
        place = _split_dir(directory, corpus, split, tower, config)
        if not world.any(not (place / "features.json").exists()):
            log.info("features: %s read from %s", split, place)
        else:
            _fill(place, corpus, split, tower, config, data, image_size, world)
        shape = (len(corpus.images(split)), tower.num_tokens, tower.dim)
        array = np.memmap(place / "features.bin", dtype=_numpy_dtype(config.dtype), mode="r",
                          shape=shape)
        resident = {"disk": None, "ram": torch.device("cpu"), "device": world.device}
        stores[split] = FeatureStore(array, config.dtype, resident[config.location])
    log.info("features: %s in %s (%s)", gigabytes(total), config.location, directory)
    return stores


@torch.no_grad()
def _fill(place: Path, corpus: Corpus, split: str, tower: VisionTower, config: FeatureConfig,
          data: DataConfig, image_size: int, world: World) -> None:
    """Compute this rank's run of pictures; the last line of each batch is its row count."""
    num = len(corpus.images(split))
    shape = (num, tower.num_tokens, tower.dim)
    size = store_bytes(num, tower.num_tokens, tower.dim, config.dtype)
    if world.main:
        place.mkdir(parents=True, exist_ok=True)
        with (place / "features.bin").open("ab") as file:
            file.truncate(size)
    world.barrier()
    array = np.memmap(place / "features.bin", dtype=_numpy_dtype(config.dtype), mode="r+",
                      shape=shape)
    first, last = num * world.rank // world.size, num * (world.rank + 1) // world.size
    mark = place / f"done-{world.rank}-of-{world.size}"
    done = int(mark.read_text()) if mark.exists() else first
    rows = np.arange(done, last)
    sizes = [len(c) for c in np.array_split(rows, range(config.batch, len(rows), config.batch))]
    bar = tqdm(total=last - first, initial=done - first, unit="img", desc=f"features {split}",
               disable=not world.main, mininterval=2)
    tower.eval()
    dtype = next(tower.parameters()).dtype
    with open_images(corpus, split, size=image_size, config=data) as images:
        for batch in images.stream(rows, [s for s in sizes if s]):
            pictures = normalise(batch.to(world.device), tower.mean, tower.std)
            features = tower(pictures.to(dtype)).to(_DTYPES[config.dtype]).cpu().contiguous()
            stop = done + len(batch)
            raw = features.view(torch.uint16) if config.dtype == "bfloat16" else features
            array[done:stop] = raw.numpy()
            array.flush()
            # Written after the flush: rows below the mark are on the device.
            temporary = mark.with_suffix(".tmp")
            temporary.write_text(str(stop))
            temporary.replace(mark)
            done = stop
            bar.update(len(batch))
    bar.close()
    world.barrier()
    if world.main:
        facts = {"shape": shape, "dtype": config.dtype, "tower": tower_hash(tower),
                 "corpus": corpus.digest}
        temporary = place / "features.json.tmp"
        temporary.write_text(json.dumps(facts) + "\n")
        temporary.replace(place / "features.json")
        for old in place.glob("done-*"):
            old.unlink()
        fsync_directory(place)
    world.barrier()

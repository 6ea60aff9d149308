"""The feature store: a frozen tower runs once per picture, later epochs only read.

On disk the store is one memory-mapped file per split, keyed by the tower's hash; a killed
computation goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import torch
from pydantic import Field
from tqdm import tqdm

from engine.augment import AugmentConfig
from engine.corpus_read import Corpus
from engine.files import fsync, write_atomically
from engine.guard import gigabytes, require_space
from engine.images import DataConfig, open_images
from engine.models.vision import VisionTower, tower_hash
from engine.prepare import prepare
from engine.schema import Section
from engine.zero import World

log = logging.getLogger("babyvlm")

DONE, BINARY = "features.json", "features.bin"

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

    views: int = Field(default=1, ge=1)
    """Where a phase augments its pictures: 1 = the tower runs in every step; more = the store
    holds so many augmented views of each picture and the epochs take turns."""

    batch: int = Field(default=64, ge=1)
    """Pictures per tower pass while the store is filled."""

    reserve_bytes: int = Field(default=500_000_000, ge=0)
    """Free space (disk, memory) that must remain."""


@dataclass(frozen=True)
class Views:
    """Which views of a split a store holds: one as it is, or several augmented ones."""

    count: int = 1
    augment: AugmentConfig | None = None
    seed: int = 0

    @property
    def key(self) -> str:
        """Part of the store's name; empty for the plain view."""
        if self.augment is None:
            return ""
        text = f"{self.count} {self.seed} {self.augment.model_dump_json()}"
        return "-" + hashlib.sha256(text.encode()).hexdigest()[:12]


def store_bytes(num_images: int, num_tokens: int, dim: int, dtype: str) -> int:
    """Size of a store in bytes: images (times views) x tokens x channels x bytes per element."""
    return num_images * num_tokens * dim * _DTYPES[dtype].itemsize


class FeatureStore:
    """Features ``[N, P, C]`` of one split (per view), by row of the split's picture file."""

    def __init__(self, data: np.ndarray, dtype: str, device: torch.device | None,
                 views: int = 1) -> None:
        self._data, self._dtype, self._views = data, _DTYPES[dtype], views
        self._num = len(data) // views
        self._resident: torch.Tensor | None = None
        if device is not None:
            self._resident = self._tensor(np.array(data)).to(device)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        return tensor.view(self._dtype) if self._dtype == torch.bfloat16 else tensor

    def read(self, rows: np.ndarray, epoch: int = 0) -> torch.Tensor:
        """Features ``[len(rows), P, C]`` in the store's dtype; each epoch sees the next view."""
        if self._views > 1:
            rows = (epoch + rows) % self._views * self._num + rows
        if self._resident is not None:
            return self._resident[torch.from_numpy(rows).to(self._resident.device)]
        return self._tensor(self._data[rows])


def _numpy_dtype(dtype: str) -> str:
    return {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}[dtype]


def check_fits(corpus: Corpus, splits: dict[str, Views], tower: VisionTower,
               config: FeatureConfig, directory: Path) -> int:
    """Raise ``ValueError`` naming the size when the stores would not fit; return the size."""
    missing = 0
    total = 0
    for split, views in splits.items():
        num = len(corpus.images(split)) * views.count
        size = store_bytes(num, tower.num_tokens, tower.dim, config.dtype)
        total += size
        if not (_split_dir(directory, corpus, split, views, tower, config) / DONE).exists():
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


def _split_dir(directory: Path, corpus: Corpus, split: str, views: Views, tower: VisionTower,
               config: FeatureConfig) -> Path:
    key = f"{tower_hash(tower)[:16]}-{corpus.digest[:12]}-{config.dtype}{views.key}"
    return directory / key / split


def open_stores(
    corpus: Corpus, splits: dict[str, Views], tower: VisionTower, *, config: FeatureConfig,
    data: DataConfig, image_size: int, directory: Path, world: World,
) -> dict[str, FeatureStore]:
    """The stores of ``splits``, computed where they are not there yet (all ranks call it)."""
    total = check_fits(corpus, splits, tower, config, directory)
    stores = {}
    for split, views in splits.items():
        place = _split_dir(directory, corpus, split, views, tower, config)
        num = len(corpus.images(split))
        if world.any(not (place / DONE).exists()):
            _fill(place, corpus, split, views, tower, config, data, image_size, world)
        shape = (num * views.count, tower.num_tokens, tower.dim)
        array = np.memmap(place / BINARY, dtype=_numpy_dtype(config.dtype), mode="r", shape=shape)
        resident = {"disk": None, "ram": torch.device("cpu"), "device": world.device}
        stores[split] = FeatureStore(array, config.dtype, resident[config.location], views.count)
    log.info("features: %s in %s (%s)", gigabytes(total), config.location, directory)
    return stores


@torch.no_grad()
def _fill(place: Path, corpus: Corpus, split: str, views: Views, tower: VisionTower,
          config: FeatureConfig, data: DataConfig, image_size: int, world: World) -> None:
    """Compute this rank's run of (view, picture) entries and mark how far it has come."""
    num = len(corpus.images(split))
    total = num * views.count
    shape = (total, tower.num_tokens, tower.dim)
    if world.main:
        place.mkdir(parents=True, exist_ok=True)
        with (place / BINARY).open("ab") as file:
            file.truncate(store_bytes(total, tower.num_tokens, tower.dim, config.dtype))
    world.barrier()
    array = np.memmap(place / BINARY, dtype=_numpy_dtype(config.dtype), mode="r+", shape=shape)
    first, last = total * world.rank // world.size, total * (world.rank + 1) // world.size
    mark = place / f"done-{world.rank}-of-{world.size}"
    done = int(mark.read_text()) if mark.exists() else first
    entries = np.arange(done, last)
    # A batch ends where the next view begins: all its pictures are augmented alike.
    sizes = [
        len(batch)
        for view in np.split(entries, np.flatnonzero(np.diff(entries // num)) + 1)
        for batch in np.array_split(view, range(config.batch, len(view), config.batch))
        if len(batch)
    ]
    bar = tqdm(total=last - first, initial=done - first, unit="img", desc=f"features {split}",
               disable=not world.main, mininterval=2, leave=False)
    tower.eval()
    dtype = next(tower.parameters()).dtype
    with open_images(corpus, split, size=image_size, config=data) as images:
        for batch in images.stream(entries % num, sizes):
            stop = done + len(batch)
            batch = batch.to(world.device)
            pictures = _prepare(batch, np.arange(done, stop) % num, done // num, views, tower)
            features = tower(pictures.to(dtype)).to(_DTYPES[config.dtype])
            features = features.cpu().contiguous()
            raw = features.view(torch.uint16) if config.dtype == "bfloat16" else features
            array[done:stop] = raw.numpy()
            array.flush()
            # Written after the flush: entries below the mark are on the device.
            write_atomically(mark, str(stop))
            done = stop
            bar.update(len(batch))
    bar.close()
    world.barrier()
    if world.main:
        facts = {"shape": shape, "dtype": config.dtype, "tower": tower_hash(tower),
                 "corpus": corpus.digest, "views": views.count}
        write_atomically(place / DONE, json.dumps(facts) + "\n")
        for old in place.glob("done-*"):
            old.unlink()
        fsync(place)
    world.barrier()


def _prepare(batch: torch.Tensor, rows: np.ndarray, view: int, views: Views,
             tower: VisionTower) -> torch.Tensor:
    return prepare(batch, rows, config=views.augment, seed=views.seed, epoch=view,
                   mean=tower.mean, std=tower.std)

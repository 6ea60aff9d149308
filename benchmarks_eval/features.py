"""The feature store: a picture goes through a vision tower once, whatever checkpoint asks.

Features are kept by the tower's hash (weights and preprocessing) and the SHA-256 of the picture's
bytes. A shard holds what one pass made: a line of JSON (which pictures, shape, type), then the
numbers. Shards are written under another name, synced and renamed, so several processes can fill
one store and a kill leaves nothing half-written. Where a tower changes, so does its hash.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger("babyvlm")

FOLDER = Path("runs/features")
"""Where the store lies unless told otherwise."""
HEADER_BYTES = 1 << 20
_AS_INTEGERS = {"bfloat16": "uint16"}  # numpy has no bfloat16: its bits are kept


def file_hashes(root: Path, names: Sequence[str]) -> dict[str, str]:
    """Name -> SHA-256 of the file (of a picture, of a task's data).

    Raises:
        ValueError: a file is missing or cannot be read.
    """
    hashes: dict[str, str] = {}
    for name in names:
        try:
            with (root / name).open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise ValueError(f"{root / name}: cannot be read ({error.strerror})") from None
    return hashes


@dataclass
class FeatureStore:
    """Features of one tower.

    Args:
        folder: shared by all towers; None keeps nothing.
        tower_hash: which tower.
        hashes: picture -> SHA-256 of its bytes.
    """

    folder: Path | None
    tower_hash: str
    hashes: Mapping[str, str]
    tower_pictures: int = 0
    """Pictures that went through the tower."""
    read_pictures: int = 0
    """Pictures whose features were read."""
    _shards: dict[str, tuple[Path, int]] | None = field(default=None, repr=False)
    _warned: bool = False

    def get(self, handle: Any, root: Path, pictures: Sequence[str]) -> Any:
        """Features [N, ...] of pictures: all read, or all made in one pass.

        A batch of which the store holds a part is made whole: the same pictures go through the
        tower together whatever was there before, so that a resumed run gives the same bits.
        """
        if self.folder is not None:
            found = self._read(handle, pictures)
            if found is not None:
                self.read_pictures += len(pictures)
                return found
        features = handle.image_features([root / picture for picture in pictures])
        self.tower_pictures += len(pictures)
        if self.folder is not None:
            self._write(features, pictures)
        return features

    @property
    def _own(self) -> Path:
        assert self.folder is not None
        return self.folder / hashlib.sha256(self.tower_hash.encode()).hexdigest()[:32]

    def _index(self) -> dict[str, tuple[Path, int]]:
        shards: dict[str, tuple[Path, int]] = {}
        for path in sorted(self._own.glob("*.shard")):
            header = _header(path)
            if header is not None:
                for row, name in enumerate(header["pictures"]):
                    shards.setdefault(name, (path, row))
        return shards

    def _read(self, handle: Any, pictures: Sequence[str]) -> Any | None:
        names = [self.hashes[picture] for picture in pictures]
        if self._shards is None:
            self._shards = self._index()
        if not names or any(name not in self._shards for name in names):
            return None
        opened: dict[Path, tuple[NDArray[Any], dict[str, Any]]] = {}
        for path in {self._shards[name][0] for name in names}:
            header = _header(path)
            if header is None:  # removed or damaged since the index was made
                self._shards = None
                return None
            opened[path] = _map(path, header), header
        rows = [opened[path][0][row] for path, row in (self._shards[name] for name in names)]
        header = next(iter(opened.values()))[1]
        return _restore(np.stack(rows), header, getattr(handle, "device", None))

    def _write(self, features: Any, pictures: Sequence[str]) -> None:
        array, kind = _plain(features)
        if array is None or len(array) != len(pictures):
            return  # a model that takes the pictures themselves has nothing to keep
        header = {"pictures": [self.hashes[picture] for picture in pictures],
                  "shape": list(array.shape[1:]), "dtype": kind[1], "library": kind[0]}
        name = uuid.uuid4().hex
        part, path = self._own / f".{name}.part", self._own / f"{name}.shard"
        try:
            self._own.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                np.ascontiguousarray(array).tofile(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if not self._warned:
                log.warning("%s: features are not kept (%s); the tower runs again next time",
                            self._own, error.strerror)
            self._warned = True
            return
        if self._shards is not None:
            for row, picture in enumerate(header["pictures"]):
                self._shards.setdefault(picture, (path, row))


def _plain(features: Any) -> tuple[NDArray[Any] | None, tuple[str, str]]:
    """Features as an array, with the library and type that they came in."""
    if isinstance(features, np.ndarray):
        return features, ("numpy", str(features.dtype))
    if not hasattr(features, "detach"):
        return None, ("", "")
    tensor = features.detach().cpu().contiguous()
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind in _AS_INTEGERS:
        import torch

        return tensor.view(torch.int16).numpy().view(_AS_INTEGERS[kind]), ("torch", kind)
    return tensor.numpy(), ("torch", kind)


def _restore(array: NDArray[Any], header: Mapping[str, Any], device: Any) -> Any:
    if header["library"] == "numpy":
        return array
    import torch

    if header["dtype"] in _AS_INTEGERS:
        tensor = torch.from_numpy(array.view("int16")).view(getattr(torch, header["dtype"]))
    else:
        tensor = torch.from_numpy(array)
    return tensor if device is None else tensor.to(device)


def _header(path: Path) -> dict[str, Any] | None:
    """What a shard holds; None (and a warning) when it is damaged."""
    try:
        with path.open("rb") as file:
            line = file.readline(HEADER_BYTES)
            size = file.seek(0, os.SEEK_END)
        header = json.loads(line)
        shape = (len(header["pictures"]), *header["shape"])
        kind = np.dtype(_AS_INTEGERS.get(header["dtype"], header["dtype"]))
        whole = size == len(line) + int(np.prod(shape)) * kind.itemsize
        if whole:
            return header | {"offset": len(line), "shape": shape, "kind": kind}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    log.warning("%s: damaged, its pictures go through the tower again", path)
    return None


def _map(path: Path, header: Mapping[str, Any]) -> NDArray[Any]:
    return np.memmap(path, dtype=header["kind"], mode="r", offset=header["offset"],
                     shape=header["shape"])

"""The state of a long matching on disk, so that a killed one goes on after its last round."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.files import whole_file
from dataprep.matching.result import Quota

__all__ = ["Progress", "load_progress", "problem_key", "save_progress"]

FILE = "matching.npz"


@dataclass
class Progress:
    """How far a matching is."""

    key: str
    """Of the problem: a state serves no other."""
    rounds: int = 0
    bids: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    keep: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """``[n]``: length of each row's list, 0 where it has none."""
    state: dict[str, NDArray[Any]] = field(default_factory=dict)


def problem_key(
    rows: NDArray[np.float32], columns: NDArray[np.float32], epsilon: float, exact: bool,
    quota: Quota | None, reject_below: float | None,
) -> str:  # fmt: skip
    """Return a hash of all that decides the result."""
    digest = hashlib.sha256(
        repr((rows.shape, columns.shape, epsilon, exact, reject_below)).encode()
    )
    for embeddings in (rows, columns):  # contiguous, see `match`
        digest.update(embeddings.data)
    if quota is not None:
        digest.update(quota.source.astype(np.int64).tobytes())
        digest.update(repr(quota.limits).encode())
    return digest.hexdigest()


def load_progress(folder: Path, key: str) -> Progress | None:
    """Return the state that ``folder`` holds for this problem, None where it holds none.

    Raises:
        ValueError: it holds another problem's.
    """
    path = folder / FILE
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    about = json.loads(str(arrays.pop("about")))
    if about["key"] != key:
        raise ValueError(f"{path}: is the state of another matching; accepted: an empty folder")
    keep = arrays.pop("keep")
    return Progress(key, about["rounds"], about["bids"], about["seconds"], keep, arrays)


def save_progress(folder: Path, progress: Progress | None) -> None:
    """Put the state in the folder's file at once, or remove it (None)."""
    path = folder / FILE
    if progress is None:
        path.unlink(missing_ok=True)
        return
    about = {name: getattr(progress, name) for name in ("key", "rounds", "bids", "seconds")}
    arrays: dict[str, NDArray[Any]] = {"about": np.array(json.dumps(about)), "keep": progress.keep}
    with whole_file(path, "matching.partial") as file:
        np.savez(file, allow_pickle=False, **arrays, **progress.state)

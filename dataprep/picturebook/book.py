"""The picture book in memory: collected, drawn, split and checked for leaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dataprep.picturebook.drawings import Drawing, Rendered
from dataprep.picturebook.emoji import collect_emoji
from dataprep.picturebook.leaks import Twin, cannot_be_held_out, find_twins, leaks
from dataprep.picturebook.render import render_all
from dataprep.picturebook.splits import split, words_out_of_place
from dataprep.picturebook.tuxpaint import collect_stamps
from dataprep.picturebook.utterances import Said, utterances
from dataprep.picturebook.words import words_in


@dataclass(frozen=True)
class Book:
    """Everything that is written, before it is written."""

    rendered: list[Rendered]
    split_of: dict[str, str]
    said: list[list[Said]]
    """What is said about each of `rendered`."""
    problems: list[str]
    """A line for every file that could not be drawn."""
    twins: list[Twin]
    dropped: list[tuple[str, str, Twin]]
    """Leaks found after splitting: what was dropped, what was kept, how alike they are."""

    def of(self, name: str) -> list[Rendered]:
        """The drawings of a split."""
        return [r for r in self.rendered if self.split_of[r.drawing.key] == name]

    def words(self, name: str) -> frozenset[str]:
        """Every word that is said in a split."""
        return frozenset(
            word
            for rendered, texts in zip(self.rendered, self.said, strict=True)
            if self.split_of[rendered.drawing.key] == name
            for text in texts
            for word in words_in(text.text)
        )


def collect() -> list[Drawing]:
    """Every drawing there is, emoji first. Raises ValueError when a package is missing."""
    emoji = collect_emoji()
    return emoji + collect_stamps(emoji)


def make_book(
    drawings: Sequence[Drawing], image_size: int, seed: int, workers: int = 2
) -> Book:
    """Draw in `workers` processes, split, find what is said, and check for leaks.

    Near-identical pictures are first kept from being held out (their drawings are no test views,
    their groups no new words); what still lies on two sides of a split is dropped and listed.
    """
    result = render_all(drawings, image_size, workers)
    rendered = result.rendered
    twins = find_twins(rendered)
    twin_keys, twin_groups = cannot_be_held_out(rendered, twins)
    split_of = split(
        [r.drawing for r in rendered], seed, twin_keys=twin_keys, twin_groups=twin_groups
    )
    dropped = leaks(rendered, twins, split_of)
    gone = {drop for drop, _, _ in dropped}
    rendered = [r for r in rendered if r.drawing.key not in gone]
    said = [utterances(r, seed) for r in rendered]
    misplaced = words_out_of_place(
        [(r.drawing, s.text) for r, texts in zip(rendered, said, strict=True) for s in texts],
        split_of,
    )
    assert not misplaced, f"words of test-concept are said elsewhere: {misplaced[:5]}"
    return Book(rendered, split_of, said, result.problems, twins, dropped)

"""Which drawings are held out: new words, new drawings of known words, and a little validation."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256

from dataprep.picturebook.colours import COLOURS
from dataprep.picturebook.drawings import Drawing
from dataprep.picturebook.utterances import FRAMES
from dataprep.picturebook.words import words_in

SPLITS = ("train", "val", "test-concept", "test-view")
MOST_DRAWINGS = 16
"""A group with more drawings than this is not held out as a new word."""
_FUNCTION_WORDS = frozenset("a an the some of and in on with to for or out 's".split())


def stem(word: str) -> str:
    """A word without its plural ending, so that "grapes" and "grape" are one word."""
    if word.endswith("'s"):
        word = word[:-2]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith("ves") and len(word) > 4:
        return word[:-3] + "f"
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        return word[:-1]
    return word


def content_words(text: str) -> set[str]:
    """The stems of the words that name something."""
    return {stem(w) for w in words_in(text)} - _FUNCTION_WORDS


def spoken_words(drawing: Drawing) -> set[str]:
    """Every content word that can be said about a drawing."""
    return content_words(drawing.noun) | content_words(drawing.caption)


def own_words(drawings: Sequence[Drawing]) -> dict[str, set[str]]:
    """Group -> the stems of its nouns (the words that name it)."""
    nouns: dict[str, set[str]] = defaultdict(set)
    for d in drawings:
        nouns[d.group] |= content_words(d.noun)
    return dict(nouns)


def closed_groups(drawings: Sequence[Drawing]) -> list[str]:
    """Groups none of whose words is said about a drawing of another group, sorted.

    Only these can be held out as new words. Groups that emoji draw qualify, unless they are so
    large (the 24 clock faces) that a test would be mostly about them.
    """
    nouns = own_words(drawings)
    said_in: dict[str, set[str]] = defaultdict(set)
    for d in drawings:
        for word in spoken_words(d):
            said_in[word].add(d.group)
    drawn = {d.group for d in drawings if d.vendor != "tuxpaint"}
    size = Counter(d.group for d in drawings)
    frames = content_words(" ".join([*COLOURS, *(f for fs in FRAMES.values() for f in fs)]))
    return sorted(
        group
        for group, words in nouns.items()
        if group in drawn
        and size[group] <= MOST_DRAWINGS
        and not words & frames
        and all(said_in[w] == {group} for w in words)
    )


def split(
    drawings: Sequence[Drawing],
    seed: int,
    *,
    twin_keys: frozenset[str] = frozenset(),
    twin_groups: frozenset[str] = frozenset(),
    concept_share: float = 0.1,
    view_share: float = 0.1,
    val_share: float = 0.05,
) -> dict[str, str]:
    """Drawing key -> split name.

    test-concept: a tenth of the groups that emoji draw, with all their drawings, Tux Paint's
    included; the words that name them are said nowhere else. test-view: Twemoji's drawing of a
    tenth of the concepts, at most one a group; OpenMoji's drawing of the same concept stays in
    train. val: likewise, half as many. Drawings in `twin_keys` are not held out as views and
    groups in `twin_groups` not as new words: something near-identical would stay in train.
    """
    emoji_groups = {d.group for d in drawings if d.vendor != "tuxpaint"}
    concepts = {d.concept for d in drawings if d.vendor == "twemoji"}
    out = {d.key: "train" for d in drawings}
    closed = [g for g in closed_groups(drawings) if g not in twin_groups]
    wanted = min(len(closed), round(concept_share * len(emoji_groups)))
    new_words = set(_by_lot(closed, seed, "new words")[:wanted])
    for d in drawings:
        if d.group in new_words:
            out[d.key] = "test-concept"
    other_vendor = {d.concept for d in drawings if d.vendor == "openmoji"}
    by_group: dict[str, list[Drawing]] = defaultdict(list)
    for d in drawings:
        eligible = d.vendor == "twemoji" and d.concept in other_vendor and d.key not in twin_keys
        if eligible and out[d.key] == "train":
            by_group[d.group].append(d)
    views = round(view_share * len(concepts))
    vals = round(val_share * len(concepts))
    for position, group in enumerate(_by_lot(by_group, seed, "groups")[: views + vals]):
        chosen = _by_lot([d.key for d in by_group[group]], seed, "drawings")[0]
        out[chosen] = "test-view" if position < views else "val"
    return out


def _by_lot(names: Iterable[str], seed: int, purpose: str) -> list[str]:
    """The names in an order of chance that one name more or less does not upset."""
    return sorted(names, key=lambda name: sha256(f"{seed}/{purpose}/{name}".encode()).digest())


def words_out_of_place(
    said: Sequence[tuple[Drawing, str]], split_of: Mapping[str, str]
) -> list[tuple[str, str]]:
    """(word, utterance) wherever a new word of test-concept is said about another split."""
    held_out = [d for d, _ in said if split_of[d.key] == "test-concept"]
    new = set().union(*own_words(held_out).values()) if held_out else set()
    return [
        (word, text)
        for drawing, text in said
        if split_of[drawing.key] != "test-concept"
        for word in sorted(content_words(text) & new)
    ]

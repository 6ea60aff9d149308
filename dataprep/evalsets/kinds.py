"""The four kinds of sets: how each makes its tables, and what a review may change in it."""

from __future__ import annotations

from collections.abc import Callable

from dataprep.evalsets import captions, labeled, two_word, winoground
from dataprep.evalsets.evalset import Finish, Record
from dataprep.evalsets.words import phrase_words

KINDS: dict[str, Finish] = {
    "labeled": labeled.finish,
    "two_word": two_word.finish,
    "winoground": winoground.finish,
    "caption": captions.finish,
}
"""Kind -> what makes the tables of its kept records."""


def _two_word(record: Record, fields: dict[str, str]) -> str:
    positive, negative = fields["positive_phrase"].split(), fields["negative_phrase"].split()
    for words in (positive, negative):
        if len(words) != 2 or phrase_words(" ".join(words)) != words:
            return f"{' '.join(words)!r} is not two plain lower-case words"
    if positive == negative:
        return "both phrases are the same"
    before = [record.fields[name].split() for name in ("positive_phrase", "negative_phrase")]
    was = [a != b for a, b in zip(*before, strict=True)]
    if was != [a != b for a, b in zip(positive, negative, strict=True)]:
        record.facts["kind"] = "edited"
    return ""


def _winoground(record: Record, fields: dict[str, str]) -> str:
    for side in ("negative", "positive"):
        count = len(record.facts[side]["candidates"])
        value = fields[f"{side}_attempt"]
        if not value.isdecimal() or int(value) >= count:
            return f"{side}_attempt {value!r} is none of 0 to {count - 1}"
    for name in ("positive_phrase", "negative_phrase"):
        if fields[name] != record.fields[name]:
            return f"{name} of an instance cannot be edited: its pictures show the old words"
    return ""


def _caption(record: Record, fields: dict[str, str]) -> str:
    del record
    return "" if fields["text"].strip() else "the caption is empty"


def _labeled(record: Record, fields: dict[str, str]) -> str:
    del record, fields
    return "labelled trials are accepted or rejected, not edited"


Check = Callable[[Record, dict[str, str]], str]
EDITS: dict[str, Check] = {
    "labeled": _labeled,
    "two_word": _two_word,
    "winoground": _winoground,
    "caption": _caption,
}
"""Kind -> what is wrong with a review's new fields of a record; empty when they are fine."""
EDITABLE: dict[str, tuple[str, ...]] = {
    "labeled": (),
    "two_word": ("positive_phrase", "negative_phrase"),
    "winoground": ("negative_attempt", "positive_attempt"),
    "caption": ("text",),
}
"""Kind -> the fields that the page lets a person change."""

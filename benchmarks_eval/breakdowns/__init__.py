"""Figures in parts: what the difference is, known words, frequency, age, confusions, biases."""

from __future__ import annotations

from benchmarks_eval.breakdowns.bias import Attractions, SquareBias, attractions, square_bias
from benchmarks_eval.breakdowns.confusion import Confused, Confusion, confusion, picture_labels
from benchmarks_eval.breakdowns.frequency import by_frequency, read_counts
from benchmarks_eval.breakdowns.groups import Breakdown, Group, by_key, by_tag, tags_of
from benchmarks_eval.breakdowns.norms import Association, Norms, association, by_age, read_norms
from benchmarks_eval.breakdowns.oov import WordList, by_vocabulary, read_words
from benchmarks_eval.breakdowns.wording import deciding_words

__all__ = [
    "Association",
    "Attractions",
    "Breakdown",
    "Confused",
    "Confusion",
    "Group",
    "Norms",
    "SquareBias",
    "WordList",
    "association",
    "attractions",
    "by_age",
    "by_frequency",
    "by_key",
    "by_tag",
    "by_vocabulary",
    "confusion",
    "deciding_words",
    "picture_labels",
    "read_counts",
    "read_norms",
    "read_words",
    "square_bias",
    "tags_of",
]

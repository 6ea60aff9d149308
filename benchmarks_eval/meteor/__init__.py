"""METEOR, in the two variants that papers call by the same name.

``score`` is NLTK's (2007), which BabyVLM reports; ``Meteor15`` runs the authors' METEOR 1.5 from a
jar that the user supplies. Their figures differ by a factor of about two: never print "METEOR"
alone, but ``NAMES``.
"""

from benchmarks_eval.meteor.jar import Meteor15
from benchmarks_eval.meteor.nltk_meteor import align, score, score_tokens
from benchmarks_eval.meteor.tokens import Version, word_tokenize

NAMES: dict[str, str] = {"3.10": "meteor_nltk310", "3.8": "meteor_nltk38", "1.5": "meteor_1.5"}
"""Variant -> the name that tables carry."""

__all__ = ["NAMES", "Meteor15", "Version", "align", "score", "score_tokens", "word_tokenize"]

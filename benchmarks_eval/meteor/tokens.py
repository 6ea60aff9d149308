"""Words of a text as NLTK's ``word_tokenize`` gives them, which METEOR's figures depend on.

Sentences first, then a chain of regular expressions for each. The expressions are those of NLTK's
``NLTKWordTokenizer`` (Apache License 2.0, copyright NLTK Project), itself after the Penn Treebank
tokenizer. Texts like ``'twas`` or with long dashes differ between NLTK 3.8 and 3.10.
"""

from __future__ import annotations

import functools
import re

from benchmarks_eval.meteor.sentences import Version, sentences

_OPENING = [
    (re.compile("([«“‘„]|[`]+)"), r" \1 "),
    (re.compile(r"^\""), r"``"),
    (re.compile(r"(``)"), r" \1 "),
    (re.compile(r"([ \(\[{<])(\"|\'{2})"), r"\1 `` "),
]
_OPENING_QUOTE = {
    "3.10": (re.compile(r"(?i)(?<!\w)(\')(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)"), r"\1 "),
    "3.8": (re.compile(r"(?i)(\')(?!re|ve|ll|m|t|s|d|n)(\w)\b"), r"\1 \2"),
}
_PUNCTUATION = [
    (re.compile(r"([^\.])(\.)([\]\)}>\"\'»”’ ]*+)\s*$"), r"\1 \2 \3 "),
    (re.compile(r"([:,])([^\d])"), r" \1 \2"),
    (re.compile(r"([:,])$"), r" \1 "),
    (re.compile(r"\.{2,}"), r" \g<0> "),
    (re.compile(r"[;@#$%&]"), r" \g<0> "),
]
_LONG_DASH = (re.compile(r"[\u2012-\u2015]"), r" \g<0> ")  # 3.10 only
_ENDS = [
    (re.compile(r"([^\.])(\.)([\]\)}>\"\']*)\s*$"), r"\1 \2\3 "),
    (re.compile(r"[?!]"), r" \g<0> "),
    (re.compile(r"([^'])' "), r"\1 ' "),
    (re.compile(r"[*]"), r" \g<0> "),
    (re.compile(r"[\]\[\(\)\{\}\<\>]"), r" \g<0> "),
    (re.compile(r"--"), r" -- "),
]
_CLOSING = [
    (re.compile("([»”’])"), r" \1 "),
    (re.compile(r"''"), " '' "),
    (re.compile(r'"'), " '' "),
]
_SPACE = (re.compile(r"\s+"), " ")  # 3.10 only
_CLITICS = [
    (re.compile(r"([^' ])('[sS]|'[mM]|'[dD]|') "), r"\1 \2 "),
    (re.compile(r"([^' ])('ll|'LL|'re|'RE|'ve|'VE|n't|N'T) "), r"\1 \2 "),
]
_CONTRACTIONS = [  # Robert MacIntyre's
    (re.compile(pattern), r" \1 \2 ")
    for pattern in (
        r"(?i)\b(can)(not)\b", r"(?i)\b(d)('ye)\b", r"(?i)\b(gim)(me)\b", r"(?i)\b(gon)(na)\b",
        r"(?i)\b(got)(ta)\b", r"(?i)\b(lem)(me)\b", r"(?i)\b(more)('n)\b",
        r"(?i)\b(wan)(na)(?=\s)", r"(?i) ('t)(is)\b", r"(?i) ('t)(was)\b",
    )
]

_BEFORE = {
    "3.10": [*_OPENING, _OPENING_QUOTE["3.10"], *_PUNCTUATION, _LONG_DASH, *_ENDS],
    "3.8": [*_OPENING, _OPENING_QUOTE["3.8"], *_PUNCTUATION, *_ENDS],
}
_AFTER = {
    "3.10": [*_CLOSING, _SPACE, *_CLITICS, *_CONTRACTIONS],
    "3.8": [*_CLOSING, *_CLITICS, *_CONTRACTIONS],
}

def tokenize_sentence(sentence: str, version: Version = "3.10") -> list[str]:
    """Tokens of one sentence; only a period at its end is set off."""
    for pattern, replacement in _BEFORE[version]:
        sentence = pattern.sub(replacement, sentence)
    sentence = f" {sentence} "
    for pattern, replacement in _AFTER[version]:
        sentence = pattern.sub(replacement, sentence)
    return sentence.split()


@functools.lru_cache(maxsize=1 << 16)
def word_tokenize(text: str, version: Version = "3.10") -> tuple[str, ...]:
    """Tokens of a text in their case.

    Example: ``word_tokenize("There's a cat.") == ("There", "'s", "a", "cat", ".")``.
    """
    return tuple(token for sentence in sentences(text, version)
                 for token in tokenize_sentence(sentence, version))

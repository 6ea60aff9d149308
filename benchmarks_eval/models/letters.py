"""Asking for a letter: the orders options are shown in, the words, and reading the answer.

Chat models prefer some letters and some places. So the options are shown in every order (up to
four options) or, for more, once in every place (cyclic shifts), and the answers are averaged.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence

ALL_ORDERS = 4
"""Most options that are shown in all orders; above, in cyclic shifts."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ASK_TEXT = "Which of these fits the picture best?"
ASK_SENTENCE = "Which of these is the better sentence?"
ASK_PICTURE = "Which picture fits this best: {text}"
ANSWER = "Answer with the letter alone."

_MARKS = r"[\s*()\[\].:,\"']"
_ANSWERS = (
    re.compile(rf"^{_MARKS}*([A-Za-z]){_MARKS}*$"),
    re.compile(r"^[\s*(\[\"']*([A-Z])[)\].:,*\"']"),
    re.compile(r"(?i:\b(?:answer|option|picture)\b)[^A-Za-z]*(?i:is\b)?[^A-Za-z]*([A-Z])\b(?!')"),
)


def orders(count: int) -> list[tuple[int, ...]]:
    """Orders in which ``count`` options are shown: all, or each option once in every place.

    Raises:
        ValueError: more options than letters.
    """
    if count > len(LETTERS):
        raise ValueError(f"{count} options have no letters; accepted: up to {len(LETTERS)}")
    if count <= ALL_ORDERS:
        return list(itertools.permutations(range(count)))
    return [tuple((k + shift) % count for k in range(count)) for shift in range(count)]


def question(texts: Sequence[str], prompt: str, picture: bool) -> str:
    """The words of a question with lettered texts, in the order given."""
    ask = prompt or (ASK_TEXT if picture else ASK_SENTENCE)
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))
    return f"{ask}\n{options}\n{ANSWER}"


def read_letter(answer: str, count: int) -> int | None:
    """The place of the option that an answer names, None when it names none.

    Accepted are the letter alone, also in brackets or quotes; a capital at the beginning marked as
    a letter (``B. the red cup``, ``(B)``); and ``the answer is B``, ``Option B``, ``Picture B``.
    """
    text = answer.strip()
    for pattern in _ANSWERS:
        if found := pattern.search(text):
            place = LETTERS.find(found.group(1).upper())
            return place if 0 <= place < count else None
    return None


def letter_shares(logprobs: Mapping[str, float], count: int) -> list[float] | None:
    """Probabilities of the options from the first token's likeliest tokens, summing to 1.

    ``logprobs``: token -> log-probability (nats). None when no token is an option's letter.
    """
    mass = [0.0] * count
    for token, logprob in logprobs.items():
        letter = token.strip(" ().*\n")
        if len(letter) == 1 and letter in LETTERS[:count]:
            mass[LETTERS.index(letter)] += math.exp(logprob)
    total = sum(mass)
    return [share / total for share in mass] if total > 0 else None


def average(shown: Sequence[tuple[int, ...]],
            answers: Sequence[Sequence[float] | None]) -> list[float]:
    """Mean share of every option over the orders it was shown in.

    Args:
        shown: the orders: which option stood in each place.
        answers: share of each place, None where no answer could be read.

    Returns:
        Shares by option, summing to 1; all NaN when no answer could be read. An order without a
        readable answer is left out.
    """
    count = len(shown[0])
    total, usable = [0.0] * count, 0
    for order, shares in zip(shown, answers, strict=True):
        if shares is None:
            continue
        usable += 1
        for place, option in enumerate(order):
            total[option] += shares[place]
    return [value / usable for value in total] if usable else [math.nan] * count

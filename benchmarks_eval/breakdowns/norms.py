"""Age of acquisition: does the model find hard what children learn late?

The ages come from a file of the user's own; none is shipped. Read are

- tables with a word and an age: what ``wordbankr::fit_aoa`` gives (``item_definition`` or
  ``uni_lemma``, ``aoa`` in months), or any CSV with columns like ``word`` and ``aoa``; Kuperman's
  ratings (``Word``, ``Rating.Mean``, in years);
- Wordbank's download of item data: a row an item, a column a month of age with the share of
  children who say (or understand) it. A logistic curve is fitted to each row and the age is the
  first whole month at which it reaches one half, as in ``fit_aoa``.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from benchmarks_eval.breakdowns.groups import Breakdown, by_key
from benchmarks_eval.breakdowns.wording import deciding_words
from benchmarks_eval.metrics import words
from benchmarks_eval.outcomes import Measured, Outcome

WORD_COLUMNS = ("word", "item_definition", "definition", "uni_lemma", "item")
AGE_COLUMNS = {"aoa": 1.0, "aoa_months": 1.0, "age_of_acquisition": 1.0, "rating.mean": 12.0,
               "aoa_years": 12.0}
"""Column name in lower case, and how many months its unit has."""
PARTS = 3
ROUNDS = 50
STEEP = 5.0
"""Steepest curve a fit may take, in logits a month: perfectly separated shares have no end."""


@dataclass(frozen=True)
class Norms:
    """Ages in months by word, and the youngest age that the file can tell apart (None: any)."""

    months: Mapping[str, float]
    youngest: float | None


def read_norms(path: str | Path) -> Norms:
    """Reads a CSV of ages of acquisition.

    Words stand in lower case; "sock/shoe" counts for both words, remarks in parentheses and
    asterisks are dropped; of several entries for one word ("fish (animal)", "fish (food)") the
    earliest age counts. Items that no age is known for are left out.

    Raises:
        ValueError: no such file, no usable columns, or a malformed number (file and line).
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file of age-of-acquisition norms")
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        lower = [name.lower() for name in header]
        word = next((lower.index(name) for name in WORD_COLUMNS if name in lower), None)
        age = next((name for name in AGE_COLUMNS if name in lower), None)
        months = {k: int(name) for k, name in enumerate(header) if re.fullmatch(r"\d{1,2}", name)}
        if word is None or (age is None and len(months) < 3):
            raise ValueError(
                f"{path}: needs a column of words ({', '.join(WORD_COLUMNS)}) and one of ages "
                f"({', '.join(AGE_COLUMNS)}) or a column for each month (16, 17, ...) with the "
                f"share of children; has {', '.join(header) or 'nothing'}")
        found: dict[str, float] = {}
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(f"{path}, line {reader.line_num}: {len(row)} fields where the "
                                 f"header has {len(header)}")
            try:
                if age is not None:
                    value = _age(row[lower.index(age)], AGE_COLUMNS[age])
                else:
                    value = _fitted(row, months)
            except ValueError as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}") from None
            if value is not None:
                for name in item_words(row[word]):
                    found[name] = min(value, found.get(name, math.inf))
    if not found:
        raise ValueError(f"{path}: no word with an age")
    return Norms(found, None if age is not None else float(min(months.values())))


def item_words(item: str) -> list[str]:
    """The words of a checklist item: "sock/shoe*" is sock and shoe, "play (verb)" is play."""
    plain = re.sub(r"\(.*?\)|\*", "", item.lower())
    return [word.strip() for word in plain.split("/") if word.strip()]


def fit_age(ages: Sequence[float], shares: Sequence[float]) -> float | None:
    """The first whole month at which a logistic curve through the shares reaches one half.

    Args:
        ages: months.
        shares: of children who know the word at that age, 0 to 1.

    Returns:
        That age; the youngest one for a word that is known before; None for one that most
        children of the oldest age do not know yet, or whose shares do not rise with age.
    """
    x = np.asarray(ages, dtype=np.float64)
    y = np.asarray(shares, dtype=np.float64)
    start, slope = _logistic(x, y)
    if slope <= 0:
        return None
    crossing = -start / slope
    if crossing > x.max():
        return None
    return float(max(x.min(), math.ceil(crossing - 1e-9)))


def _logistic(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Intercept and slope of the logistic regression of shares, by Newton's steps."""
    centre = x.mean()
    start, slope = 0.0, 0.0
    for _ in range(ROUNDS):
        fitted = 1 / (1 + np.exp(-np.clip(start + slope * (x - centre), -30, 30)))
        weight = np.maximum(fitted * (1 - fitted), 1e-9)
        moments = [float((weight * (x - centre) ** k).sum()) for k in range(3)]
        gap = y - fitted
        pulls = float(gap.sum()), float((gap * (x - centre)).sum())
        determinant = moments[0] * moments[2] - moments[1] ** 2
        step = ((moments[2] * pulls[0] - moments[1] * pulls[1]) / determinant,
                (moments[0] * pulls[1] - moments[1] * pulls[0]) / determinant)
        damp = min(1.0, 2.0 / max(abs(step[0]), 1e-12))
        start, slope = start + damp * step[0], slope + damp * step[1]
        if abs(slope) > STEEP or max(abs(step[0]), abs(step[1])) < 1e-10:
            break
    return float(start - slope * centre), float(slope)


def _age(text: str, factor: float) -> float | None:
    if text.strip().lower() in ("", "na", "nan"):
        return None
    value = float(text) * factor
    if not 0 < value < 1200:
        raise ValueError(f"an age of {text}")
    return value


def _fitted(row: Sequence[str], months: Mapping[int, int]) -> float | None:
    known = {age: float(row[k]) for k, age in months.items()
             if row[k].strip().lower() not in ("", "na", "nan")}
    if any(not 0 <= share <= 1 for share in known.values()):
        raise ValueError(f"shares of children are 0 to 1, here {sorted(known.values())}")
    if len(known) < 3:
        return None
    return fit_age(list(known), list(known.values()))


def age(outcome: Outcome, norms: Norms) -> float | None:
    """When children know all of a trial's deciding words; None where one has no norm.

    A label that has a norm of its own ("an ice cream") is one word.
    """
    said = words(outcome.right_texts[0])
    whole = " ".join(said[1:] if said[:1] in (("a",), ("an",), ("the",)) else said)
    if not outcome.square and whole in norms.months:
        return norms.months[whole]
    ages = [norms.months.get(word) for word in deciding_words(outcome)]
    known = [one for one in ages if one is not None]
    return max(known) if known and len(known) == len(ages) else None


def by_age(measured: Measured, norms: Norms, *, seed: int, parts: int = PARTS) -> Breakdown:
    """Groups trials by the age of acquisition of their latest deciding word, about equally many
    words in each group; trials with a word that has no norm are left out and counted."""
    ages = {outcome.id: age(outcome, norms) for outcome in measured.outcomes}
    distinct = sorted({one for one in ages.values() if one is not None})
    edges = [float(edge) for edge in
             np.quantile(distinct, np.arange(1, parts) / parts, method="inverted_cdf")
             ] if distinct else []
    edges = list(dict.fromkeys(edges))
    names = _names(edges)

    def key(outcome: Outcome) -> str | None:
        own = ages[outcome.id]
        return None if own is None else names[sum(own > edge for edge in edges)]

    return by_key(measured, "age of acquisition", key, seed=seed, order=names)


def _names(edges: Sequence[float]) -> list[str]:
    if not edges:
        return ["any age"]
    first = f"by {edges[0]:.3g} months"
    middle = [f"{low:.3g} to {high:.3g} months" for low, high in pairwise(edges)]
    return [first, *middle, f"after {edges[-1]:.3g} months"]


@dataclass(frozen=True)
class Association:
    """How the credit of words goes with a number that each word has.

    ``rho`` is Spearman's rank correlation over words (a word's credit is the mean of its trials),
    with its two-sided ``p``; below 0 when late words are hard.
    """

    words: int
    rho: float
    p: float


def association(measured: Measured, number_of: Mapping[str, float]) -> Association | None:
    """Correlates words' credits with their ages (or log frequencies).

    Only trials that one single word decides take part. None with fewer than 4 such words, or when
    either side does not vary.
    """
    earned: dict[str, list[float]] = {}
    for outcome in measured.outcomes:
        deciding = deciding_words(outcome)
        word = next(iter(deciding)) if len(deciding) == 1 else None
        if word is not None and word in number_of:
            earned.setdefault(word, []).append(outcome.credit)
    names = sorted(earned)
    means = [float(np.mean(earned[name])) for name in names]
    numbers = [number_of[name] for name in names]
    if len(names) < 4 or len(set(means)) < 2 or len(set(numbers)) < 2:
        return None
    made: Any = spearmanr(numbers, means)
    return Association(len(names), float(made.statistic), float(made.pvalue))

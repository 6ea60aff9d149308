"""What a model likes whatever is asked: pictures and texts that attract, and what that costs.

A score can be taken apart into what a picture is liked for itself, what a text is liked for
itself, and what the two have to do with each other; only the last is understanding. In a square
(two pictures, two texts) that is exact:

    picture = (s00 + s01 - s10 - s11) / 2      text = (s00 + s10 - s01 - s11) / 2
    match   = (s00 + s11 - s01 - s10) / 2

The text score needs match > |text|, the image score match > |picture|, the group score both. A
model whose matches had the wrong sign as often as the right one would still have these biases: the
share of squares with |match| above them, halved, is the score that *this model* would reach by
guessing. It lies far below 1/6 for a model with strong biases, which is how a model that
understands something can end up below "chance".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks_eval.metrics import band
from benchmarks_eval.outcomes import Outcome


@dataclass(frozen=True)
class SquareBias:
    """Biases over squares. Means have a sign (above 0: the positive side is liked); ``*_sd`` are
    root mean squares, in the unit of the scores. ``chance_*``: what the model would reach by
    guessing, its biases being what they are."""

    n: int
    nonfinite: int
    picture_mean: float
    text_mean: float
    picture_sd: float
    text_sd: float
    match_sd: float
    chance_text: float
    chance_image: float
    chance_group: float


def square_bias(outcomes: Sequence[Outcome]) -> SquareBias | None:
    """Takes squares apart; None where there are none with finite scores.

    Give the trials of one figure (they are the same for all figures of a task).
    """
    squares = [outcome.scores for outcome in outcomes if outcome.square]
    finite = [scores for scores in squares if np.isfinite(scores).all()]
    if not finite:
        return None
    s = np.stack(finite)  # [N, 2 pictures, 2 texts]
    picture = (s[:, 0].sum(axis=1) - s[:, 1].sum(axis=1)) / 2
    text = (s[:, :, 0].sum(axis=1) - s[:, :, 1].sum(axis=1)) / 2
    match = np.abs(s[:, 0, 0] + s[:, 1, 1] - s[:, 0, 1] - s[:, 1, 0]) / 2
    beats_text, beats_picture = match > np.abs(text), match > np.abs(picture)
    return SquareBias(
        len(finite), len(squares) - len(finite), float(picture.mean()), float(text.mean()),
        _rms(picture), _rms(text), _rms(match), float(beats_text.mean()) / 2,
        float(beats_picture.mean()) / 2, float((beats_text & beats_picture).mean()) / 2)


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).mean()))


@dataclass(frozen=True)
class Attraction:
    """How often a candidate was taken where it was wrong, beside the average candidate.

    ``excess`` is (taken - expected) / sqrt(variance) of independent choices: above 3 or so, a hub.
    """

    candidate: str
    offers: int
    taken: float
    expected: float
    excess: float


@dataclass(frozen=True)
class Attractions:
    """Which wrong candidates draw a model's choices.

    ``concentration`` compares how unevenly wrong choices fall on candidates with what choices
    independent of the candidate would give: about 1 without hubs, above 1 with them.
    """

    pictures: bool
    errors: float
    concentration: float
    candidates: tuple[Attraction, ...]


def attractions(outcomes: Sequence[Outcome]) -> Attractions | None:
    """Finds hub pictures (or phrases): wrong candidates that are chosen again and again.

    Expected is that every wrong candidate draws alike: the error rate of the trials with so many
    candidates, shared among a trial's wrong ones. Candidates come in the order of their excess.
    Returns None where nothing is ever wrongly chosen (or everything).
    """
    trials = [outcome for outcome in outcomes
              if not outcome.square and outcome.scores.size > 1
              and np.isfinite(outcome.scores).all()]
    shares = [_shares(outcome) for outcome in trials]
    wrong: dict[int, list[float]] = {}
    for outcome, share in zip(trials, shares, strict=True):
        wrong.setdefault(len(share), []).append(1 - float(share[outcome.gold]))
    rate = {size: float(np.mean(own)) / (size - 1) for size, own in wrong.items()}
    found: dict[str, list[float]] = {}  # candidate: offers, taken, expected, variance
    for outcome, share in zip(trials, shares, strict=True):
        even = rate[len(share)]
        for k, name in enumerate(outcome.images if len(outcome.images) > 1 else outcome.texts):
            if k != outcome.gold:
                own = found.setdefault(name, [0.0, 0.0, 0.0, 0.0])
                for place, value in enumerate((1.0, float(share[k]), even, even * (1 - even))):
                    own[place] += value
    total = sum(own[3] for own in found.values())
    if total <= 1e-12:
        return None
    candidates = [
        Attraction(name, int(offers), taken, expected,
                   (taken - expected) / max(variance, 1e-12) ** 0.5)
        for name, (offers, taken, expected, variance) in found.items()]
    squares = sum((one.taken - one.expected) ** 2 for one in candidates)
    return Attractions(
        len(trials[0].images) > 1, sum(sum(own) for own in wrong.values()), squares / total,
        tuple(sorted(candidates, key=lambda one: (-one.excess, one.candidate))))


def _shares(outcome: Outcome) -> np.ndarray:
    """How a trial's choice falls on its candidates: 1 for the best, 1/k each for k equals."""
    flat = outcome.scores.ravel()
    best = flat >= flat.max() - band(flat.max())
    return best / best.sum()

"""What is taken for what: the confusion matrix of labelled pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from benchmarks_eval.metrics import band
from benchmarks_eval.outcomes import Outcome
from benchmarks_eval.statistics import wilson


@dataclass(frozen=True)
class Confusion:
    """Counts [asked, candidate] by label.

    ``offered[i, j]``: trials about label i in which label j was a candidate. ``chosen[i, j]``: how
    often the model took it (a tie of k is 1/k each). Trials with non-finite scores are offered and
    choose nothing. ``unlabelled`` candidates (pictures whose label the trials do not say) are
    counted apart.
    """

    labels: tuple[str, ...]
    offered: NDArray[np.int64]
    chosen: NDArray[np.float64]
    unlabelled: int
    nonfinite: int

    @property
    def rates(self) -> NDArray[np.float64]:
        """Share of offers taken [asked, candidate]; NaN where never offered."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return self.chosen / self.offered

    def worst(self, most: int = 10) -> list[Confused]:
        """The pairs that the model confuses most surely: highest lower end of the interval."""
        found: list[Confused] = []
        for i, asked in enumerate(self.labels):
            for j, taken in enumerate(self.labels):
                if i != j and self.chosen[i, j] > 0:
                    offers = int(self.offered[i, j])
                    share = float(self.chosen[i, j]) / offers
                    made = wilson(share, offers)
                    found.append(Confused(asked, taken, offers, share, made.low, made.high))
        return sorted(found, key=lambda one: (-one.low, one.asked, one.taken))[:most]


@dataclass(frozen=True)
class Confused:
    """How often ``taken`` was chosen where ``asked`` was right and both were offered."""

    asked: str
    taken: str
    offers: int
    share: float
    low: float
    high: float


def confusion(outcomes: Sequence[Outcome]) -> Confusion:
    """Counts confusions over trials with one label (or one picture) and several candidates.

    The label of a foil picture is known when it is the right picture of another trial, or when
    pictures lie in folders named like the labels (Labeled-S). Tasks with ``candidates: all`` give
    the whole matrix.

    Raises:
        ValueError: squares have no single right candidate.
    """
    if any(outcome.square for outcome in outcomes):
        raise ValueError("confusion needs trials with one picture or one text")
    labels = sorted({text for outcome in outcomes for text in outcome.texts})
    place = {label: k for k, label in enumerate(labels)}
    of_picture = picture_labels(outcomes)
    offered = np.zeros((len(labels), len(labels)), dtype=np.int64)
    chosen = np.zeros((len(labels), len(labels)))
    unlabelled = nonfinite = 0
    for outcome in outcomes:
        right = outcome.right_texts[0]
        asked = place[right]
        if len(outcome.texts) > 1:
            candidates: list[str | None] = [*outcome.texts]
        else:
            candidates = [of_picture.get(image) for image in outcome.images]
            candidates[outcome.gold] = right
        flat = outcome.scores.ravel()
        finite = bool(np.isfinite(flat).all())
        nonfinite += not finite
        best = flat >= flat.max() - band(flat.max()) if finite else np.zeros(len(flat), bool)
        for candidate, taken in zip(candidates, best, strict=True):
            if candidate is None:
                unlabelled += 1
                continue
            offered[asked, place[candidate]] += 1
            if taken:
                chosen[asked, place[candidate]] += 1 / int(best.sum())
    return Confusion(tuple(labels), offered, chosen, unlabelled, nonfinite)


def picture_labels(outcomes: Sequence[Outcome]) -> Mapping[str, str]:
    """Picture to label, as far as the trials say it; pictures with two labels are left out."""
    labels = {text for outcome in outcomes for text in outcome.texts}
    found: dict[str, set[str]] = {}
    for outcome in outcomes:
        if outcome.square:
            continue
        right = outcome.images[outcome.gold if len(outcome.images) > 1 else 0]
        found.setdefault(right, set()).add(outcome.right_texts[0])
        for image in outcome.images:
            folder = PurePosixPath(image).parent.name
            if folder in labels:
                found.setdefault(image, set()).add(folder)
    return {image: next(iter(own)) for image, own in found.items() if len(own) == 1}

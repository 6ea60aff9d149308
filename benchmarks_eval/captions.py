"""Figures of generated captions: overlap with the references, beside floors that see nothing.

A caption metric alone says little: on SAYCam Caption a constant bag of frequent words beats every
published model. So each metric stands beside three floors:

``shuffled``
    the model's own captions, each given to other pictures: what its style is worth;
``constant``
    one reference said of every picture;
``bag``
    the most frequent words of the references, in order of frequency.

Both constants are cross-fitted: chosen for each metric on one half of the clusters, judged on the
other, and the other way round, so that they do not flatter themselves. ``*_gap`` is a metric less
its shuffled floor: what looking at the picture adds. ``retrieval`` turns the question around: does
the caption find its picture again?
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from benchmarks_eval import metrics
from benchmarks_eval.caption_metrics import Metric, Pair, Statistics, caption_metrics, references
from benchmarks_eval.data import Item
from benchmarks_eval.meteor import NAMES, Version, word_tokenize
from benchmarks_eval.statistics import RESAMPLES, Interval, bootstrap, interval
from benchmarks_eval.trials import Trial

SHUFFLES = 100
"""Each caption is tried on at most so many other pictures,"""
SHUFFLED_PAIRS = 20_000
"""and at most so many pairs are looked at in all."""
SLOW_SHUFFLES = 5
"""The same for metrics that another program computes."""
CANDIDATES = 150
"""Constants are chosen among at most so many references of a half,"""
JUDGES = 150
"""by their figure on so many of its items."""
ROUNDING = 1e-12
"""A caption that all pictures share is no better than itself: a smaller gap is a sum's rounding."""
BAG_SIZES = (4, 8, 12, 16, 20, 24)
"""Words in a bag; published captions may have 25 tokens."""

Values = NDArray[np.float64]
PictureScorer = Callable[[str, Sequence[str]], Sequence[float]]
"""A text and K pictures -> K scores, higher is better."""


class CaptionFigure(TypedDict):
    """One figure of a model on a caption task: what ``figures.Figure`` needs, and its values.

    ``values`` has one number for every item (``retrieval``: for every trial). ``value`` is their
    mean except for BLEU, a figure of the whole set, whose values are those of single captions.
    ``unit`` is ``share``, ``score`` (an index without a unit) or ``score difference``.
    """

    name: str
    label: str
    unit: str
    values: list[float]
    value: float
    low: float
    high: float
    interval: str
    n: int
    clusters: int
    chance: float
    floors: dict[str, float]
    ties: int
    nonfinite: int


def caption_figures(items: Sequence[Item], captions: Mapping[str, str], seed: int, *,
                    meteor: Version = "3.10", meteor_jar: str | Path | None = None,
                    scorer: PictureScorer | None = None, foils: int = 3) -> list[CaptionFigure]:
    """All figures of one model's captions.

    Args:
        items: the task's items, one reference each; references of a picture are taken together.
        captions: picture -> generated caption.
        seed: of floors, intervals and foils.
        meteor: which NLTK's METEOR.
        meteor_jar: path of ``meteor-1.5.jar`` to report METEOR 1.5 as well.
        scorer: how well pictures fit a text, to retrieve each picture from its caption.
        foils: pictures that compete with the right one in retrieval.

    Raises:
        ValueError: a picture has no caption, or a library, the jar or Java is missing.
    """
    task = _task(tuple(items), seed, meteor, None if meteor_jar is None else str(meteor_jar))
    made = task.figures(captions)
    if scorer is not None:
        made.append(retrieval_figure(retrieval_trials(items, captions, foils, seed), scorer, seed))
    return made


@functools.lru_cache(maxsize=8)
def _task(items: tuple[Item, ...], seed: int, meteor: Version, jar: str | None) -> _CaptionTask:
    # Floors that no model changes are computed once for all models.
    return _CaptionTask(items, caption_metrics(items, version=meteor, meteor_jar=jar), seed, meteor)


@dataclass(frozen=True)
class _Shuffled:
    """Captions of other pictures: their figure, and their mean for each item [N]."""

    figure: float
    per_item: Values


class _CaptionTask:
    """The references of a task, split into halves, and the floors that they give."""

    def __init__(self, items: tuple[Item, ...], all_metrics: list[Metric], seed: int,
                 meteor: Version) -> None:
        self._items, self._metrics, self._seed = items, all_metrics, seed
        self._main = next(m for m in all_metrics if m.name == NAMES[meteor])
        by_picture = references(items)
        self._wanted = [by_picture[item.images[0]] for item in items]
        self._clusters = [item.cluster for item in items]
        names = sorted(set(self._clusters))
        ranks = np.random.default_rng(seed).permutation(len(names))
        side = {name: int(rank) % 2 for name, rank in zip(names, ranks, strict=True)}
        self._halves = [[k for k, cluster in enumerate(self._clusters) if side[cluster] == half]
                        for half in (0, 1)]
        self._floors: dict[str, dict[str, float]] = {}

    def figures(self, captions: Mapping[str, str]) -> list[CaptionFigure]:
        """Every metric of one model's captions, and how far METEOR lies above other pictures'."""
        for item in self._items:
            if item.images[0] not in captions:
                raise ValueError(f"no caption for picture '{item.images[0]}'")
        said = [captions[item.images[0]] for item in self._items]
        made: list[CaptionFigure] = []
        for metric in self._metrics:
            statistics = metric.measure(list(zip(self._wanted, said, strict=True)))
            values = np.array([metric.single(row) for row in statistics])
            shuffled = self._shuffled(metric, said)
            floors = {} if shuffled is None else {"shuffled": shuffled.figure}
            made.append(self._figure(
                metric.name, metric.label, metric.unit, values,
                metric.pool(statistics.sum(axis=0), len(said)),
                self._interval(metric, statistics, values), floors | self._constants(metric)))
            if metric is self._main and shuffled is not None:
                gap = values - shuffled.per_item
                gap[np.abs(gap) < ROUNDING] = 0.0
                made.append(self._figure(
                    f"{metric.name}_gap", f"{metric.label}, above captions of other pictures",
                    f"{metric.unit} difference", gap, float(gap.mean()),
                    bootstrap(gap, self._clusters, seed=self._seed), {}))
        return made

    def _figure(self, name: str, label: str, unit: str, values: Values, value: float,
                made: Interval, floors: dict[str, float]) -> CaptionFigure:
        return CaptionFigure(
            name=name, label=label, unit=unit, values=values.tolist(), value=value, low=made.low,
            high=made.high, interval=made.method, n=len(values),
            clusters=len(set(self._clusters)), chance=0.0, floors=floors, ties=0, nonfinite=0)

    def _interval(self, metric: Metric, statistics: Statistics, values: Values) -> Interval:
        if metric.is_mean:
            if metric.unit == "share":
                return interval(values, self._clusters, share=True, seed=self._seed)
            return bootstrap(values, self._clusters, seed=self._seed)
        return _pooled_bootstrap(metric, statistics, self._clusters, self._seed)

    def _shuffled(self, metric: Metric, said: list[str]) -> _Shuffled | None:
        """The model's captions of pictures of other clusters; None when there are none."""
        count = len(said)
        rolls = min(count - 1, SHUFFLES, max(1, SHUFFLED_PAIRS // count))
        if not metric.chooses:
            rolls = min(rolls, SLOW_SHUFFLES)
        order = np.random.default_rng(self._seed).permutation(count)
        pairs = np.array([(roll, mine, other) for roll in range(rolls)
                          for mine, other in zip(order, np.roll(order, roll + 1), strict=True)
                          if self._items[mine].images[0] != self._items[other].images[0]
                          and self._clusters[mine] != self._clusters[other]])
        if not len(pairs):
            return None
        statistics = metric.measure([(self._wanted[mine], said[other]) for _, mine, other in pairs])
        values = np.array([metric.single(row) for row in statistics])
        sums, sizes = (np.bincount(pairs[:, 1], weights=w, minlength=count)
                       for w in (values, np.ones_like(values)))
        # An item whose partners were all of its own cluster gets the mean of all.
        per_item = np.where(sizes > 0, sums / np.maximum(sizes, 1), values.mean())
        # Roll by roll: BLEU's smoothing depends on how many captions are taken together.
        figures = [metric.pool(statistics[of].sum(axis=0), int(of.sum()))
                   for of in (pairs[:, 0] == roll for roll in range(rolls)) if of.any()]
        return _Shuffled(float(np.mean(figures)), per_item)

    def _constants(self, metric: Metric) -> dict[str, float]:
        """Cross-fitted floors; none when all items are of one cluster."""
        if metric.name not in self._floors:
            self._floors[metric.name] = {} if not all(self._halves) else {
                name: self._cross_fitted(metric, texts)
                for name, texts in (("constant", self._sentences), ("bag", self._bags))}
        return dict(self._floors[metric.name])

    def _cross_fitted(self, metric: Metric, texts: Callable[[list[int]], list[str]]) -> float:
        pairs: list[Pair] = []
        for learn, judge in (self._halves, self._halves[::-1]):
            constant = self._best(metric if metric.chooses else self._main, learn, texts(learn))
            pairs += [(self._wanted[k], constant) for k in judge]
        return metric.pool(metric.measure(pairs).sum(axis=0), len(pairs))

    def _best(self, metric: Metric, half: list[int], texts: list[str]) -> str:
        judges = [self._wanted[k] for k in self._some(half, JUDGES)]
        figures = [metric.pool(metric.measure([(wanted, text) for wanted in judges]).sum(axis=0),
                               len(judges)) for text in texts]
        return texts[int(np.argmax(figures))]

    def _sentences(self, half: list[int]) -> list[str]:
        distinct = sorted({text for k in half for text in self._wanted[k]})
        return [distinct[k] for k in self._some(range(len(distinct)), CANDIDATES)]

    def _bags(self, half: list[int]) -> list[str]:
        counts = Counter(token for k in half for text in self._wanted[k]
                         for token in word_tokenize(text.lower()))
        common = sorted(counts, key=lambda token: (-counts[token], token))
        return [" ".join(common[:size]) for size in BAG_SIZES]

    def _some(self, whole: Sequence[int], most: int) -> list[int]:
        if len(whole) <= most:
            return list(whole)
        chosen = np.random.default_rng(self._seed).choice(len(whole), size=most, replace=False)
        return [whole[k] for k in sorted(chosen)]


def _pooled_bootstrap(metric: Metric, statistics: Statistics, clusters: Sequence[str],
                      seed: int) -> Interval:
    """Percentile interval of a figure of sums, resampling whole clusters."""
    names, index = np.unique(np.array(clusters, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), statistics.shape[1]))
    np.add.at(sums, index, statistics)
    sizes = np.bincount(index)
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    figures = [metric.pool(sums[draw].sum(axis=0), int(sizes[draw].sum())) for draw in draws]
    low, high = np.quantile(figures, [0.025, 0.975])
    method = "cluster bootstrap" if len(names) < len(statistics) else "bootstrap"
    return Interval(float(low), float(high), method)


def retrieval_trials(items: Sequence[Item], captions: Mapping[str, str], foils: int,
                     seed: int) -> list[Trial]:
    """A trial for every picture: which of ``foils`` + 1 pictures is this caption of?

    Foils are drawn from pictures of other clusters (two frames of one scene share their caption
    rightly); other pictures may well have got the same caption, which then cannot tell them apart.

    Raises:
        ValueError: all pictures are of one cluster.
    """
    first = {item.images[0]: item for item in reversed(items)}
    pictures = sorted(first)
    trials: list[Trial] = []
    for number, own in enumerate(pictures):
        item = first[own]
        others = [p for p in pictures if first[p].cluster != item.cluster]
        if not others:
            raise ValueError(f"picture '{own}' has no picture of another cluster to compete with")
        rng = np.random.default_rng([seed, number])
        chosen = rng.choice(len(others), size=min(foils, len(others)), replace=False)
        shown = [own, *(others[k] for k in chosen)]
        order = rng.permutation(len(shown))
        trials.append(Trial(item.id, tuple(shown[k] for k in order), (captions[own],),
                            int(np.flatnonzero(order == 0)[0]), item.cluster, item.tags))
    return trials


def retrieval_figure(trials: Sequence[Trial], scorer: PictureScorer, seed: int) -> CaptionFigure:
    """How often a generated caption finds its own picture; equal scores share the credit.

    A model that says nothing says nothing about any picture: all tie. A score that is not finite
    makes the trial worth nothing and is counted.
    """
    credits_: list[float] = []
    ties = nonfinite = 0
    for trial in trials:
        text = trial.texts[0]
        if text.strip():
            scores = np.array([scorer(text, trial.images)], dtype=np.float64).ravel()
            assert len(scores) == len(trial.images)
        else:
            scores = np.zeros(len(trial.images))
        if not np.isfinite(scores).all():
            nonfinite += 1
            credits_.append(0.0)
            continue
        credit = metrics.choice(scores, trial.gold)
        ties += 0 < credit < 1
        credits_.append(credit)
    values, clusters = np.array(credits_), [trial.cluster for trial in trials]
    made = interval(values, clusters, share=True, seed=seed)
    chance = math.fsum(1 / len(trial.images) for trial in trials) / len(trials)
    return CaptionFigure(
        name="retrieval_from_caption", label="picture found from its own caption", unit="share",
        values=values.tolist(), value=float(values.mean()), low=made.low, high=made.high,
        interval=made.method, n=len(values), clusters=len(set(clusters)), chance=chance,
        floors={}, ties=ties, nonfinite=nonfinite)

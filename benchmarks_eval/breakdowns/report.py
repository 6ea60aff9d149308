"""All breakdowns of one run together, as JSON and as text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks_eval.breakdowns.bias import Attractions, SquareBias, attractions, square_bias
from benchmarks_eval.breakdowns.confusion import Confusion, confusion
from benchmarks_eval.breakdowns.frequency import by_frequency
from benchmarks_eval.breakdowns.groups import Breakdown, by_tag, tags_of
from benchmarks_eval.breakdowns.norms import Association, Norms, association, by_age
from benchmarks_eval.breakdowns.oov import Vocabulary, by_vocabulary
from benchmarks_eval.breakdowns.wording import deciding_words
from benchmarks_eval.compare_table import chance, plain
from benchmarks_eval.outcomes import Judged, Measured
from benchmarks_eval.tasks import nearest

MOST_LABELS = 60
"""Beyond so many labels a confusion matrix says little: each pair is met once or twice."""
HUBS = 20
HUB_EXCESS = 3.0
LINES = 8


@dataclass(frozen=True)
class Sources:
    """What a user has beside the run; None leaves those breakdowns out."""

    vocabulary: Vocabulary | None = None
    counts: Mapping[str, int] | None = None
    norms: Norms | None = None


@dataclass(frozen=True)
class Parts:
    """Everything about one figure."""

    measured: Measured
    breakdowns: tuple[Breakdown, ...]
    frequency: Association | None
    age: Association | None
    confusion: Confusion | None
    bias: SquareBias | None
    attractions: Attractions | None

    def to_json(self) -> dict[str, Any]:
        """A strict-JSON tree."""
        return {
            "task": self.measured.task, "figure": self.measured.figure,
            "breakdowns": [asdict(one) for one in self.breakdowns],
            "frequency": _plain(self.frequency), "age": _plain(self.age),
            "confusion": None if self.confusion is None else {
                "labels": list(self.confusion.labels),
                "offered": self.confusion.offered.tolist(),
                "chosen": self.confusion.chosen.tolist(),
                "unlabelled": self.confusion.unlabelled,
                "nonfinite": self.confusion.nonfinite,
                "worst": [asdict(one) for one in self.confusion.worst()]},
            "bias": _plain(self.bias),
            "attractions": None if self.attractions is None else {
                **asdict(self.attractions),
                "candidates": [asdict(one) for one in self.attractions.candidates[:HUBS]]},
        }


def _plain(value: Any) -> dict[str, Any] | None:
    return None if value is None else asdict(value)


def break_down(judged: Judged, sources: Sources, *, tasks: Sequence[str] | None = None,
               every: bool = False, seed: int = 0) -> list[Parts]:
    """Every breakdown that the data, the tags and the sources allow.

    Args:
        judged: the run.
        sources: vocabulary, word counts, ages of acquisition.
        tasks: only these.
        every: all figures, not only the main one of each task.
        seed: of resamples.

    Raises:
        ValueError: an unknown task.
    """
    known = dict.fromkeys(task for task, _ in judged.measures)
    for task in tasks or ():
        if task not in known:
            raise ValueError(f"unknown task '{task}'{nearest(task, known)}")
    mains = {(f["task"], f["figure"]) for f in judged.results["figures"] if f.get("primary")}
    return [_parts(measured, sources, seed) for key, measured in judged.measures.items()
            if (not tasks or key[0] in tasks) and (every or key in mains)]


def _parts(measured: Measured, sources: Sources, seed: int) -> Parts:
    outcomes = measured.outcomes
    made = [by_tag(measured, tag, seed=seed) for tag in tags_of(measured)]
    made = [one for one in made if len(one.groups) > 1]
    frequency = aged = None
    if sources.vocabulary is not None:
        made.append(by_vocabulary(measured, sources.vocabulary, seed=seed))
    if sources.counts is not None:
        made.append(by_frequency(measured, sources.counts, seed=seed))
        deciding = {word for outcome in outcomes for word in deciding_words(outcome)}
        frequency = association(measured, {word: math.log(sources.counts.get(word, 0) + 1)
                                           for word in deciding})
    if sources.norms is not None:
        made.append(by_age(measured, sources.norms, seed=seed))
        aged = association(measured, sources.norms.months)
    labels = {text for outcome in outcomes for text in outcome.texts}
    labelled = (len(labels) <= MOST_LABELS and all("category" in o.tags for o in outcomes)
                and not any(o.square for o in outcomes))
    choices = measured.share and all(o.scores.size for o in outcomes)
    return Parts(measured, tuple(made), frequency, aged,
                 confusion(outcomes) if labelled and choices else None,
                 square_bias(outcomes), attractions(outcomes) if choices else None)


def breakdown_text(made: Sequence[Parts]) -> str:
    """All parts as people read them in a terminal."""
    lines: list[str] = []
    for parts in made:
        head = f"{parts.measured.task}  {parts.measured.figure}"
        lines += ["", head, "─" * len(head)]
        for one in parts.breakdowns:
            lines += _breakdown_lines(one)
        for what, found in (("word frequency (log)", parts.frequency),
                            ("age of acquisition", parts.age)):
            if found is not None:
                lines.append(f"  credit of a word and its {what}: rank correlation "
                             f"{found.rho:+.2f} over {found.words} words, p {chance(found.p)}")
        lines += _confusion_lines(parts.confusion)
        lines += _bias_lines(parts.bias)
        lines += _hub_lines(parts.attractions)
    return "\n".join(lines).lstrip("\n")


def _breakdown_lines(one: Breakdown) -> Iterator[str]:
    tail = "" if one.p is None else f", p {chance(one.p)} that groups do not differ"
    left = f" ({one.left_out} trials left out)" if one.left_out else ""
    yield f"  by {one.by}{left}{tail}"
    width = max((len(group.name) for group in one.groups), default=0)
    for group in one.groups:
        span = f"[{plain(group.low, one.unit)}, {plain(group.high, one.unit)}]"
        yield (f"    {group.name:<{width}}  {plain(group.value, one.unit):>6} {span:<13} "
               f"n {group.n}, clusters {group.clusters}, chance {plain(group.chance, one.unit)}, "
               f"{group.ties}t {group.nonfinite}n")


def _confusion_lines(found: Confusion | None) -> Iterator[str]:
    if found is None:
        return
    worst = found.worst(LINES)
    known = int(found.offered.sum())
    yield (f"  confusions, {len(found.labels)} labels ({found.unlabelled} of "
           f"{known + found.unlabelled} candidates have no known label)")
    for one in worst:
        yield (f"    {one.taken} for {one.asked}: {one.share:.0%} of {one.offers} "
               f"[{one.low:.0%}, {one.high:.0%}]")


def _bias_lines(found: SquareBias | None) -> Iterator[str]:
    if found is None:
        return
    yield (f"  what the scores of {found.n} squares are made of (root mean square): picture "
           f"{found.picture_sd:.3g}, text {found.text_sd:.3g}, match {found.match_sd:.3g}")
    yield (f"    guessing with these biases: text {plain(found.chance_text, 'share')}, image "
           f"{plain(found.chance_image, 'share')}, group {plain(found.chance_group, 'share')} "
           f"(independent scores: 1/4, 1/4, 1/6)")


def _hub_lines(found: Attractions | None) -> Iterator[str]:
    if found is None:
        return
    what = "pictures" if found.pictures else "texts"
    hubs = [one for one in found.candidates[:LINES] if one.excess > HUB_EXCESS]
    yield (f"  wrong choices fall on {what} {found.concentration:.2f} times as unevenly as by "
           f"chance{'; most often chosen where wrong:' if hubs else ''}")
    for one in hubs:
        yield (f"    {one.candidate}: {one.taken:.3g} of {one.offers}, "
               f"expected {one.expected:.3g}")

"""From questions to trials: which pictures meet which texts, in an order that says nothing."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks_eval.data import Item
from benchmarks_eval.tasks import Direction, Task


@dataclass(frozen=True)
class Trial:
    """A small score matrix to fill: ``images`` [I] by ``texts`` [J].

    Either I or J is 1 and the right choice lies at ``gold`` on the other axis, or both are 2
    (winoground) and the right answer is the diagonal. The picture "" stands for none: only models
    that know the likelihood of a text by itself can be asked. ``tags`` are what breakdowns go by.
    """

    id: str
    images: tuple[str, ...]
    texts: tuple[str, ...]
    gold: int
    cluster: str
    tags: tuple[tuple[str, str], ...] = ()

    @property
    def choices(self) -> int:
        """Number of candidates of a one-sided choice; 4 cells for a square."""
        return len(self.images) * len(self.texts)


def spread(items: Sequence[Item], limit: int | None) -> list[Item]:
    """At most ``limit`` items, evenly spaced: files are often sorted by category."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[k * len(items) // limit] for k in range(limit)]


def _rng(seed: int, task: Task, what: str, item: Item) -> np.random.Generator:
    # Keyed by the item itself: a trial stays the same whatever else is evaluated.
    return np.random.default_rng([seed, zlib.crc32(f"{task.name}/{what}/{item.id}".encode())])


def labeled_trials(task: Task, items: Sequence[Item], direction: Direction,
                   seed: int) -> list[Trial]:
    """n-way trials: the picture for a label (``image``) or the label for a picture (``text``)."""
    trials: list[Trial] = []
    for item in items:
        order = _rng(seed, task, direction, item).permutation(len(item.images))
        gold = int(np.flatnonzero(order == item.gold)[0])
        images = tuple(item.images[k] for k in order)
        texts = tuple(item.texts[k] for k in order)
        if direction == "image":
            texts = (texts[gold],)
        else:
            images = (images[gold],)
        trials.append(Trial(item.id, images, texts, gold, item.cluster, item.tags))
    return trials


def all_label_trials(task: Task, items: Sequence[Item], seed: int) -> list[Trial]:
    """The label for a picture among every label of the set, once for each distinct target.

    A target that several questions share becomes one trial, named after the first of them.
    """
    labels = sorted({text for item in items for text in item.texts})
    trials: dict[tuple[str, str], Trial] = {}
    for item in items:
        own = item.images[item.gold], item.texts[item.gold]
        if own not in trials:
            order = _rng(seed, task, "all labels", item).permutation(len(labels))
            texts = tuple(labels[k] for k in order)
            trials[own] = Trial(item.id, own[:1], texts, texts.index(own[1]), item.cluster,
                                item.tags)
    return list(trials.values())


def two_word_trials(task: Task, items: Sequence[Item], seed: int) -> list[Trial]:
    """The phrase for a picture, one of two."""
    trials: list[Trial] = []
    for item in items:
        gold = int(_rng(seed, task, "phrase", item).integers(2))
        texts = item.texts if gold == 0 else item.texts[::-1]
        trials.append(Trial(item.id, item.images, texts, gold, item.cluster, item.tags))
    return trials


def text_choice_trials(task: Task, items: Sequence[Item], seed: int) -> list[Trial]:
    """The text for a picture (or, with the picture "", the better text), one of several."""
    trials: list[Trial] = []
    for item in items:
        order = _rng(seed, task, "text", item).permutation(len(item.texts))
        gold = int(np.flatnonzero(order == item.gold)[0])
        trials.append(Trial(item.id, item.images, tuple(item.texts[k] for k in order), gold,
                            item.cluster, item.tags))
    return trials


def picture_choice_trials(task: Task, items: Sequence[Item], seed: int) -> list[Trial]:
    """The picture for a text, one of several. The prior of the text cancels."""
    trials: list[Trial] = []
    for item in items:
        order = _rng(seed, task, "picture", item).permutation(len(item.images))
        gold = int(np.flatnonzero(order == item.gold)[0])
        trials.append(Trial(item.id, tuple(item.images[k] for k in order), item.texts, gold,
                            item.cluster, item.tags))
    return trials


def winoground_trials(items: Sequence[Item]) -> list[Trial]:
    """Two pictures by two phrases, positive first: the figures name the two sides, and ties are
    broken by expectation, so no order can help."""
    return [Trial(item.id, item.images, item.texts, 0, item.cluster, item.tags)
            for item in items]


def caption_trials(task: Task, items: Sequence[Item], foils: int, seed: int) -> list[Trial]:
    """The picture for a caption, among its own and at most ``foils`` others.

    Pictures that carry the same caption somewhere in the set are never foils. Because only the
    picture changes, the language prior of a caption cancels.

    Raises:
        ValueError: a caption has no other picture to be compared with.
    """
    captions: dict[str, set[str]] = {}
    for item in items:
        captions.setdefault(item.images[0], set()).add(item.texts[0])
    trials: list[Trial] = []
    for item in items:
        own, text = item.images[0], item.texts[0]
        others = [image for image, texts in captions.items() if image != own and text not in texts]
        if not others:
            raise ValueError(f"task '{task.name}': the caption '{text}' needs a picture with "
                             f"another caption to be compared with")
        rng = _rng(seed, task, f"caption{foils}", item)
        chosen = rng.choice(len(others), size=min(foils, len(others)), replace=False)
        images = [own, *(others[k] for k in chosen)]
        order = rng.permutation(len(images))
        gold = int(np.flatnonzero(order == 0)[0])
        trials.append(Trial(item.id, tuple(images[k] for k in order), (text,), gold, item.cluster,
                            item.tags))
    return trials


def question_trials(task: Task, items: Sequence[Item], seed: int) -> dict[str, list[Trial]]:
    """The trials of a task by the name of the figure that they give, without retrieval pools.

    Names: ``image`` and ``text`` (labeled, by direction), ``phrase`` (two_word), ``group``
    (winoground), ``picture`` (caption, picture_choice), ``choice`` (text_choice).
    """
    match task.kind:
        case "labeled" if task.candidates == "all":
            return {"text": all_label_trials(task, items, seed)}
        case "labeled":
            return {side: labeled_trials(task, items, side, seed) for side in task.directions}
        case "two_word":
            return {"phrase": two_word_trials(task, items, seed)}
        case "winoground":
            return {"group": winoground_trials(items)}
        case "text_choice":
            return {"choice": text_choice_trials(task, items, seed)}
        case "picture_choice":
            return {"picture": picture_choice_trials(task, items, seed)}
        case "caption":
            return {"picture": caption_trials(task, items, task.foils, seed)}

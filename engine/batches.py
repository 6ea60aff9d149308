"""Which samples are in step s: a pure function of (seed, phase, epoch, s), lengths and budget.

Samples are taken in shuffled order until the step's global token budget is full. The ranks and
accumulation steps then share the step out, whole samples each. Nothing is remembered between
steps, so resuming is a number, and the number of ranks changes nothing but who computes what.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from functools import lru_cache

import numpy as np


def stream_seed(*parts: int | str) -> int:
    """A 63-bit seed from any labels, the same on every machine: ``stream_seed(0, "joint", 3)``."""
    text = "\x1f".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def epoch_order(num_samples: int, *labels: int | str) -> np.ndarray:
    """A permutation of ``num_samples`` drawn from the counter-based Philox generator, int64."""
    generator = np.random.Generator(np.random.Philox(key=stream_seed(*labels)))
    return generator.permutation(num_samples)


def cut_by_budget(lengths: np.ndarray, budget: int) -> np.ndarray:
    """Boundaries ``[S + 1]`` that cut ``lengths`` [n] into steps of at most ``budget`` tokens."""
    if len(lengths) and lengths.min() == lengths.max():
        # Pairs that count one each: hundreds of epochs are planned in an instant.
        inside = np.arange(0, len(lengths), budget // int(lengths[0]), dtype=np.int64)
        return np.append(inside, len(lengths))
    ends = np.cumsum(lengths, dtype=np.int64)
    bounds = [0]
    while bounds[-1] < len(lengths):
        used = ends[bounds[-1] - 1] if bounds[-1] else 0
        bounds.append(int(np.searchsorted(ends, used + budget, side="right")))
    return np.asarray(bounds, dtype=np.int64)


def deal(lengths: np.ndarray, shares: int) -> list[slice]:
    """Cut one step's samples into ``shares`` runs of nearly equal token counts.

    A share may be empty when there are fewer samples than shares. No share exceeds
    ``sum / shares`` by more than the longest sample.
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    marks = [round(total * k / shares) for k in range(1, shares)]
    cuts = [0, *(int(np.searchsorted(ends, mark, side="left")) + 1 for mark in marks), len(ends)]
    cuts = list(np.minimum(np.maximum.accumulate(cuts), len(ends)))
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


@dataclass(frozen=True)
class Place:
    """Where a step of a phase lies: ``epoch`` and ``index`` within it, both from 0."""

    epoch: int
    index: int
    last_of_epoch: bool


class Plan:
    """All steps of one phase.

    Args:
        lengths: tokens per sample, int [n]; ones when the budget counts pairs.
        budget: global tokens (or pairs) of one step.
        epochs: passes over the samples.
        seed, phase: labels of the random stream.
        max_steps: cap on the number of steps.
        drop_last: leave out an epoch's last step when it is not full (contrastive batches).
        subsets: groups of samples of which each epoch takes one at random (pictures with
            several utterances), as int ids [n]; None = every sample in every epoch.
    """

    def __init__(
        self, lengths: np.ndarray, budget: int, epochs: int, *, seed: int, phase: str,
        max_steps: int | None = None, drop_last: bool = False, subsets: np.ndarray | None = None,
    ) -> None:
        if len(lengths) == 0:
            raise ValueError(f"phase {phase}: the training split holds no samples")
        longest = int(lengths.max())
        if longest > budget:
            raise ValueError(
                f"phases.{phase}: a sample of {longest} tokens does not fit the step's budget "
                f"of {budget}; raise tokens_per_step or lower tokenizer.max_tokens"
            )
        self.lengths, self.budget, self.epochs = lengths, budget, epochs
        self.seed, self.phase, self.drop_last, self.subsets = seed, phase, drop_last, subsets
        self._epoch = lru_cache(maxsize=4)(self._plan_epoch)
        counts = []
        for epoch in range(epochs):
            counts.append(len(self._epoch(epoch)[1]) - 1)
            if max_steps is not None and sum(counts) >= max_steps:
                break
        self._ends = np.cumsum(counts)
        self.num_steps = int(min(self._ends[-1], max_steps or self._ends[-1]))

    def _plan_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        order = epoch_order(len(self.lengths), self.seed, self.phase, "order", epoch)
        if self.subsets is not None:
            # The first of each subset in shuffled order: one utterance a picture, at random.
            _, first = np.unique(self.subsets[order], return_index=True)
            order = order[np.sort(first)]
        bounds = cut_by_budget(self.lengths[order], self.budget)
        partial = len(bounds) > 2 and self.lengths[order[bounds[-2]:]].sum() < self.budget
        if self.drop_last and partial:
            bounds = bounds[:-1]
        return order, bounds

    def locate(self, step: int) -> Place:
        """Epoch and index of ``step`` (0-based within the phase)."""
        epoch = int(np.searchsorted(self._ends, step, side="right"))
        start = int(self._ends[epoch - 1]) if epoch else 0
        return Place(epoch, step - start, step + 1 == int(self._ends[epoch]))

    def samples(self, step: int) -> np.ndarray:
        """Samples of ``step``, in order, int64."""
        place = self.locate(step)
        order, bounds = self._epoch(place.epoch)
        return order[bounds[place.index] : bounds[place.index + 1]]

    def share(self, step: int, share: int, shares: int) -> np.ndarray:
        """The part of ``samples(step)`` that falls to ``share`` of ``shares``."""
        samples = self.samples(step)
        return samples[deal(self.lengths[samples], shares)[share]]

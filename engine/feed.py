"""Batches ahead of the step: a thread decodes, augments and packs while the device works."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from engine.augment import AugmentConfig
from engine.batches import Plan, deal, stream_seed
from engine.features import FeatureStore
from engine.images import ImageStream
from engine.models.row import Row
from engine.prepare import Pending
from engine.rows import Documents, RaggedTexts, build_row


@dataclass
class Micro:
    """What one forward pass takes, for any objective. Unused fields are None."""

    row: Row | None = None
    tokens: torch.Tensor | None = None
    """Contrastive: token ids of the utterances, ragged, int64."""
    offsets: torch.Tensor | None = None
    """Contrastive: start of each utterance in ``tokens``, int64 [N]."""
    labels: torch.Tensor | None = None
    """Contrastive: group of each pair, int64 [N]; None = every pair is its own."""
    images: torch.Tensor | Pending | None = None
    """Normalised pictures, float [N, 3, S, S], or what `to` makes them of."""
    features: torch.Tensor | None = None
    """Stored features, [N, P, C]."""

    def to(self, device: torch.device, dtype: torch.dtype) -> Micro:
        """Move to ``device``; pictures and features take the weights' ``dtype``."""
        moved = Micro()
        for name, value in vars(self).items():
            if isinstance(value, Row):
                moved.row = value.to(device)
            elif isinstance(value, Pending):
                moved.images = value.to(device, dtype)
            elif value is not None:
                target = dtype if name in ("images", "features") else value.dtype
                setattr(moved, name, value.to(device, target, non_blocking=True))
        return moved


@dataclass
class StepBatch:
    """One rank's part of one step."""

    step: int
    micros: list[Micro]
    num_targets: int
    """Loss tokens (or pairs) of the step over all ranks: the divisor of the summed loss."""
    num_tokens: int
    """Row positions of this step over all ranks."""
    num_images: int
    """Pictures of this step over all ranks."""
    num_words: int
    """Utterance tokens of this step over all ranks."""
    squares: int
    """Sum of squared document lengths over all ranks."""


class Maker(Protocol):
    """Turns a step's samples into this rank's micro-batches."""

    plan: Plan

    def image_rows(self, samples: np.ndarray) -> np.ndarray | None:
        """Rows of the pictures to decode, or None when no picture is read."""
        ...

    def shares(self, step: int) -> list[np.ndarray]:
        """The samples of each of this rank's micro-batches."""
        ...

    def micro(self, samples: np.ndarray, pictures: torch.Tensor | None, epoch: int) -> Micro:
        """One micro-batch; ``pictures`` are uint8 [N, S, S, 3]."""
        ...

    def totals(self, step: int) -> StepBatch:
        """The step's counts over all ranks, without micro-batches."""
        ...


@dataclass
class Pictures:
    """How a phase comes by its pictures: decoded each time, or from the feature store."""

    rows: np.ndarray
    """Row of each sample's picture in the split's picture file, int64 [n]."""
    store: FeatureStore | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    augment: AugmentConfig | None
    seed: int
    pending: bool = False
    """Leave normalisation and augmentation to the device that gets the pictures."""

    def prepare(
        self, samples: np.ndarray, pictures: torch.Tensor | None, epoch: int
    ) -> tuple[torch.Tensor | Pending | None, torch.Tensor | None]:
        """``(images, features)`` of ``samples``: exactly one of them is not None."""
        rows = self.rows[samples]
        if self.store is not None:
            return None, self.store.read(rows, epoch)
        assert pictures is not None
        # Keyed by the pair, so that two utterances of one picture see it differently.
        images = Pending(pictures, samples, self.augment, self.seed, epoch, self.mean, self.std)
        return images if self.pending else images.to(pictures.device, torch.float32), None


class RowMaker(Maker):
    """Packed rows for the generative and language objectives."""

    def __init__(self, plan: Plan, documents: Documents, pictures: Pictures | None, *,
                 pad_id: int, rank: int, size: int, accumulate: int) -> None:
        self.plan, self.documents, self.pictures, self.pad_id = plan, documents, pictures, pad_id
        self.rank, self.size, self.accumulate = rank, size, accumulate

    def image_rows(self, samples: np.ndarray) -> np.ndarray | None:
        """See :class:`Maker`."""
        if self.pictures is None or self.pictures.store is not None:
            return None
        return self.pictures.rows[samples]

    def shares(self, step: int) -> list[np.ndarray]:
        """See :class:`Maker`."""
        samples = self.plan.samples(step)
        parts = deal(self.plan.lengths[samples], self.size * self.accumulate)
        return [samples[parts[k * self.size + self.rank]] for k in range(self.accumulate)]

    def micro(self, samples: np.ndarray, pictures: torch.Tensor | None, epoch: int) -> Micro:
        """See :class:`Maker`."""
        micro = Micro(row=build_row(self.documents, samples, self.pad_id))
        if self.pictures is not None:
            micro.images, micro.features = self.pictures.prepare(samples, pictures, epoch)
        return micro

    def totals(self, step: int) -> StepBatch:
        """See :class:`Maker`."""
        samples = self.plan.samples(step)
        lengths = self.documents.lengths[samples]
        images = len(samples) if self.pictures is not None else 0
        return StepBatch(
            step, [], int(self.documents.targets[samples].sum()), int(lengths.sum()), images,
            int(self.documents.text_lengths[samples].sum()), int((lengths**2).sum()),
        )


class PairMaker(Maker):
    """Pictures and ragged utterances for the contrastive objective."""

    def __init__(self, plan: Plan, texts: RaggedTexts, pictures: Pictures,
                 labels: np.ndarray | None, *, rank: int, size: int) -> None:
        self.plan, self.texts, self.pictures, self.labels = plan, texts, pictures, labels
        self.rank, self.size = rank, size

    def image_rows(self, samples: np.ndarray) -> np.ndarray | None:
        """See :class:`Maker`."""
        return None if self.pictures.store is not None else self.pictures.rows[samples]

    def shares(self, step: int) -> list[np.ndarray]:
        """See :class:`Maker`."""
        return [self.plan.share(step, self.rank, self.size)]

    def micro(self, samples: np.ndarray, pictures: torch.Tensor | None, epoch: int) -> Micro:
        """See :class:`Maker`."""
        tokens, starts = self.texts.gather(samples)
        images, features = self.pictures.prepare(samples, pictures, epoch)
        labels = None if self.labels is None else torch.from_numpy(self.labels[samples])
        return Micro(
            tokens=torch.from_numpy(tokens), offsets=torch.from_numpy(starts), labels=labels,
            images=images, features=features,
        )

    def totals(self, step: int) -> StepBatch:
        """See :class:`Maker`."""
        samples = self.plan.samples(step)
        words = int(self.texts.lengths[samples].sum())
        return StepBatch(step, [], len(samples), 0, len(samples), words, 0)


def produce(maker: Maker, images: ImageStream | None, first: int, last: int) -> Iterator[StepBatch]:
    """Batches of steps ``first`` to ``last`` (exclusive), in order, without a thread."""
    step = first
    while step < last:
        # One picture stream an epoch: the loader reads ahead within it.
        epoch = maker.plan.locate(step).epoch
        steps = [step]
        while not maker.plan.locate(steps[-1]).last_of_epoch and steps[-1] + 1 < last:
            steps.append(steps[-1] + 1)
        shares = [part for s in steps for part in maker.shares(s)]
        wanted = [maker.image_rows(samples) for samples in shares]
        rows = [r for r in wanted if r is not None and len(r)]
        stream = None
        if rows and images is not None:
            stream = images.stream(np.concatenate(rows), [len(r) for r in rows])
        try:
            parts = iter(zip(shares, wanted, strict=True))
            per_step = len(shares) // len(steps)
            for s in steps:
                batch = maker.totals(s)
                for _ in range(per_step):
                    samples, need = next(parts)
                    pictures = None
                    if images is not None and need is not None:
                        # A share may be empty; its tower still runs, as on all other ranks.
                        side = images.size
                        pictures = torch.empty(0, side, side, 3, dtype=torch.uint8)
                        if stream is not None and len(need):
                            pictures = next(stream)
                    batch.micros.append(maker.micro(samples, pictures, epoch))
                yield batch
        finally:
            if stream is not None:
                close = getattr(stream, "close", None)
                if close is not None:
                    close()
        step = steps[-1] + 1


class Feed:
    """Iterates :func:`produce` in a thread, ``depth`` batches ahead; counts the waiting time."""

    def __init__(self, maker: Maker, images: ImageStream | None, first: int, last: int,
                 depth: int = 2) -> None:
        self.waited_s = 0.0
        self._queue: queue.Queue[StepBatch | BaseException | None] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(maker, images, first, last), name="feed", daemon=True
        )
        self._thread.start()

    def _run(self, maker: Maker, images: ImageStream | None, first: int, last: int) -> None:
        try:
            with closing(produce(maker, images, first, last)) as batches:  # type: ignore[type-var]
                for batch in batches:
                    if not self._put(batch):
                        return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: StepBatch | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[StepBatch]:
        while True:
            began = time.perf_counter()
            item = self._queue.get()
            self.waited_s += time.perf_counter() - began
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the thread; safe to call at any time."""
        self._stop.set()
        self._thread.join(timeout=10)


def step_seed(seed: int, phase: str, step: int, rank: int) -> int:
    """Seed of everything random inside a step (dropout): resuming needs no generator state."""
    return stream_seed(seed, phase, "step", step, rank)

"""Models that could see, and are not let: without a picture, with noise, with another's picture.

What such a model still gets right comes from its texts, not from the picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks_eval.models.blind import picture_digest
from benchmarks_eval.models.hashing import hash_facts
from benchmarks_eval.models.protocols import Likelihood, Material

NOISE_SIZE = 256
"""Side of the noise pictures; every model resizes them to its own."""
NOISE_MEAN, NOISE_SD = 127.5, 64.0
"""Of each 8-bit channel value, before it is cut to 0 to 255."""


class Wrapper(ABC):
    """A model of either kind whose pictures are taken away; all else passes through."""

    def __init__(self, inner: Any, what: str, seed: int = 0) -> None:
        self.inner, self.what, self.seed = inner, what, seed
        self.kind: str = inner.kind
        self.device: Any = getattr(inner, "device", None)
        self.prefix_tokens = int(getattr(inner, "prefix_tokens", 1))

    @property
    def tower_hash(self) -> str:
        """Its own: features of a picture are not those of the model inside."""
        return hash_facts(self.what, self.seed, self.inner.tower_hash)

    @property
    def weights_hash(self) -> str:
        """Of the model inside and what is done to its pictures."""
        return hash_facts(self.what, self.seed, self.inner.weights_hash)

    @abstractmethod
    def image_features(self, images: Sequence[Any]) -> Any:
        """Features [N, P, C] of what stands in for the pictures."""

    def embed_images(self, images: Any) -> Any:
        """Unit vectors [N, D] of features, or of what stands in for the pictures."""
        if not hasattr(images, "shape"):
            images = self.image_features(images)
        return self.inner.embed_images(images)

    def embed_texts(self, texts: list[str]) -> Any:
        """Unit vectors [N, D], as the model inside makes them."""
        return self.inner.embed_texts(texts)

    def score_candidates(self, features: Any, candidates: Sequence[Sequence[str]], *,
                         prompt: str = "", score_eos: bool = False
                         ) -> Sequence[Sequence[Likelihood]]:
        """As the model inside scores them."""
        return self.inner.score_candidates(features, candidates, prompt=prompt,
                                           score_eos=score_eos)

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """As the model inside captions what stands in for the pictures."""
        return self.inner.generate(features, prompt=prompt, max_new_tokens=max_new_tokens)

    def record_scores(self, scores: dict[str, Any]) -> None:
        """Nothing: the figures are not those of the model whose card it is."""
        return


class NoImage(Wrapper):
    """A generative model's own text prior: a text is scored once for all pictures of a batch.

    Nothing is kept from one batch to the next, so that scores do not depend on which batches this
    process had before.
    """

    def __init__(self, inner: Any) -> None:
        if inner.kind != "generative":
            raise ValueError("a contrastive model says nothing about a text alone; "
                             "accepted: noise:SPEC, shuffled:SPEC")
        super().__init__(inner, "no image")
        self._said: dict[tuple[str, int], str] = {}

    @property
    def tower_hash(self) -> str:
        """One for all models: no tower runs."""
        return hash_facts(self.what)

    def image_features(self, images: Sequence[Any]) -> Any:
        """Zeros [N, 1, 1]; no picture is opened."""
        return np.zeros((len(images), 1, 1), np.float32)

    def score_candidates(self, features: Any, candidates: Sequence[Sequence[str]], *,
                         prompt: str = "", score_eos: bool = False) -> list[list[Likelihood]]:
        """The text-only prior of every candidate."""
        asked = sorted({text for texts in candidates for text in texts})
        (scored,) = self.inner.score_candidates(None, [asked], prompt=prompt, score_eos=score_eos)
        known = dict(zip(asked, scored, strict=True))
        return [[known[text] for text in texts] for texts in candidates]

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """The one text that it says without a picture, for every picture."""
        key = prompt, max_new_tokens
        if key not in self._said:
            (self._said[key],) = self.inner.generate(None, prompt=prompt,
                                                     max_new_tokens=max_new_tokens)
        return [self._said[key]] * (1 if features is None else len(features))


class NoiseImages(Wrapper):
    """Each picture replaced by Gaussian noise of its own, fixed by (seed, the picture's bytes)."""

    def __init__(self, inner: Any, seed: int = 0) -> None:
        super().__init__(inner, "noise images", seed)

    def image_features(self, images: Sequence[Any]) -> Any:
        """Features [N, P, C] of the noise pictures."""
        return self.inner.image_features([self.noise(image) for image in images])

    def noise(self, picture: Any) -> Image.Image:
        """The noise that stands for a picture."""
        key = int.from_bytes(picture_digest(picture)[:16], "big")
        draw = np.random.default_rng([self.seed, key])
        pixels = draw.normal(NOISE_MEAN, NOISE_SD, (NOISE_SIZE, NOISE_SIZE, 3))
        return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


class ShuffledImages(Wrapper):
    """Each picture replaced by another one of the same task, by a fixed derangement.

    No picture keeps its place, each stands in once. Pictures with equal bytes count as one; a
    picture of several tasks belongs to the first. Tasks with a single picture are pooled with the
    next.
    """

    def __init__(self, inner: Any, seed: int = 0) -> None:
        super().__init__(inner, "shuffled images", seed)
        self._other: dict[bytes, Any] = {}
        self._facts = ""

    @property
    def tower_hash(self) -> str:
        """Of the model inside and of who stands for whom."""
        return hash_facts(super().tower_hash, self._facts)

    @property
    def weights_hash(self) -> str:
        """Of the model inside and of who stands for whom."""
        return hash_facts(super().weights_hash, self._facts)

    def prepare(self, material: Material) -> None:
        """Draws the derangement.

        Raises:
            ValueError: the run has fewer than two different pictures.
        """
        seen: dict[bytes, Any] = {}
        groups: list[list[bytes]] = [[]]
        for trials in material.trials.values():
            for image in sorted({image for trial in trials for image in trial.images if image}):
                digest = picture_digest(material.root / image)
                if digest not in seen:
                    seen[digest] = material.root / image
                    groups[-1].append(digest)
            if len(groups[-1]) > 1:
                groups.append([])
        if len(groups[-1]) == 1 and len(groups) > 1:
            single = groups.pop()
            groups[-1] += single
        if len(seen) == 1:
            raise ValueError("shuffled pictures need at least two different pictures")
        pairs: dict[bytes, bytes] = {}
        for number, group in enumerate(groups):
            group.sort()
            draw = np.random.default_rng([self.seed, number])
            ring = [group[k] for k in draw.permutation(len(group))]
            pairs.update(zip(ring, ring[1:] + ring[:1], strict=True))
        self._other = {own: seen[other] for own, other in pairs.items()}
        self._facts = hash_facts(sorted((a.hex(), b.hex()) for a, b in pairs.items()))

    def stand_in(self, picture: Any) -> Any:
        """The path of the picture that stands for a picture.

        Raises:
            ValueError: the picture is none of those the run was prepared for.
        """
        other = self._other.get(picture_digest(picture))
        if other is None:
            raise ValueError(f"{picture}: not among the pictures that were shuffled")
        return other

    def image_features(self, images: Sequence[Any]) -> Any:
        """Features [N, P, C] of the pictures that stand in."""
        return self.inner.image_features([self.stand_in(image) for image in images])

"""Models that never look, as models: they go through the same commands as those that do.

Most are generative in form, so that every task asks them something. Their scores are no
log-probabilities of a language model, except the unigram's.
"""

from __future__ import annotations

import hashlib
import io
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks_eval.blind import NaiveBayes, Unigram
from benchmarks_eval.metrics import words
from benchmarks_eval.models.hashing import hash_facts
from benchmarks_eval.models.protocols import Material, Scored

Features = NDArray[np.float32]

BAG = 12
"""Words of the unigram's one caption: twelve common tokens beat published captioners
on SAYCam Caption by METEOR."""


def picture_digest(picture: Any) -> bytes:
    """SHA-256 of a picture: of a file's bytes, or of the pixels of a PIL image."""
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, format="PPM")
        return hashlib.sha256(buffer.getvalue()).digest()
    try:
        return hashlib.sha256(Path(picture).read_bytes()).digest()
    except FileNotFoundError:
        raise ValueError(f"{picture}: no such picture") from None


def digest_of(feature: Any) -> bytes:
    """The inverse of `BlindScorer.image_features` for one picture."""
    return bytes(int(value) for value in np.asarray(feature).ravel())


class BlindModel:
    """What the blind models share: word counts, hashes, captions."""

    kind = "generative"
    prefix_tokens = 1
    tower_hash = hash_facts("identity of the picture, sha256")

    def __init__(self, name: str, seed: int = 0) -> None:
        self.name, self.seed = name, seed
        self._texts: list[str] = []
        self._commonest = ""
        self._facts = hash_facts([])

    @property
    def weights_hash(self) -> str:
        """Of the kind, the seed and what `prepare` was given."""
        return hash_facts("blind", self.name, self.seed, self._facts)

    def prepare(self, material: Material) -> None:
        """Learns word counts: the training utterances, or without them the trials' texts."""
        trials = [trial for task in material.trials.values() for trial in task]
        self._texts = list(material.texts) or [t for trial in trials for t in trial.texts]
        # Of several that are as common, the first alphabetically.
        counts = sorted(Counter(self._texts).items(), key=lambda entry: (-entry[1], entry[0]))
        self._commonest = counts[0][0] if counts else ""
        self._facts = hash_facts(self._texts)

    def record_scores(self, scores: dict[str, Any]) -> None:
        """There is no model card."""

    def _caption(self, digest: bytes) -> str:
        return self._commonest


class BlindScorer(BlindModel, ABC):
    """Scores every pair by itself. A picture is at most its identity, and never its content.

    ``image_features``: the bytes of the picture's SHA-256 as numbers, [N, 1, 32].
    """

    def image_features(self, images: Sequence[Any]) -> Features:
        """[N, 1, 32], each number 0 to 255."""
        rows = [np.frombuffer(picture_digest(image), np.uint8) for image in images]
        return np.array(rows, np.float32).reshape(len(rows), 1, 32)

    def score_candidates(self, features: Any, candidates: Sequence[Sequence[str]], *,
                         prompt: str = "", score_eos: bool = False) -> list[list[Scored]]:
        """One record a candidate; prompt and end of sequence change nothing."""
        digests = [b""] * len(candidates) if features is None else [digest_of(f) for f in features]
        if len(digests) != len(candidates):
            raise ValueError(f"candidates: one list a picture expected ({len(digests)}), got "
                             f"{len(candidates)}")
        return [self._score(digest, texts)
                for digest, texts in zip(digests, candidates, strict=True)]

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """One caption a picture, chosen without looking; at most ``max_new_tokens`` words."""
        digests = [b""] if features is None else [digest_of(f) for f in features]
        return [" ".join(self._caption(digest).split()[:max_new_tokens]) for digest in digests]

    @abstractmethod
    def _score(self, digest: bytes, texts: Sequence[str]) -> list[Scored]: ...


class ConstantModel(BlindScorer):
    """Says the same about everything: every candidate ties, under every normalisation."""

    def __init__(self) -> None:
        super().__init__("constant")

    def _score(self, digest: bytes, texts: Sequence[str]) -> list[Scored]:
        return [Scored(0.0, 1) for _ in texts]


class RandomModel(BlindScorer):
    """Uniform noise in [-1, 1), fixed for each (seed, picture, text): a check on the metrics.

    Around zero, so that a division by the text's length favours neither long nor short texts.
    """

    def __init__(self, seed: int = 0) -> None:
        super().__init__("random", seed)

    def _draw(self, digest: bytes, text: str) -> int:
        key = str(self.seed).encode() + b"\0" + digest + b"\0" + text.encode()
        return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")

    def _score(self, digest: bytes, texts: Sequence[str]) -> list[Scored]:
        return [Scored(self._draw(digest, text) / 2.0**63 - 1.0, 1) for text in texts]

    def _caption(self, digest: bytes) -> str:
        return self._texts[self._draw(digest, "") % len(self._texts)] if self._texts else ""


class UnigramModel(BlindScorer):
    """A language model without order or picture: add-one log frequencies of the words."""

    def __init__(self) -> None:
        super().__init__("unigram")
        self._unigram = Unigram([])

    def prepare(self, material: Material) -> None:
        """Counts the words."""
        super().prepare(material)
        self._unigram = Unigram(self._texts)

    def _score(self, digest: bytes, texts: Sequence[str]) -> list[Scored]:
        scored: list[Scored] = []
        for text in texts:
            size = max(len(words(text)), 1)
            scored.append(Scored(self._unigram.mean_log_frequency(text) * size, size))
        return scored

    def _caption(self, digest: bytes) -> str:
        ranked = sorted(self._unigram.counts.items(), key=lambda entry: (-entry[1], entry[0]))
        return " ".join(word for word, _ in ranked[:BAG])


class NaiveBayesModel(BlindModel):
    """Naive Bayes on the texts of the run's own trials (`benchmarks_eval.blind.NaiveBayes`).

    A trial is judged by counts without the phrases that it offers, so a score holds among these
    options only: shares of a trial, as of a model that names options by letters. (With scores that
    hold for a text anywhere, VTWT with roles drawn by lot gives 37 % where only the phrase itself
    is left out, 52 % where its rivals anywhere are too; 50 % are right, and leaving out the trial's
    own phrases gives them.)
    """

    kind = "letters"
    tower_hash = hash_facts("no picture")

    def __init__(self) -> None:
        super().__init__("naive-bayes")
        self._bayes = NaiveBayes([])

    def prepare(self, material: Material) -> None:
        """Counts the words of right and wrong texts in one-sided trials with several texts."""
        super().prepare(material)
        trials = [t for task in material.trials.values() for t in task
                  if len(t.images) == 1 and len(t.texts) > 1]
        self._bayes = NaiveBayes(trials)
        self._facts = hash_facts(self._facts, [(t.images, t.texts, t.gold) for t in trials])

    def image_features(self, images: Sequence[Any]) -> list[Any]:
        """The pictures' paths; none is opened."""
        return list(images)

    def choose(self, images: Sequence[Path], texts: Sequence[str], *,
               prompt: str = "") -> list[list[float]]:
        """Probability [I, J] of each text among these; pictures for one text all get the same."""
        if len(texts) == 1:
            return [[1.0 / len(images)] for _ in images]
        odds = self._bayes.log_odds(texts, texts)
        weights = [math.exp(value - max(odds)) for value in odds]
        return [[weight / sum(weights) for weight in weights] for _ in images]

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """The commonest utterance, for every picture."""
        count = 1 if features is None else len(features)
        return [" ".join(self._caption(b"").split()[:max_new_tokens])] * count

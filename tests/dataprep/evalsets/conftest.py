"""A small corpus, a server that answers by rules, and a similarity model without weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataprep.evalsets.asking import Ask
from dataprep.evalsets.standin import RULES
from dataprep.llm import RequestStore, answer
from dataprep.llm.backends import open_backend
from engine import Corpus, CorpusWriter, Source, read_corpus

SIDE = 64
WORDS = ("dog", "cat", "ball", "car", "book", "cup", "hat", "shoe", "tree", "bird", "fish", "bus")
COLOURS = ("red", "blue", "green", "yellow", "pink", "white")


def write_corpus(path: Path, licence: str = "CC0-1.0") -> Corpus:
    """Train says every colour and word thrice; test has 36 pictures with two utterances each."""
    rng = np.random.default_rng(0)
    sources = [Source("drawn", licence, "https://example.org"), Source("said", licence, "")]
    with CorpusWriter(
        path, name="small", version="1", image_size=SIDE, sources=sources,
        made_by={"command": "test", "seed": 0},
    ) as writer:
        def picture() -> np.ndarray:
            colour = rng.integers(0, 256, 3)
            return np.broadcast_to(colour, (SIDE, SIDE, 3)).astype(np.uint8).copy()

        for number in range(36):
            word, colour = WORDS[number % 12], COLOURS[number % 6]
            image = writer.add_image("train", picture(), view=f"train/{number}", source="drawn",
                                     key=f"train_{number}.jpg")
            writer.add_pair(image, f"a {colour} {word} .", source="said", group=word)
            for more in COLOURS:
                writer.add_pair(image, f"is it {more} ?", source="said", group=word)
        for number in range(36):
            word, colour = WORDS[number % 12], COLOURS[(number // 2) % 6]
            image = writer.add_image("test", picture(), view=f"test/{number}", source="drawn",
                                     key=f"test_{number:02d}.jpg")
            writer.add_pair(image, f"look , the {colour} {word} !", source="said",
                            group=f"{word}{number}", time_s=1.5 * number)
            writer.add_pair(image, f"we see a {word} here .", source="said",
                            group=f"{word}{number}")
    return read_corpus(path)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def restricted(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "restricted", licence="use agreement")


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Ask]:
    with (
        RequestStore(tmp_path / "requests") as store,
        open_backend("stand-in", rules=dict(RULES)) as backend,
    ):
        yield lambda requests: answer(requests, store, backend, progress=False)


class HashScorer:
    """Vectors from hashes: the same bytes, the same vector, and nothing more."""

    name, hash, dim = "hashes", "0" * 64, 16
    facts: dict[str, Any] = {"weights_sha256": "0" * 64}

    def _rows(self, keys: Sequence[bytes]) -> np.ndarray:
        seeds = [int.from_bytes(hashlib.sha256(key).digest()[:8], "big") for key in keys]
        rows = np.array([np.random.default_rng(s).normal(size=self.dim) for s in seeds], np.float32)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    def embed_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return self._rows([image.tobytes() for image in images])

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return self._rows([text.encode() for text in texts])


@pytest.fixture
def scorer() -> HashScorer:
    return HashScorer()


@pytest.fixture
def folder_of_categories(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    def make(counts: dict[str, int]) -> Path:
        from PIL import Image

        rng = np.random.default_rng(1)
        root = tmp_path / "pictures"
        for category, count in counts.items():
            (root / category).mkdir(parents=True)
            for number in range(count):
                noise = rng.integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(noise).save(root / category / f"img_{number}.png")
        return root

    return make

"""A tiny picture set in the official layouts and models whose knowledge is known exactly."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

COLOURS = {
    "red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 60, 200), "yellow": (230, 200, 30),
    "pink": (240, 130, 180), "brown": (120, 80, 40),
}


@dataclass
class Likelihood:
    logprob_sum: float
    num_tokens: int


@dataclass
class Fake:
    """Sees the mean colour of a picture; ``skill`` says what it makes of it.

    oracle: knows which colour word belongs to a picture; constant: says the same of everything;
    nan: NaN for every pair with the word red; text: likes some words and never looks.
    """

    kind: str
    skill: str = "oracle"
    tower_hash: str = "fake-tower"
    weights_hash: str = "fake-weights"
    seen: list[str] = field(default_factory=list)
    prompts: set[str] = field(default_factory=set)
    orders: list[list[str]] = field(default_factory=list)
    scores: dict[str, Any] | None = None

    def image_features(self, images: Sequence[Any]) -> np.ndarray:
        self.seen += [Path(p).name for p in images]
        pixels = [np.asarray(Image.open(p).convert("RGB"), dtype=np.float64) for p in images]
        return np.stack([p.mean(axis=(0, 1))[None] for p in pixels])  # [N, 1, 3]

    def _colour(self, feature: np.ndarray) -> str:
        return min(COLOURS, key=lambda c: float(np.abs(feature[0] - COLOURS[c]).sum()))

    def _score(self, feature: np.ndarray, text: str) -> float:
        if self.skill == "constant":
            return -1.0
        if self.skill == "nan" and "red" in text:
            return math.nan
        if self.skill == "text":
            return -float(len(text))
        return -0.5 if self._colour(feature) in text.split() else -2.0

    def score_candidates(self, features: Any, candidates: list[list[str]], *, prompt: str = "",
                         score_eos: bool = False) -> list[list[Likelihood]]:
        self.prompts.add(prompt)
        self.orders += candidates
        if features is None:  # without a picture longer texts are less likely
            return [[Likelihood(-0.1 * len(t), len(t.split())) for t in texts]
                    for texts in candidates]
        assert len(features) == len(candidates)
        return [[Likelihood(self._score(f, t) * len(t.split()), len(t.split())) for t in texts]
                for f, texts in zip(features, candidates, strict=True)]

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        return [f"look at the {self._colour(f)} thing" if self.skill == "oracle" else "what"
                for f in features]

    def embed_images(self, images: Any) -> np.ndarray:
        rows = [self._colour(f) for f in images]
        return np.array([[float(c == row) for c in COLOURS] for row in rows])

    def embed_texts(self, texts: list[str]) -> np.ndarray:
        if self.skill == "constant":
            return np.ones((len(texts), len(COLOURS))) / math.sqrt(len(COLOURS))
        return np.array([[float(c in t.split()) for c in COLOURS] for t in texts])

    def record_scores(self, scores: dict[str, Any]) -> None:
        self.scores = scores


@pytest.fixture(autouse=True)
def own_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test fills or reads the feature store of the working directory."""
    monkeypatch.setattr("benchmarks_eval.commands.options.FOLDER", tmp_path / "features")


@pytest.fixture
def fake() -> Callable[..., Fake]:
    """Builds a fake model: ``fake(kind, skill=..., tower_hash=...)``."""
    return Fake


def write_csv(path: Path, header: str, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        writer.writerows(rows)


TASKS = """
name: colours
version: 3
description: Plain colours.
root: {root}
tasks:
  - {{name: labels, kind: labeled, group: view, file: labeled.csv}}
  - {{name: phrases, kind: two_word, group: view, file: two_word.csv, prompt: "what is it ?"}}
  - {{name: wino, kind: winoground, group: view, file: winoground.csv, prompt: "what is it ?"}}
  - {{name: captions, kind: caption, group: view, file: caption.csv}}
"""


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A folder with the four CSVs, their pictures and ``tasks.yaml``. 6 colours, 12 pictures."""
    root = tmp_path / "book"
    names = list(COLOURS)
    for index, (name, colour) in enumerate(COLOURS.items()):
        for copy in range(2):
            folder = root / "images"
            folder.mkdir(parents=True, exist_ok=True)
            size = 8 + index
            Image.new("RGB", (size, size), colour).save(folder / f"{name}{copy}.png")

    def picture(name: str, copy: int = 0) -> str:
        return f"images/{name}{copy}.png"

    labeled, two_word, wino, caption = [], [], [], []
    for k in range(24):
        target = names[k % 6]
        shown = [target, *[n for n in names if n != target][k % 3:k % 3 + 3]]
        labeled += [[str(k), target, n, picture(n, k % 2)] for n in shown]
    for k in range(12):
        target, other = names[k % 6], names[(k + 1 + k // 6) % 6]
        two_word.append([picture(target, k // 6), f"{target} thing", f"{other} thing"])
    for k in range(6):
        a, b = names[k], names[(k + 1) % 6]
        wino += [[str(k), f"{a} thing", f"{b} thing", picture(a), "positive"],
                 [str(k), f"{a} thing", f"{b} thing", picture(b), "negative"]]
    for name in names:
        caption += [[picture(name, c), f"look at the {name} thing"] for c in range(2)]
    write_csv(root / "labeled.csv", "trial_id,target_category,real_category,image", labeled)
    write_csv(root / "two_word.csv", "image,positive_phrase,negative_phrase", two_word)
    write_csv(root / "winoground.csv",
              "instance_id,positive_phrase,negative_phrase,image,image_tag", wino)
    write_csv(root / "caption.csv", "image,text", caption)
    (root / "tasks.yaml").write_text(TASKS.format(root=root), encoding="utf-8")
    return root


ENGINE = {
    "image_size": 32,
    "vision": {"name": "resnet", "args": {"channels": (8, 8, 16, 16), "stem_type": "deep",
                                          "stem_width": 4}},
    "decoder": {"layers": 2, "width": 32, "heads": 4, "inner": 48, "positions": 64, "dropout": 0,
                "attention_dropout": 0, "embed_dropout": 0},
    "contrastive": {"dim": 16},
}


@pytest.fixture
def exported(tmp_path: Path) -> list[str]:
    """Folders of a contrastive and a generative engine model with one tower, random weights."""
    return export(tmp_path / "run", seed=0)


def export(folder: Path, seed: int, tower_seed: int = 0) -> list[str]:
    import torch

    from engine.export import export_model
    from engine.models.babyllava import build_generative
    from engine.models.config import ModelConfig
    from engine.models.contrastive import build_contrastive
    from engine.tokens import TokenizerConfig, build_tokenizer

    config = ModelConfig.model_validate(ENGINE)
    words = ["red green blue yellow pink brown thing look at the what is it ?"]
    tokenizer = build_tokenizer(TokenizerConfig.model_validate({"min_count": 1}), words)
    torch.manual_seed(tower_seed)
    tower = build_contrastive(config, tokenizer.vocab_size).vision.state_dict()
    torch.manual_seed(seed + 100)
    paths: list[str] = []
    for kind, build in (("contrastive", build_contrastive), ("generative", build_generative)):
        model = build(config, tokenizer.vocab_size)
        model.vision.load_state_dict(tower)
        path = folder / kind / "model"
        export_model(path, model, kind=kind, config=config, tokenizer=tokenizer, card={})
        paths.append(str(path))
    return paths

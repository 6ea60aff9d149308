"""A corpus of coloured shapes and a model small enough to train in seconds, for the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from engine import CorpusWriter, Source

SHAPES = ("ball", "box", "cross", "ring")
COLOURS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (40, 60, 220)}
SIDE = 32


def draw(shape: str, colour: str, rng: np.random.Generator) -> np.ndarray:
    """One picture [32, 32, 3], uint8."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] - (SIDE - 1) / 2
    x, y = x - rng.uniform(-4, 4), y - rng.uniform(-4, 4)
    radius = rng.uniform(7, 11)
    distance = np.hypot(x, y)
    inside = {
        "ball": distance < radius,
        "box": np.maximum(abs(x), abs(y)) < radius,
        "cross": np.minimum(abs(x), abs(y)) < radius / 3,
        "ring": (distance < radius) & (distance > radius / 2),
    }[shape]
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    picture[inside] = COLOURS[colour]
    # Flat white makes BatchNorm ill-conditioned: rounding would decide the test.
    noise = rng.normal(0, 12, picture.shape)
    return np.clip(picture + noise, 0, 255).astype(np.uint8)


def write_shapes(path: Path, *, train: int = 8, val: int = 2, seed: int = 0) -> Path:
    """Write the corpus: ``train`` and ``val`` pictures per shape and colour, two pairs each."""
    rng = np.random.default_rng(seed)
    source = Source("shapes", "CC0-1.0", "https://example.org", "drawn by the tests")
    with CorpusWriter(path, name="shapes", version="1", image_size=SIDE, sources=[source],
                      made_by={"command": "tests"}) as writer:
        for split, count in (("train", train), ("val", val)):
            for shape in SHAPES:
                for colour in COLOURS:
                    for k in range(count):
                        image = writer.add_image(
                            split, draw(shape, colour, rng), view=f"{shape}-{colour}-{split}-{k}",
                            source="shapes", key=f"{shape}-{colour}-{split}-{k}",
                        )
                        for text in (f"a {colour} {shape}", f"look , a {shape} !"):
                            writer.add_pair(image, text, source="shapes", group=f"{colour} {shape}")
    return path


def tiny_config(run_dir: Path, corpus: Path, **changes: Any) -> dict[str, Any]:
    """A run of all four phases with a tower, connector and decoder of a few thousand weights."""
    tree: dict[str, Any] = {
        "name": "tiny",
        "run_dir": str(run_dir),
        "corpus": str(corpus),
        "seed": 1,
        "model": {
            "image_size": SIDE,
            "vision": {
                "name": "resnet",
                "args": {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]},
            },
            "decoder": {"kind": "gpt2", "layers": 2, "width": 32, "heads": 4, "inner": 64,
                        "positions": 128, "dropout": 0.1, "attention_dropout": 0.0,
                        "embed_dropout": 0.1},
            "contrastive": {"dim": 16},
        },
        "tokenizer": {"min_count": 1},
        "data": {"loader": "torch", "workers": 1},
        "zero": {"precision": "fp32"},
        "log": {"every": 2, "tensorboard": False},
        "checkpoints": {"every": 3},
        "phases": [
            {"name": "vision", "objective": "contrastive",
             "train": ["vision", "projection", "words"], "pairs_per_step": 32,
             "augment": {"flip": 0.5}, "optim": {"lr": 0.003}},
            {"name": "language", "objective": "language", "train": ["decoder"],
             "tokens_per_step": 256, "optim": {"lr": 0.003}},
            {"name": "connector", "objective": "generative", "train": ["connector"],
             "epochs": 4, "tokens_per_step": 1024, "optim": {"lr": 0.003}},
            {"name": "joint", "objective": "generative", "train": ["connector", "decoder"],
             "epochs": 4, "tokens_per_step": 1024, "optim": {"lr": 0.002}},
        ],
    }
    tree.update(changes)
    return tree


def write_config(path: Path, tree: dict[str, Any]) -> Path:
    """Write a configuration tree as YAML."""
    path.write_text(yaml.safe_dump(tree, sort_keys=False))
    return path

"""The engine trains the same whichever implementation of an op runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.launch import launch, metrics
from support.shapes import tiny_config, write_config, write_shapes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LOSSES = ("linear_cross_entropy", "contrastive_loss")
OPS = {
    "gpt2": ("attention", "layer_norm", "bias_gelu", *LOSSES),
    "llama": ("attention", "rms_norm", "swiglu", "rotary", *LOSSES),
}
"""What each kind of decoder runs, with the contrastive model of the first phase."""


def _losses(
    folder: Path, corpus: Path, kernels: dict[str, str], first: int = 0, **decoder: Any
) -> dict[str, Any]:
    """Train two small steps of every phase from ``first`` on; return the losses.

    Without a GPU the kernels run in Triton's interpreter, hence the sizes.
    """
    tree = tiny_config(folder, corpus, kernels=kernels, strict_kernels=True)
    tree["model"]["decoder"] |= {"width": 16, "heads": 2} | decoder
    tree["model"]["prefix_attention"] = "bidirectional"
    tree["tokenizer"]["min_count"] = 1
    tree["log"]["every"] = 1
    tree["phases"] = tree["phases"][first:]
    for phase in tree["phases"]:
        phase |= {"max_steps": 2}
        if "pairs_per_step" in phase:
            phase |= {"pairs_per_step": 8}
        else:
            phase |= {"tokens_per_step": 128}
        phase.pop("epochs", None)
    done = launch(write_config(folder.with_suffix(".yaml"), tree))
    for op, name in kernels.items():
        assert f"{op} on {DEVICE} float32: {name}" in done.stdout + done.stderr
    return metrics(folder)


def _assert_equal(one: dict[str, Any], other: dict[str, Any], steps: int) -> None:
    assert len(one) == steps
    assert one.keys() == other.keys()
    for step, loss in one.items():
        assert other[step] == pytest.approx(loss, rel=1e-5), step


@pytest.mark.slow
def test_training_with_triton_attention_gives_the_losses_of_the_eager_path(tmp_path: Path) -> None:
    """Dropout of the attention weights included: both draw the same mask from the same seed."""
    corpus = write_shapes(tmp_path / "shapes", train=2, val=1)
    found = [
        _losses(tmp_path / name, corpus, {"attention": name}, first=1, attention_dropout=0.15)
        for name in ("padded_sdpa", "triton")
    ]
    _assert_equal(*found, steps=6)


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPS)
def test_training_with_all_our_kernels_gives_the_losses_of_the_eager_paths(
    tmp_path: Path, kind: str
) -> None:
    """Without dropout, whose masks PyTorch draws in the eager paths."""
    corpus = write_shapes(tmp_path / "shapes", train=2, val=1)
    off = {"kind": kind, "dropout": 0.0, "embed_dropout": 0.0}
    eager = _losses(tmp_path / "eager", corpus, {}, **off)
    ours = _losses(tmp_path / "triton", corpus, dict.fromkeys(OPS[kind], "triton"), **off)
    _assert_equal(eager, ours, steps=8)

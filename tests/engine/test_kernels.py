"""The engine trains the same whichever implementation of an op runs."""

from __future__ import annotations

import pytest
import torch
from support.launch import launch, metrics
from support.shapes import tiny_config, write_config, write_shapes


@pytest.mark.slow
def test_training_with_triton_attention_gives_the_losses_of_the_eager_path(tmp_path):
    """Dropout of the attention weights included: both draw the same mask from the same seed.

    Without a GPU the kernels run in Triton's interpreter, hence a few small steps.
    """
    corpus = write_shapes(tmp_path / "shapes", train=2, val=1)
    losses = {}
    for name in ("padded_sdpa", "triton"):
        tree = tiny_config(
            tmp_path / name, corpus, kernels={"attention": name}, strict_kernels=True
        )
        tree["model"]["decoder"] |= {"attention_dropout": 0.15, "width": 16, "heads": 2}
        tree["model"]["prefix_attention"] = "bidirectional"
        tree["tokenizer"]["min_count"] = 1
        tree["log"]["every"] = 1
        tree["phases"] = tree["phases"][1:]
        for phase in tree["phases"]:
            phase |= {"max_steps": 3, "tokens_per_step": 128}
            phase.pop("epochs", None)
        done = launch(write_config(tmp_path / f"{name}.yaml", tree))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        assert f"attention on {device} float32: {name}" in done.stdout + done.stderr
        losses[name] = metrics(tmp_path / name)
    assert len(losses["triton"]) == 9
    assert losses["triton"].keys() == losses["padded_sdpa"].keys()
    for step, loss in losses["padded_sdpa"].items():
        assert losses["triton"][step] == pytest.approx(loss, rel=1e-5), step

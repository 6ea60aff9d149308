"""The picture of a run: drawn from its own files, and a clear line when they are missing."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from benchmarks_eval.__main__ import main
from benchmarks_eval.plot import plot


def figure(model, value):
    return {"task": "view-labeled", "group": "test-view", "figure": "image",
            "label": "picture for a word", "model": model, "unit": "share", "value": value,
            "low": value - 0.1, "high": value + 0.1, "floor": 0.25, "primary": True}


def test_losses_and_scores_are_drawn(tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps({"figures": [figure("contrastive", 0.8),
                                               figure("generative", 0.7)]}))
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text("".join(
        json.dumps({"step": s, "phase": "vision", "loss": 3 / s}) + "\n" for s in (1, 2, 3)
    ))
    both = Image.open(plot(results, metrics, tmp_path / "both.png"))
    one = Image.open(plot(results, None, tmp_path / "one.png"))
    assert both.width > 1.5 * one.width
    assert both.getextrema() != ((255, 255),) * 4


def test_missing_results_and_unknown_group_are_one_line(tmp_path, capsys):
    out = str(tmp_path / "x.png")
    assert main(["plot", "--results", str(tmp_path / "no.json"), "--out", out]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "results.json").write_text(json.dumps({"figures": [figure("a", 0.5)]}))
    with pytest.raises(ValueError, match="no figures of 'nowhere'"):
        plot(tmp_path / "results.json", None, tmp_path / "x.png", "nowhere")
    assert not (tmp_path / "x.png").exists()

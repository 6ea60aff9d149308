"""Exported engine models go through the whole command; scores are those of one pair alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks_eval.__main__ import main
from benchmarks_eval.records import read_scores
from engine import load


def test_engine_models_are_scored(book: Path, exported: list[str],
                                  capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["run", "--model", *exported, "--tasks", str(book / "tasks.yaml"), "--device",
                 "cpu", "--batch-size", "5"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    out = Path(exported[0]).parents[1] / "eval" / "colours"
    tree = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert len({model["tower_hash"] for model in tree["models"]}) == 1
    assert "contrastive" in printed and "generative says" in printed

    handle = load(exported[1], device="cpu")
    for key, record in list(read_scores(out / "generative" / "scores.jsonl").items())[::7]:
        features = handle.image_features([book / key.image])
        alone = handle.score_candidates(features, [[key.text]], prompt=key.prompt)[0][0]  # type: ignore[union-attr]
        assert record.logprob_sum == pytest.approx(alone.logprob_sum, abs=1e-5)
        assert record.num_tokens == alone.num_tokens
    handle = load(exported[0], device="cpu")
    for key, record in list(read_scores(out / "contrastive" / "scores.jsonl").items())[::7]:
        image = handle.embed_images([book / key.image])[0]  # type: ignore[union-attr]
        text = handle.embed_texts([key.text])[0]  # type: ignore[union-attr]
        assert record.cosine == pytest.approx(float(image @ text), abs=1e-6)
    for path in exported:
        scores = json.loads((Path(path) / "scores.json").read_text(encoding="utf-8"))
        assert scores["colours"]["figures"]["labels/image"]["n"] == 24
        assert "colours" in (Path(path) / "README.md").read_text(encoding="utf-8")


def test_a_folder_without_a_model_is_one_line(book: Path, tmp_path: Path,
                                              capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", str(tmp_path / "none"), "--tasks",
                 str(book / "tasks.yaml"), "--out", str(tmp_path / "o")]) == 2
    shown = capsys.readouterr().err.strip().splitlines()
    assert len(shown) == 1 and shown[0].startswith("error: ") and "none" in shown[0]
    assert not (tmp_path / "o").exists()

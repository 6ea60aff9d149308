"""Blind models through the protocols of a model: chance, ties, floors, and what they may know."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks_eval import blind, metrics
from benchmarks_eval.models import Material, Model, load_models, prepare
from benchmarks_eval.trials import Trial


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """120 different pictures below the temporary folder."""
    names = [f"{k}.png" for k in range(120)]
    for k, name in enumerate(names):
        Image.new("RGB", (2, 2), (k, 2 * k, 0)).save(tmp_path / name)
    return names


def load(spec: str, root: Path, trials: list[Trial], texts: tuple[str, ...] = ()) -> Model:
    (model,) = load_models([spec], "cpu")
    prepare([model], Material({"t": trials}, root, texts))
    return model


def matrix(model: Model, root: Path, trial: Trial) -> np.ndarray:
    """Scores [I, J] as a run would get them: mean log-likelihood of every pair."""
    features = model.handle.image_features([root / image for image in trial.images])
    scored = model.generative.score_candidates(features, [list(trial.texts)] * len(trial.images))
    return np.array([[one.logprob_sum / one.num_tokens for one in row] for row in scored])


def share(model: Model, root: Path, trials: list[Trial]) -> float:
    return float(np.mean([metrics.choice(matrix(model, root, t), t.gold) for t in trials]))


def pairs(pictures: list[str], make: list[tuple[str, str]]) -> list[Trial]:
    return [Trial(str(k), (pictures[k],), pair if k % 2 else pair[::-1], int(not k % 2), str(k))
            for k, pair in enumerate(make)]


def test_constant_ties_everywhere(tmp_path: Path, pictures: list[str]) -> None:
    trials = pairs(pictures, [("a cup", "a dog here"), ("red", "blue")])
    model = load("blind:constant", tmp_path, trials)
    assert share(model, tmp_path, trials) == 0.5
    one = model.generative.score_candidates(None, [["a", "b c d"]])[0]
    assert {x.logprob_sum for x in one} == {0.0}


def test_random_is_at_chance_and_repeats(tmp_path: Path, pictures: list[str]) -> None:
    texts = [f"thing {k}" for k in range(40)]
    rng = np.random.default_rng(0)
    trials = [Trial(str(k), tuple(rng.choice(pictures, 4, replace=False)), (texts[k % 40],),
                    int(rng.integers(4)), str(k)) for k in range(600)]
    trials += [Trial(str(k), (pictures[k % 120],), tuple(rng.choice(texts, 4, replace=False)),
                     int(rng.integers(4)), str(k)) for k in range(600)]
    model = load("blind:random", tmp_path, trials)
    assert abs(share(model, tmp_path, trials) - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 1200)
    (again, other) = load_models(["blind:random", "blind:random:1"], "cpu")
    assert (matrix(model, tmp_path, trials[0]) == matrix(again, tmp_path, trials[0])).all()
    assert (matrix(model, tmp_path, trials[0]) != matrix(other, tmp_path, trials[0])).all()
    draws = [x.logprob_sum for x in model.generative.score_candidates(None, [texts * 1])[0]]
    assert -1 <= min(draws) < -0.5 < 0.5 < max(draws) < 1


def test_random_goes_by_the_pictures_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "copy.png"):
        Image.new("RGB", (2, 2), (9, 9, 9)).save(tmp_path / name)
    (model,) = load_models(["blind:random"], "cpu")
    trial = Trial("0", ("a.png", "copy.png"), ("x", "y"), 0, "0")
    scores = matrix(model, tmp_path, trial)
    assert (scores[0] == scores[1]).all() and scores[0, 0] != scores[0, 1]


def test_unigram_counts_the_corpus_or_the_trials(tmp_path: Path, pictures: list[str]) -> None:
    trials = pairs(pictures, [("rare word", "the cup")])
    texts = ("the cup", "the dog", "the red cup")
    corpus = load("blind:unigram", tmp_path, trials, texts)
    wanted = blind.Unigram(texts).matrix(trials[0])
    assert matrix(corpus, tmp_path, trials[0]) == pytest.approx(wanted)
    own = load("blind:unigram", tmp_path, trials)
    assert matrix(own, tmp_path, trials[0])[0, 0] == matrix(own, tmp_path, trials[0])[0, 1]
    assert corpus.handle.weights_hash != own.handle.weights_hash
    assert corpus.generative.generate(None) == ["the cup dog red"]
    assert corpus.generative.generate(None, max_new_tokens=2) == ["the cup"]
    (empty,) = corpus.generative.score_candidates(None, [["?!"]])[0]
    assert empty.num_tokens == 1 and empty.logprob_sum < 0


def test_naive_bayes_is_the_floor(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    adjectives, nouns = ["real", "tiny", "odd", "huge"], [f"noun{k}" for k in range(15)]
    made = [(f"{adjectives[int(rng.integers(3))]} {rng.choice(nouns)}",
             f"{adjectives[1 + int(rng.integers(3))]} {rng.choice(nouns)}") for _ in range(120)]
    pictures = [f"{k}.png" for k in range(120)]  # which nobody opens
    trials = pairs(pictures, [(a, b) for a, b in made if a != b])
    square = Trial("s", ("0.png", "1.png"), ("real noun0", "huge noun1"), 0, "s")
    model = load("blind:naive-bayes", tmp_path, [*trials, square])
    assert model.kind == "letters"
    floor = blind.NaiveBayes(trials)
    credits: list[float] = []
    for trial in trials:
        shares = np.array(model.letters.choose([tmp_path / trial.images[0]], trial.texts))
        odds = floor.matrix(trial)
        assert shares.sum() == pytest.approx(1)
        assert np.log(shares[0, 0] / shares[0, 1]) == pytest.approx(odds[0, 0] - odds[0, 1])
        credits.append(metrics.choice(shares, trial.gold))
    assert np.mean(credits) > 0.6  # "real" is always right, "huge" always wrong
    paths = [tmp_path / image for image in pictures[:3]]
    assert model.letters.choose(paths, ["real noun0"]) == [[1 / 3]] * 3
    other = load("blind:naive-bayes", tmp_path, trials[1:])
    assert model.handle.weights_hash != other.handle.weights_hash
    assert model.letters.generate(model.handle.image_features(paths)) == \
        model.letters.generate(None) * 3


def test_captions_that_look_at_nothing(tmp_path: Path, pictures: list[str]) -> None:
    texts = ("look at the dog", "a cup", "a cup", "zebra zebra")
    trials = pairs(pictures, [("a", "b")])
    features = load_models(["blind:random"], "cpu")[0].handle.image_features(
        [tmp_path / name for name in pictures[:20]])
    constant = load("blind:constant", tmp_path, trials, texts)
    assert constant.generative.generate(features) == ["a cup"] * 20
    random = load("blind:random", tmp_path, trials, texts)
    said = random.generative.generate(features, max_new_tokens=2)
    assert set(said) == {"look at", "a cup", "zebra zebra"}


def test_features_and_candidates_must_agree(tmp_path: Path, pictures: list[str]) -> None:
    (model,) = load_models(["blind:constant"], "cpu")
    features = model.handle.image_features([tmp_path / pictures[0]])
    with pytest.raises(ValueError, match=r"one list a picture expected \(1\), got 2"):
        model.generative.score_candidates(features, [["a"], ["b"]])
    with pytest.raises(ValueError, match=r"none\.png: no such picture"):
        model.handle.image_features([tmp_path / "none.png"])

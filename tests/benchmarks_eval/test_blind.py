"""Blind floors: what they find in phrases, and what they must not find."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks_eval import blind, metrics
from benchmarks_eval.data import read_items
from benchmarks_eval.tasks import Task
from benchmarks_eval.trials import Trial, two_word_trials

OFFICIAL = Path(os.environ.get("BABYVLM_CSVS",
                               Path(__file__).parents[3] / "shared" / "data" / "babyvlm"))


def _trials(pairs: list[tuple[str, str]]) -> list[Trial]:
    return [Trial(str(k), (f"{k}.png",), pair if k % 2 else pair[::-1], int(not k % 2), str(k))
            for k, pair in enumerate(pairs)]


def _bayes(trials: list[Trial]) -> float:
    bayes = blind.NaiveBayes(trials)
    return float(np.mean([metrics.choice(bayes.matrix(t), t.gold) for t in trials]))


def test_naive_bayes_finds_words_that_give_the_answer_away() -> None:
    nouns = [f"noun{k}" for k in range(40)]
    trials = _trials([(f"real {n}", f"odd {n}") for n in nouns])
    assert _bayes(trials) == 1.0


def test_naive_bayes_has_seen_no_phrase_of_the_trial_it_judges() -> None:
    # Every phrase has words of its own: with the phrase held out nothing can be known.
    trials = _trials([(f"right{k} a{k}", f"wrong{k} b{k}") for k in range(40)] * 3)
    assert _bayes(trials) == 0.5


def test_balanced_phrases_stay_near_chance() -> None:
    rng = np.random.default_rng(0)
    phrases = [f"{a} {n}" for a in ("red", "blue", "green", "big") for n in ("cup", "cat", "hat")]
    pairs: list[tuple[str, str]] = []
    for _ in range(150):
        a, b = rng.choice(phrases, size=2, replace=False)
        pairs += [(str(a), str(b)), (str(b), str(a))]  # each phrase as often right as wrong
    assert 0.45 < _bayes(_trials(pairs)) < 0.55


def test_roles_drawn_by_lot_stay_at_chance() -> None:
    # Two-word phrases that share words, each always right or always wrong, with several rivals:
    # what the words of phrases left out give away must cancel.
    rng = np.random.default_rng(3)
    shares: list[float] = []
    for _ in range(12):
        phrases = [f"{a} {n}" for a in "abcdefgh" for n in "klmnopqrstuv"]
        rank = rng.permutation(len(phrases))
        pairs: list[tuple[str, str]] = []
        for _ in range(200):
            k, j = rng.choice(len(phrases), size=2, replace=False)
            pairs.append((phrases[k], phrases[j]) if rank[k] > rank[j] else
                         (phrases[j], phrases[k]))
        shares.append(_bayes(_trials(pairs)))
    assert abs(np.mean(shares) - 0.5) < 4 * np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - 0.5) < 0.05


def test_unigram_prefers_common_words() -> None:
    unigram = blind.Unigram(["the red cup", "the blue cup", "the cup"])
    trial = Trial("0", ("a", "b"), ("cup", "red", "unseen"), 0, "0")
    matrix = unigram.matrix(trial)
    assert matrix.shape == (2, 3)
    assert matrix[0, 0] > matrix[0, 1] > matrix[0, 2]
    assert (matrix[0] == matrix[1]).all()


def test_random_is_a_function_of_seed_picture_and_text() -> None:
    trial = Trial("0", ("a", "b"), ("x",), 0, "0")
    first = blind.Random(0).matrix(trial)
    assert (first == blind.Random(0).matrix(trial)).all()
    assert (first != blind.Random(1).matrix(trial)).all() and first[0] != first[1]


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official BabyVLM CSVs are not here")
def test_vtwt_phrases_give_much_away() -> None:
    task = Task(name="vtwt", kind="two_word", file="vtwt.csv")
    trials = two_word_trials(task, read_items(task, OFFICIAL), 0)
    assert 0.70 < _bayes(trials) < 0.80
    unigram = blind.text_only(trials, None)["unigram"][0]
    share = np.mean([metrics.choice(unigram.matrix(t), t.gold) for t in trials])
    assert 0.40 < share < 0.60

"""Plans: every question once, batches that fit, and what may be gone on with."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from benchmarks_eval.data import read_items
from benchmarks_eval.figures import bind
from benchmarks_eval.options import Options, ScoreOptions
from benchmarks_eval.plan import (
    TOKEN_BUDGET,
    Batch,
    ModelInfo,
    Wants,
    cut,
    difference,
    make_plan,
)
from benchmarks_eval.records import Ask, Key
from benchmarks_eval.tasks import Task
from benchmarks_eval.trials import Trial

OFFICIAL = Path(os.environ.get("BABYVLM_CSVS",
                               Path(__file__).parents[3] / "shared" / "data" / "babyvlm"))


def info(kind: str = "generative", tower: str = "t", name: str = "m") -> ModelInfo:
    return ModelInfo(name, name, kind, name, tower, "w", 4, kind == "generative")


def wants(pictures: int, candidates: int, **facts: str) -> Wants:
    made = Wants(info(**facts))
    for n in range(pictures):
        image = f"p{n:03}.png"
        made.keys[image] = {Key(image, f"text {k}") for k in range(candidates)}
    return made


def keys(batches: list[Batch]) -> list[tuple[int, Key]]:
    return [wanted for batch in batches for wanted in batch.wanted()]


@pytest.mark.parametrize("size", [1, 7, None])
def test_every_question_is_asked_once_in_the_same_order(size: int | None) -> None:
    want = wants(40, 5)
    want.asks = {"p003.png": {Ask("", 9)}, "p039.png": {Ask("", 9)}}
    batches = cut([want], size)
    asked = keys(batches)
    assert len(asked) == len(set(asked)) == 40 * 5 + 2
    assert asked == keys(cut([want], 3))
    if size is not None:
        assert {len(batch.pictures) for batch in batches[:-1]} <= {size}
    order = [picture for batch in batches for picture in batch.pictures]
    assert order == sorted(set(order))


def test_a_batch_fits_the_budget_and_big_pictures_are_spread() -> None:
    want = wants(3, 2)
    long = "x" * 399  # 100 tokens by the estimate
    want.keys["p001.png"] = {Key("p001.png", f"{long}{k:04}") for k in range(400)}
    want.keys[""] = {Key("", f"{long}{k:04}") for k in range(200)}
    batches = cut([want], None)
    big = [b for b in batches if b.pictures == ["p001.png"]]
    bare = [b for b in batches if not b.pictures]
    assert len(big) == 3 and len(bare) == 2
    for batch in batches:
        assert sum(len(key.text) // 4 + 1 for _, key in batch.wanted()) <= TOKEN_BUDGET
    assert len(keys(batches)) == len(set(keys(batches))) == 604


def test_models_with_one_tower_are_asked_together_and_others_are_not() -> None:
    same = [wants(4, 1, name="a"), wants(4, 3, kind="contrastive", name="b")]
    assert {batch.models for batch in cut(same, 2)} == {(0, 1)}
    apart = [wants(4, 1, name="a"), wants(4, 3, name="b", tower="u")]
    assert {batch.models for batch in cut(apart, 2)} == {(0,), (1,)}


def test_order_of_questions_does_not_matter() -> None:
    task = Task(name="t", kind="two_word", file="f")
    trials = [Trial(str(k), (f"{k % 5}",), (f"a{k % 3}", f"b{k % 4}"), 0, "") for k in range(30)]
    plans = []
    for seed in range(3):
        random.Random(seed).shuffle(trials)
        want = Wants(info())
        want.add_trials(task, trials, Options())
        plans.append(cut([want], 2))
    assert plans[0] == plans[1] == plans[2]
    assert sum(batch.num_keys for batch in plans[0]) < 60  # repeats are asked once


def test_the_prior_asks_for_every_text_once_without_a_picture() -> None:
    task = Task(name="t", kind="two_word", file="f", prompt="say", templates=("{a_text}",))
    trials = [Trial(str(k), (f"{k}.png",), ("ant", "bee"), 0, "") for k in range(9)]
    want = Wants(info())
    want.add_trials(task, trials, Options(prior=True, ends="both"))
    assert want.keys[""] == {Key("", text, "say", eos) for text in ("an ant", "a bee")
                             for eos in (False, True)}
    cosines = Wants(info("contrastive"))
    cosines.add_trials(task, trials, Options(prior=True))
    assert "" not in cosines.keys


def test_chat_models_are_asked_trial_by_trial() -> None:
    task = Task(name="t", kind="two_word", file="f")
    want = Wants(info("letters"))
    want.add_trials(task, [Trial("0", ("p",), ("b", "a"), 0, ""), Trial("1", ("p",), ("b", "c"), 0,
                    ""), Trial("2", ("q", "p"), ("b",), 0, "")], Options())
    (batch,) = cut([want], None)
    assert [(c.images, c.texts) for c in batch.choices] == [
        (("p",), ("a", "b")), (("p",), ("b", "c")), (("p", "q"), ("b",))]
    assert len({key for _, key in batch.wanted()}) == 6  # one picture, one text, two contexts


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the official BabyVLM CSVs are not here")
def test_the_official_pairs_are_scored_once() -> None:
    want = Wants(info())
    for name, file, kind in (("labeled_s", "labeled_s.csv", "labeled"),
                             ("vtwt", "vtwt.csv", "two_word"),
                             ("baby_winoground", "baby_winoground.csv", "winoground")):
        fields = {"directions": ("image",)} if kind == "labeled" else {}
        task = Task(name=name, kind=kind, file=file, **fields)  # type: ignore[arg-type]
        bind(task, read_items(task, OFFICIAL), ScoreOptions(), 0).plan(want, Options())
    assert (want.pairs, want.num_keys) == (12_194, 11_229)
    assert len({key for batch in cut([want], None) for _, key in batch.wanted()}) == 11_229


def plan(want: Wants, options: Options | None = None, **changes: object) -> dict:
    facts = {"suite": {"name": "s"}, "data": {"t": {"sha256": "d"}}, "pictures": {"p": "h"}}
    return make_plan([want], root="r", options=options or Options(),  # type: ignore[arg-type]
                     **(facts | changes)).facts  # type: ignore[arg-type]


def test_what_makes_another_plan() -> None:
    first = plan(wants(4, 2))
    assert difference(first, plan(wants(4, 2))) is None
    for other, said in (
        (plan(wants(4, 3)), "batches"),
        (plan(wants(4, 2), Options(seed=1)), "options (seed)"),
        (plan(wants(4, 2), Options(batch_size=2)), "options (batch_size)"),
        (plan(wants(4, 2), data={"t": {"sha256": "e"}}), "data (t)"),
        (plan(wants(4, 2), pictures={"p": "other bytes"}), "pictures (sha256)"),
        (plan(wants(4, 2, name="n")), "models"),
    ):
        found = difference(first, other)
        assert found is not None and found.startswith(said), found

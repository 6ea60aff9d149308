"""Ages of acquisition: file layouts, fitted ages, groups and correlations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import spearmanr
from support.judged_runs import trial

from benchmarks_eval.breakdowns import Norms, association, by_age, read_norms
from benchmarks_eval.breakdowns.norms import age, fit_age, item_words
from benchmarks_eval.outcomes import Measured, Outcome

MONTHS = list(range(16, 31))


def curve(crossing: float, slope: float = 0.5) -> list[float]:
    return [1 / (1 + float(np.exp(-slope * (age - crossing)))) for age in MONTHS]


def word_trials(words: list[str], credit) -> Measured:
    rows = [trial(f"{word}{k}", float(credit(word)), texts=(word,), images=("a", "b"))
            for word in words for k in range(2)]
    outcomes = tuple(Outcome.from_json(row) for row in rows)
    return Measured("labels", "image", "", "", "share", 0.25, 0.25, 0.5, outcomes)


@pytest.mark.parametrize(("crossing", "age"), [(20.2, 21.0), (20.0, 20.0), (29.4, 30.0),
                                               (10.5, 16.0), (31.0, None)])
def test_the_first_month_at_which_half_know_it(crossing: float, age: float | None) -> None:
    assert fit_age(MONTHS, curve(crossing)) == age


def test_fits_are_the_maximum_of_the_likelihood() -> None:
    rng = np.random.default_rng(0)
    for crossing in (18.3, 22.7, 26.1):
        shares = np.clip(np.array(curve(crossing, 0.3)) + rng.normal(scale=0.05, size=15), 0, 1)
        ages = np.array(MONTHS, dtype=float)

        def loss(b: np.ndarray, ages=ages, shares=shares) -> float:
            logit = b[0] + b[1] * (ages - 23)
            return float((np.logaddexp(0, logit) - shares * logit).sum())

        best = minimize(loss, np.zeros(2), tol=1e-10).x
        assert fit_age(MONTHS, list(shares)) == np.ceil(23 - best[0] / best[1])


def test_odd_curves_have_an_end() -> None:
    assert fit_age(MONTHS, [float(age >= 22) for age in MONTHS]) == 22.0  # a step
    assert fit_age(MONTHS, curve(22)[::-1]) is None  # children forget it
    assert fit_age(MONTHS, [0.0] * 15) is None


def test_tables_of_ages(tmp_path: Path) -> None:
    file = tmp_path / "aoa.csv"
    file.write_text("item_definition,category,aoa\nball*,toys,16\nfish (animal),animals,18\n"
                    "fish (food),food,22\nsock/shoe,clothes,17\ntrain,vehicles,NA\n")
    assert read_norms(file).months == {"ball": 16, "fish": 18, "sock": 17, "shoe": 17}
    file.write_text("Word,OccurTotal,Rating.Mean\nball,20,2.5\n")
    assert read_norms(file).months == {"ball": 30}


def test_wordbanks_shares_by_month(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    rows = ["item_id,item_definition,category," + ",".join(map(str, MONTHS))]
    for name, crossing in (("ball", 12.0), ("table", 23.5), ("zebra", 40.0)):
        rows.append(f"item_1,{name},x," + ",".join(f"{share:.4f}" for share in curve(crossing)))
    rows.append("item_4,gap,x," + ",".join(["NA"] * 13 + ["0.5", "0.6"]))
    file.write_text("\n".join(rows))
    norms = read_norms(file)
    assert norms.months == {"ball": 16, "table": 24} and norms.youngest == 16
    file.write_text("\n".join([*rows, "item_5,bad,x," + ",".join(["1.5"] * 15)]))
    with pytest.raises(ValueError, match=r"items\.csv, line 6: shares of children are 0 to 1"):
        read_norms(file)


@pytest.mark.parametrize(("text", "message"), [
    ("", "has nothing"), ("word,size\nball,3\n", "needs a column of words"),
    ("word,aoa\nball,early\n", "line 2: could not convert string to float: 'early'"),
    ("word,aoa\nball,-3\n", "line 2: an age of -3"),
    ("word,aoa\nball,16,17\n", "line 2: 3 fields where the header has 2"),
    ("word,aoa\nball,NA\n", "no word with an age"),
])
def test_malformed_norms_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "aoa.csv"
    file.write_text(text)
    with pytest.raises(ValueError) as caught:
        read_norms(file)
    assert str(file) in str(caught.value) and message in str(caught.value)
    with pytest.raises(ValueError, match="no such file"):
        read_norms(tmp_path / "none.csv")


def test_checklist_items() -> None:
    assert item_words("Sock/Shoe*") == ["sock", "shoe"]
    assert item_words("play (verb)") == ["play"]
    assert item_words("ice cream") == ["ice cream"]


def test_groups_by_age_hold_equally_many_words() -> None:
    words = [f"w{k}" for k in range(9)]
    norms = Norms({word: 16.0 + k for k, word in enumerate(words)}, None)
    made = by_age(word_trials([*words, "new"], lambda w: w < "w5"), norms, seed=0)
    assert [(g.name, g.n) for g in made.groups] == [
        ("by 18 months", 6), ("18 to 21 months", 6), ("after 21 months", 6)]
    assert [g.value for g in made.groups] == pytest.approx([1.0, 2 / 3, 0.0])
    assert made.left_out == 2
    assert by_age(word_trials(["x"], lambda w: 1), norms, seed=0).groups == ()


def test_a_label_of_two_words_can_have_its_own_age() -> None:
    norms = Norms({"ice cream": 20.0, "red": 22.0, "ball": 16.0}, None)
    rows = [trial(str(k), 1.0, texts=(text,), images=("a", "b"))
            for k, text in enumerate(("an ice cream", "Ice cream", "red ball", "red zebra"))]
    ages = [age(Outcome.from_json(row), norms) for row in rows]
    assert ages == [20.0, 20.0, 22.0, None]


def test_late_words_are_hard() -> None:
    words = [f"w{k}" for k in range(8)]
    ages = {word: 16.0 + k for k, word in enumerate(words)}
    credit = {word: 1 - k / 8 + (k % 3) / 10 for k, word in enumerate(words)}
    got = association(word_trials([*words, "new"], lambda w: credit.get(w, 1)), ages)
    assert got is not None and got.words == 8
    reference = spearmanr([ages[w] for w in words], [credit[w] for w in words])
    assert (got.rho, got.p) == pytest.approx((reference.statistic, reference.pvalue))
    assert association(word_trials(words, lambda w: 1.0), ages) is None
    assert association(word_trials(words[:3], lambda w: credit[w]), ages) is None

"""Labelled trials from category folders."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from dataprep.evalsets.build import build_labeled
from dataprep.evalsets.evalset import read_evalset

Make = Callable[[dict[str, int]], Path]
SIX = {"ball": 5, "car": 3, "cat": 9, "toy": 4, "room": 5, "couch": 4}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("mirrored", [False, True])
def test_trials_have_the_published_form(
    tmp_path: Path, folder_of_categories: Make, mirrored: bool
) -> None:
    images = folder_of_categories(SIX)
    out = tmp_path / "set"
    done = build_labeled(images, out, per_category=8, mirrored=mirrored, seed=1)
    table = rows(out / "labeled.csv")
    assert list(table[0]) == ["trial_id", "target_category", "real_category", "image"]
    assert done.counts["trials"] == 40 and len(table) == 160  # couch is left out, as published
    shown: Counter[str] = Counter()
    targets: Counter[str] = Counter()
    for start in range(0, 160, 4):
        trial = table[start : start + 4]
        names = [row["real_category"] for row in trial]
        assert len(set(names)) == 4 and names[0] == trial[0]["target_category"]
        assert {row["target_category"] for row in trial} == {names[0]}
        targets[trial[0]["image"]] += 1
        shown.update(row["image"] for row in trial[1:])
        for row in trial:
            assert (images / row["image"]).is_file()
            assert row["image"].startswith(row["real_category"] + "/")
    per = Counter(row["target_category"] for row in table[::4])
    assert set(per.values()) == {8} and len(per) == 5
    # every picture of a category comes once before any comes twice
    assert all(targets[f"car/img_{k}.png"] in (2, 3) for k in range(3))
    if mirrored:
        assert all(shown[image] == 3 * count for image, count in targets.items())
    task = yaml.safe_load((out / "tasks.yaml").read_text())
    assert task["tasks"][0]["kind"] == "labeled" and not task["show_pictures"]
    assert (Path(task["root"]) / task["tasks"][0]["image_root"] / table[0]["image"]).is_file()


def test_same_seed_same_bytes(tmp_path: Path, folder_of_categories: Make) -> None:
    images = folder_of_categories(SIX)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        build_labeled(images, tmp_path / name, per_category=4, seed=seed)
    texts = [(tmp_path / name / "labeled.csv").read_bytes() for name in "abc"]
    assert texts[0] == texts[1] != texts[2]


def test_mirrored_trials_defeat_a_taste_for_pictures(
    tmp_path: Path, folder_of_categories: Make
) -> None:
    build_labeled(folder_of_categories(SIX), tmp_path / "set", per_category=8, mirrored=True)
    table = rows(tmp_path / "set" / "labeled.csv")
    rng = np.random.default_rng(0)
    liking = {row["image"]: rng.random() for row in table}
    hits = [
        int(np.argmax([liking[row["image"]] for row in table[start : start + 4]])) == 0
        for start in range(0, len(table), 4)
    ]
    assert np.mean(hits) == 0.25


def test_pictures_that_cannot_be_used_are_listed(
    tmp_path: Path, folder_of_categories: Make
) -> None:
    images = folder_of_categories(SIX)
    (images / "ball" / "img_9.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    twice = (images / "cat" / "img_0.png").read_bytes()
    (images / "cat" / "img_00.png").write_bytes(twice)
    (images / "toy" / "img_8.png").write_bytes((images / "room" / "img_1.png").read_bytes())
    done = build_labeled(images, tmp_path / "set", per_category=4)
    text = "\n".join(done.lines)
    for what in ("img_9.png: cannot be read", "second copy", "toy/img_8.png: also in room",
                 "room/img_1.png: also in toy"):
        assert what in text
    info = json.loads((tmp_path / "set" / "evalset.json").read_text())
    assert info["made_by"]["left_out"] == 4
    used = {row["image"] for row in rows(tmp_path / "set" / "labeled.csv")}
    assert not used & {"ball/img_9.png", "toy/img_8.png", "room/img_1.png"}
    record = read_evalset(tmp_path / "set").records[0]
    assert set(record.provenance["image_sha256"]) == set(record.images)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"a": 1, "b": 1, "c": 1}, {}, "3 folders with pictures; trials need 4"),
        (SIX, {"per_category": 0}, "--per-category 0: accepted are 1 and above"),
        (SIX, {"per_category": 3, "mirrored": True}, "for example --per-category 4"),
    ],
)
def test_bad_input(
    tmp_path: Path, folder_of_categories: Make, counts: dict[str, int], options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build_labeled(folder_of_categories(counts), tmp_path / "set", **options)
    assert not (tmp_path / "set" / "evalset.json").exists()


def test_a_finished_set_is_not_overwritten(tmp_path: Path, folder_of_categories: Make) -> None:
    images = folder_of_categories(SIX)
    build_labeled(images, tmp_path / "set", per_category=4)
    with pytest.raises(ValueError, match="--force makes it anew"):
        build_labeled(images, tmp_path / "set", per_category=4)
    build_labeled(images, tmp_path / "set", per_category=4, force=True)
    with pytest.raises(ValueError, match="no such folder"):
        build_labeled(tmp_path / "nowhere", tmp_path / "other")

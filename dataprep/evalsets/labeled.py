"""Labelled trials from category folders: one word, four pictures of four categories.

Published (Labeled-S): 22 categories with 100 trials each; in every trial the foils' categories are
drawn without repetition from the other 21, and pictures by lot. ``mirrored`` takes pictures four
at a time instead and makes each of the four the target of one trial: a model that likes some
pictures better than others, whatever the word, then scores exactly one quarter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataprep.benchmarks.items import HeldOut
from dataprep.benchmarks.labeled import CHOICES, HEADER, Trial, labeled_rows
from dataprep.evalsets.evalset import EvalSet, Finished, Record
from dataprep.evalsets.frames import path_from
from dataprep.files import sha256_file

FILE = "labeled.csv"
PER_CATEGORY = 100
EXCLUDED = ("carseat", "couch", "greenery", "plushanimal")
"""Folders of Labeled-S that the published trials leave out."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def read_folders(
    images: Path, exclude: Sequence[str] = EXCLUDED
) -> tuple[dict[str, dict[Path, str]], list[str]]:
    """Category -> its pictures with their SHA-256, and one line about each file left out.

    Left out are files that cannot be read as pictures, second copies within a category, and
    pictures that lie in several categories (which of them would be right?).

    Raises:
        ValueError: no such folder, or fewer than four categories with pictures.
    """
    if not images.is_dir():
        raise ValueError(f"{images}: no such folder; --images has one folder a category")
    problems: list[str] = []
    hashes: dict[str, dict[Path, str]] = {}
    where: dict[str, set[str]] = {}
    for folder in sorted(path for path in images.iterdir() if path.is_dir()):
        if folder.name in exclude or folder.name.startswith("."):
            continue
        found: dict[Path, str] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() not in SUFFIXES:
                continue
            try:
                with Image.open(path) as picture:
                    picture.load()
            except (OSError, SyntaxError, ValueError) as error:
                problems.append(f"{path}: cannot be read ({error})")
                continue
            digest = sha256_file(path)
            if digest in found.values():
                problems.append(f"{path}: second copy of a picture of this category")
                continue
            found[path] = digest
            where.setdefault(digest, set()).add(folder.name)
        hashes[folder.name] = found
    for category, found in hashes.items():
        for path, digest in list(found.items()):
            if len(where[digest]) > 1:
                others = ", ".join(sorted(where[digest] - {category}))
                problems.append(f"{path}: also in {others}")
                del found[path]
    categories = {name: found for name, found in hashes.items() if found}
    if len(categories) < CHOICES:
        raise ValueError(
            f"{images}: {len(categories)} folders with pictures; trials need {CHOICES} categories"
        )
    return categories, problems


class _Deck:
    """Pictures of a category in an order of chance, each once before any comes again."""

    def __init__(self, items: Sequence[HeldOut], rng: np.random.Generator) -> None:
        self._items, self._rng, self._left = items, rng, list[HeldOut]()

    def draw(self) -> HeldOut:
        if not self._left:
            self._left = [self._items[i] for i in self._rng.permutation(len(self._items))]
        return self._left.pop()


def folder_trials(
    items: Mapping[str, Sequence[HeldOut]], per_category: int, seed: int, *, mirrored: bool
) -> list[Trial]:
    """`per_category` trials for every category, targets in the order of the categories.

    Raises:
        ValueError: mirrored trials do not come out even (categories x trials is no multiple of 4).
    """
    rng = np.random.default_rng([seed, 31])
    names = sorted(items)
    targets = {name: _Deck(items[name], rng) for name in names}
    if not mirrored:
        foils = {name: _Deck(items[name], rng) for name in names}
        trials = []
        for name in names:
            others = [other for other in names if other != name]
            for _ in range(per_category):
                a, b, c = (foils[others[k]].draw() for k in rng.permutation(len(others))[:3])
                trials.append(Trial(targets[name].draw(), (a, b, c)))
        return trials
    if len(names) * per_category % CHOICES:
        raise ValueError(
            f"mirrored trials come in fours: {len(names)} categories x {per_category} trials is no "
            f"multiple of {CHOICES}; accepted is for example --per-category "
            f"{per_category + -per_category % CHOICES}"
        )
    left = dict.fromkeys(names, per_category)
    trials = []
    while any(left.values()):
        # the fullest first, equals by lot: so the last set still has four categories to draw from
        order = sorted(rng.permutation(names).tolist(), key=lambda name: -left[name])[:CHOICES]
        chosen = [targets[name].draw() for name in order]
        for name in order:
            left[name] -= 1
        for target in chosen:
            a, b, c = (item for item in chosen if item is not target)
            trials.append(Trial(target, (a, b, c)))
    return sorted(trials, key=lambda trial: trial.target.noun)


def labeled_records(
    images: Path,
    folder: Path,
    *,
    per_category: int = PER_CATEGORY,
    seed: int = 0,
    mirrored: bool = False,
    exclude: Sequence[str] = EXCLUDED,
    code: str,
) -> tuple[list[Record], list[str]]:
    """The records of a set at `folder`, and what was wrong with files.

    Raises:
        ValueError: as :func:`read_folders` and :func:`folder_trials`; `per_category` below 1.
    """
    if per_category < 1:
        raise ValueError(f"--per-category {per_category}: accepted are 1 and above")
    categories, problems = read_folders(images, exclude)
    digests = {path: digest for found in categories.values() for path, digest in found.items()}
    items = {
        name: [HeldOut(str(path), name, name, None, name) for path in found]
        for name, found in categories.items()
    }
    records = []
    for number, trial in enumerate(folder_trials(items, per_category, seed, mirrored=mirrored)):
        shown = (trial.target, *trial.foils)
        paths = {role: Path(i.image) for role, i in zip(ROLES, shown, strict=True)}
        records.append(
            Record(
                id=f"{number:05d}",
                images={role: path_from(folder, path) for role, path in paths.items()},
                fields={},
                facts={"categories": [item.noun for item in shown]},
                provenance={
                    "image_sha256": {role: digests[path] for role, path in paths.items()},
                    "seed": seed,
                    "code_version": code,
                },
            )
        )
    return records, problems


ROLES = ("target", "foil 1", "foil 2", "foil 3")


def finish(evalset: EvalSet) -> Finished:
    """The official table: four rows a trial, the target first."""
    root = evalset.info["image_root"]
    trials = []
    for record in evalset.kept():
        first, *rest = (
            HeldOut(relative(record.images[role], root), noun, noun, None, noun)
            for role, noun in zip(ROLES, record.facts["categories"], strict=True)
        )
        trials.append(Trial(first, (rest[0], rest[1], rest[2])))
    task = {
        "name": evalset.info["name"], "kind": "labeled", "file": FILE, "image_root": root,
        "cluster": "target_category",
    }  # fmt: skip
    return Finished({FILE: (HEADER, list(labeled_rows(trials)))}, [task], {"trials": len(trials)})


def relative(image: str, root: str) -> str:
    """A picture's path from the image root; both are given from the set's folder."""
    return Path(image).relative_to(root).as_posix() if root != "." else image

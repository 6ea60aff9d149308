"""Is a suite fit to be scored? Rows, pictures, repeats, positions of the right answer, pairs."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from benchmarks_eval.data import Item, missing_pictures, pictures_of, read_items
from benchmarks_eval.tasks import Task, TaskFile
from benchmarks_eval.trials import Trial, question_trials
from benchmarks_eval.vocabulary import Coverage, Vocabulary, coverage

UNIFORM_SD = 5.0
"""Shuffled positions of the right answer may be this far from even (standard deviations)."""


@dataclass
class TaskCheck:
    """What was found in one task."""

    task: Task
    items: list[Item] = field(default_factory=list)
    trials: dict[str, list[Trial]] = field(default_factory=dict)
    coverage: dict[str, Coverage] = field(default_factory=dict)
    """Model -> how many questions its vocabulary covers."""
    in_file: Counter[int] = field(default_factory=Counter)
    """Position of the right answer in the file (from 0) -> questions."""
    shuffled: dict[str, Counter[int]] = field(default_factory=dict)
    """Figure -> position of the right answer when asked -> trials."""
    errors: list[str] = field(default_factory=list)
    """What must be mended before scoring."""
    warnings: list[str] = field(default_factory=list)
    """What a reader of the figures should know."""

    def to_json(self) -> dict[str, Any]:
        """Counts and findings as a strict-JSON tree."""
        return {
            "task": self.task.name, "kind": self.task.kind, "questions": len(self.items),
            "clusters": len({item.cluster for item in self.items}),
            "pictures": len(pictures_of(self.items)),
            "trials": {name: len(found) for name, found in self.trials.items()},
            "pairs": {name: sum(trial.choices for trial in found)
                      for name, found in self.trials.items()},
            "gold_in_file": {str(k): n for k, n in sorted(self.in_file.items())},
            "gold_shuffled": {name: {str(k): n for k, n in sorted(found.items())}
                              for name, found in self.shuffled.items()},
            "out_of_vocabulary": {
                name: {"questions": one.unknown, "same_tokens": one.alike,
                       "words": dict(sorted(one.words.items()))}
                for name, one in self.coverage.items()},
            "errors": self.errors, "warnings": self.warnings,
        }


@dataclass(frozen=True)
class SuiteCheck:
    """What was found in all tasks of a suite."""

    tasks: list[TaskCheck]

    @property
    def errors(self) -> int:
        """Number of errors in all tasks."""
        return sum(len(task.errors) for task in self.tasks)

    @property
    def warnings(self) -> int:
        """Number of warnings in all tasks."""
        return sum(len(task.warnings) for task in self.tasks)

    def pairs(self) -> tuple[int, int]:
        """Pairs of a picture and a text to score: all, and distinct ones over all tasks."""
        found = [(check.task, trials) for check in self.tasks for trials in check.trials.values()]
        return (
            sum(trial.choices for _, trials in found for trial in trials),
            len({pair for task, trials in found for pair in task_pairs(task, trials)}),
        )


def task_pairs(task: Task, trials: Iterable[Trial]) -> set[tuple[str, str, str, bool]]:
    """The distinct (picture, text as shown, prompt, end scored) that trials ask for."""
    return {
        (image, shown, task.prompt, task.score_eos)
        for trial in trials
        for image in trial.images
        for text in trial.texts
        for shown in task.render(text)
    }


def check_suite(
    suite: TaskFile,
    root: Path,
    *,
    seed: int = 0,
    decode: bool = True,
    vocabularies: Sequence[Vocabulary] = (),
) -> SuiteCheck:
    """Checks every task; nothing stops at the first mistake.

    Args:
        suite: the task file.
        root: folder of its data.
        seed: of the trials.
        decode: whether to read every picture in full, or only to see that it is there.
        vocabularies: tokenisers whose unknown words to count.
    """
    checks = [_check_rows(task, root, seed, vocabularies) for task in suite.tasks]
    wanted = {image for check in checks for image in pictures_of(check.items)}
    known = _read_pictures(root, sorted(wanted)) if decode else {}
    for check in checks:
        _check_pictures(check, root, known)
    return SuiteCheck(checks)


def _check_rows(task: Task, root: Path, seed: int, vocabularies: Sequence[Vocabulary]) -> TaskCheck:
    check = TaskCheck(task)
    try:
        check.items = read_items(task, root)
        check.trials = question_trials(task, check.items, seed)
    except (ValueError, OSError) as error:
        check.errors.append(str(error))
        return check
    _check_repeats(check, root)
    _check_positions(check)
    trials = next(iter(check.trials.values()))
    check.coverage = {one.name: coverage(one, task, trials) for one in vocabularies}
    return check


def _check_repeats(check: TaskCheck, root: Path) -> None:
    task = check.task
    same: dict[Any, list[Item]] = {}
    sides: dict[Any, list[Item]] = {}
    for item in check.items:
        right = (
            item.images[item.gold if len(item.images) > 1 else 0],
            item.texts[item.gold if len(item.texts) > 1 else 0],
        )
        same.setdefault((frozenset(item.images), frozenset(item.texts), right), []).append(item)
        sides.setdefault((item.images, frozenset(item.texts)), []).append(item)
        for what, said, own in (("picture", item.images, right[0]), ("text", item.texts, right[1])):
            if said.count(own) > 1:
                check.errors.append(
                    f"{item.place(root, task.file)}: the right {what} '{own}' "
                    f"stands twice among the candidates"
                )
    _repeated(
        check, root, [group for group in same.values() if len(group) > 1], "repeat an earlier one"
    )
    if task.kind in ("two_word", "text_choice"):
        torn = [
            group
            for group in sides.values()
            if len({item.texts[item.gold] for item in group}) > 1 and group[0].images != ("",)
        ]
        _repeated(
            check, root, torn, "call right what an earlier one calls wrong for the same picture"
        )


def _repeated(check: TaskCheck, root: Path, groups: list[list[Item]], what: str) -> None:
    if groups:
        again = sum(len(group) - 1 for group in groups)
        first, second = groups[0][:2]
        check.warnings.append(
            f"{again:,} questions {what}: first {second.place(root, check.task.file)}, as "
            f"{first.place(root, check.task.file)}"
        )


def _check_positions(check: TaskCheck) -> None:
    if check.task.kind in ("winoground", "caption"):
        return
    check.in_file = Counter(item.gold for item in check.items)
    for name, trials in check.trials.items():
        check.shuffled[name] = Counter(trial.gold for trial in trials)
        expected: Counter[int] = Counter()
        for size, number in Counter(trial.choices for trial in trials).items():
            expected.update({k: number / size for k in range(size)})  # type: ignore[arg-type]
        for place, mean in expected.items():
            if abs(check.shuffled[name][place] - mean) > UNIFORM_SD * np.sqrt(mean) + 1:
                check.errors.append(
                    f"task '{check.task.name}', {name}: the right answer is asked "
                    f"{check.shuffled[name][place]:,} times in place {place + 1}, {mean:.0f} "
                    f"would be even"
                )


@dataclass(frozen=True)
class _Picture:
    digest: str
    problem: str = ""


def _read_pictures(root: Path, images: Sequence[str]) -> dict[str, _Picture]:
    found: dict[str, _Picture] = {}
    for image in tqdm(
        images, unit="picture", desc="reading pictures", dynamic_ncols=True, disable=not images
    ):
        path = root / image
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found[image] = _Picture(digest, _problem(path))
    return found


def _problem(path: Path) -> str:
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (64, 64))  # a JPEG is read in full but computed small: faster
            picture.load()
    except (
        UnidentifiedImageError,
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
    ) as error:
        return "no picture" if isinstance(error, UnidentifiedImageError) else str(error)
    return ""


def _check_pictures(check: TaskCheck, root: Path, known: Mapping[str, _Picture]) -> None:
    task = check.task
    absent = missing_pictures(root, check.items)
    if absent:
        image, item = next(iter(absent.items()))
        inside = (
            "; they are inside the parquet, --extract takes them out"
            if task.file.endswith(".parquet")
            else ""
        )
        check.errors.append(
            f"{len(absent):,} of {len(pictures_of(check.items)):,} pictures do not exist: first "
            f"{root / image} ({item.place(root, task.file)}){inside}"
        )
    for image, item in pictures_of(check.items).items():
        if image in known and known[image].problem:
            check.errors.append(
                f"{item.place(root, task.file)}: picture {root / image} cannot be "
                f"read: {known[image].problem}"
            )
    copies: list[Item] = []
    for item in check.items:
        digests = [known[image].digest for image in item.images if image in known]
        if len(set(digests)) < len(set(item.images) & known.keys()):
            copies.append(item)
    if copies:
        check.warnings.append(
            f"{len(copies):,} questions show two pictures that are byte for byte the same: first "
            f"{copies[0].place(root, task.file)}"
        )

"""What a suite asks: its data read, checked and hashed once, for all models and checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks_eval.blind import Unigram
from benchmarks_eval.data import data_files, missing_picture, pictures_of, read_items
from benchmarks_eval.features import file_hashes
from benchmarks_eval.figures import BoundTask, bind
from benchmarks_eval.options import Options
from benchmarks_eval.plan import digest
from benchmarks_eval.tasks import TaskFile
from benchmarks_eval.trials import Trial, spread


@dataclass(frozen=True)
class Questions:
    """Every task of a suite with its questions, measures and rules."""

    suite: TaskFile
    root: Path
    """Folder of the data."""
    options: Options
    bound: list[BoundTask]

    @classmethod
    def read(cls, suite: TaskFile, root: Path, options: Options,
             pictures: bool = True) -> Questions:
        """Reads every data file and checks every picture before a model is touched.

        Args:
            suite: the tasks.
            root: folder of the data.
            options: what is asked and how answers are judged.
            pictures: False: records are judged again, nobody will look at a picture.

        Raises:
            ValueError: a malformed row or a missing picture (file and line), no corpus where the
                suite names one, or a library that caption metrics need is not there.
        """
        bound: list[BoundTask] = []
        for task in suite.tasks:
            items = spread(read_items(task, root), options.limit)
            missing = missing_picture(task, root, items) if pictures else None
            if missing is not None:
                raise ValueError(missing)
            bound.append(bind(task, items, options.score, options.seed))
        if suite.corpus is not None and not (Path(suite.corpus) / "corpus.json").is_file():
            raise ValueError(f"corpus: {suite.corpus} is no corpus (no corpus.json); the task file "
                             f"names it for the unigram floor")
        if any(task.task.kind == "caption" for task in bound):
            from benchmarks_eval.caption_metrics import require

            require(options.score.meteor_jar)
        return cls(suite, root, options, bound)

    @property
    def trials(self) -> dict[str, list[Trial]]:
        """Task -> all its trials, those of several measures one after the other."""
        return {task.task.name: [trial for measure in task.measures for trial in measure.trials]
                for task in self.bound}

    @cached_property
    def picture_hashes(self) -> dict[str, str]:
        """Every picture -> SHA-256 of its bytes."""
        return file_hashes(self.root, sorted({image for task in self.bound
                                              for image in pictures_of(task.items)}))

    @cached_property
    def data_facts(self) -> dict[str, Any]:
        """Task -> SHA-256 of its data files and of the questions read from them."""
        facts: dict[str, Any] = {}
        for task in self.bound:
            files = [path.relative_to(self.root).as_posix()
                     for path in data_files(task.task, self.root)]
            facts[task.task.name] = {
                "files": file_hashes(self.root, files), "questions": len(task.items),
                "sha256": digest([[i.id, i.images, i.texts, i.gold, i.cluster, i.tags]
                                  for i in task.items])}
        return facts

    @cached_property
    def utterances(self) -> list[str]:
        """Training utterances, when the suite names a corpus; else none."""
        if self.suite.corpus is None:
            return []
        from engine import read_corpus

        return list(read_corpus(self.suite.corpus).pairs("train").utterance)

    @cached_property
    def frequencies(self) -> Unigram | None:
        """Word counts of the unigram floor; None counts the tasks' own phrases."""
        return Unigram(self.utterances) if self.utterances else None

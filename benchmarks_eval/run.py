"""One evaluation from questions to records: the order of the work, without any of its details."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from benchmarks_eval import features, parts
from benchmarks_eval.judge import RETRIEVAL, Results, caption_judge, judge
from benchmarks_eval.plan import (
    ModelInfo,
    Plan,
    Wants,
    difference,
    make_plan,
    read_plan,
)
from benchmarks_eval.questions import Questions
from benchmarks_eval.ranks import Ranks
from benchmarks_eval.records import (
    json_line,
    read_captions,
    read_scores,
    write_atomically,
)
from benchmarks_eval.scoring import Asker, Room, ask_batch

if TYPE_CHECKING:
    from benchmarks_eval.models import Model

log = logging.getLogger("babyvlm")


def plan_run(models: Sequence[Model], questions: Questions) -> Plan:
    """Everything that the models are asked, in batches."""
    wants: list[Wants] = []
    for model in models:
        want = Wants(ModelInfo.of(model))
        for task in questions.bound:
            task.plan(want, questions.options)
        wants.append(want)
    return make_plan(
        wants, suite=questions.suite.model_dump(mode="json", exclude_unset=True),
        root=questions.root, data=questions.data_facts, pictures=questions.picture_hashes,
        options=questions.options)


def evaluate(models: Sequence[Model], questions: Questions, out: Path, *,
             store: Path | None = None, fresh: bool = False, ranks: Ranks | None = None,
             allow_upload: bool = False) -> Results | None:
    """Scores every model on every task and judges the records.

    Records are kept batch by batch: a killed run goes on where it was, at any number of ranks.

    Args:
        models: loaded; each gets a folder of records below ``out``.
        questions: what they are asked.
        out: folder of the results. A plan that lies there must be this one.
        store: folder of the feature store; None keeps no features.
        fresh: removes what another (or the same) plan has recorded in ``out``.
        ranks: this process among all.
        allow_upload: pictures that the suite does not show may go to a server.

    Returns:
        The results; None on ranks other than the first.

    Raises:
        ValueError: bad data, a model that cannot serve, another plan in ``out``, a rank that died.
    """
    from benchmarks_eval.models import Material, prepare

    ranks = ranks or Ranks()
    prepare(models, Material(questions.trials, questions.root, questions.utterances,
                             questions.suite.show_pictures, allow_upload))
    plan = plan_run(models, questions)
    setting = _Setting(questions.root, store, questions.picture_hashes, ranks)
    _record(plan, models, out, fresh, setting)
    judging = caption_judge(plan.infos)
    if judging is not None:
        again = plan_retrieval(plan, questions, out, judging)
        if again.batches:
            _record(again, [models[judging]], out / RETRIEVAL, False, setting)
    if not ranks.first:
        return None
    return judge(questions, plan.infos, out, out)


def plan_retrieval(plan: Plan, questions: Questions, out: Path, judging: int) -> Plan:
    """What can be asked only once captions are there: which picture is this caption of?

    Args:
        plan: of the tasks; its captions are on disk.
        questions: the tasks.
        out: folder of the results.
        judging: place of the contrastive model that is asked.
    """
    from benchmarks_eval.captions import retrieval_trials

    options = questions.options
    want = Wants(plan.infos[judging])
    for info in plan.infos:
        if info.generates:
            said = read_captions(out / info.file_name / "captions.jsonl")
            for task in questions.bound:
                if task.retrieves:
                    trials = retrieval_trials(task.items, task.captions(said), task.task.foils,
                                              options.seed)
                    want.add_trials(task.task, [t for t in trials if t.texts[0].strip()], options)
    return make_plan([want], suite={}, root=questions.root, data={},
                     pictures=questions.picture_hashes, options=options)


@dataclass(frozen=True)
class _Setting:
    """Where and with whom a run works."""

    root: Path
    store: Path | None
    hashes: dict[str, str]
    ranks: Ranks
    room: Room = field(default_factory=Room)


def _record(plan: Plan, models: Sequence[Model], out: Path, fresh: bool,
            setting: _Setting) -> None:
    """Takes the plan as far as merged records; returns on every rank when they are there."""
    ranks = setting.ranks
    left = _begin(plan, out, fresh, ranks)
    _work(plan, models, out, left[ranks.rank::ranks.world], setting)
    ranks.wait()
    if ranks.first:
        merge(plan, out)
    ranks.wait()


def _begin(plan: Plan, out: Path, fresh: bool, ranks: Ranks) -> list[int]:
    """The batches that are left, the same on every rank."""
    problem = None
    left: list[int] = []
    if ranks.first:
        try:
            _claim(plan, out, fresh)
            made = parts.read_parts(out)
            number = len(plan.batches)
            left = [n for n in range(number) if n not in made]
            if left and complete(plan, out):
                left = []
            if len(left) < number:
                log.info("%s: %d of %d batches are there, %d to go", out, number - len(left),
                         number, len(left))
        except (ValueError, OSError) as error:
            problem = str(error)
    problem, left = ranks.from_first((problem, left))
    if problem is not None:
        raise ValueError(problem)
    return left


def _claim(plan: Plan, out: Path, fresh: bool) -> None:
    if fresh:
        clear(plan, out)
    before = read_plan(out)
    if before is not None:
        odd = difference(before, plan.facts)
        if odd is not None:
            raise ValueError(f"{out} holds records of another plan: its {odd} differ; give "
                             f"another --out, or --fresh to remove them and start anew")
    plan.write(out)


def clear(plan: Plan, out: Path) -> None:
    """Removes what a run has recorded in ``out``: its plan first, so that no kill leaves records
    beside a plan that is not theirs."""
    (out / "plan.json").unlink(missing_ok=True)
    parts.remove_parts(out)
    for info in plan.infos:
        shutil.rmtree(out / info.file_name, ignore_errors=True)
    shutil.rmtree(out / RETRIEVAL, ignore_errors=True)


def complete(plan: Plan, out: Path) -> bool:
    """Whether the models' files hold everything: an earlier run came as far as merging."""
    known: list[set[Any]] = []
    for info in plan.infos:
        own: set[Any] = set()
        for what, read in (("scores", read_scores), ("captions", read_captions)):
            path = out / info.file_name / f"{what}.jsonl"
            if path.is_file():
                own |= read(path).keys()
        known.append(own)
    return all(key in known[k] for batch in plan.batches for k, key in batch.wanted())


def _work(plan: Plan, models: Sequence[Model], out: Path, mine: list[int],
          setting: _Setting) -> None:
    if not mine:
        return
    root, ranks = setting.root, setting.ranks
    askers = {k: Asker(k, models[k], plan.batches, root)
              for k in sorted({k for n in mine for k in plan.batches[n].models})}
    stores = {k: features.FeatureStore(setting.store, plan.infos[k].tower_hash, setting.hashes)
              for k in askers}
    total = sum(len(plan.batches[n].pictures) or 1 for n in mine)
    with parts.Part(out, ranks.rank) as part, tqdm(
            total=total, unit="picture", desc="scoring", dynamic_ncols=True,
            disable=not ranks.first) as bar:
        for number in mine:
            batch = plan.batches[number]
            part.append(number, ask_batch(batch, askers, stores[batch.models[0]], root,
                                          setting.room))
            bar.update(len(batch.pictures) or 1)
    log.info("rank %d: %d pictures through a tower, %d read from the feature store", ranks.rank,
             sum(own.tower_pictures for own in stores.values()),
             sum(own.read_pictures for own in stores.values()))


def merge(plan: Plan, out: Path) -> None:
    """Puts the parts together in the order of the plan, one file a model and kind of record.

    Parts go only when every file is there, so a kill in between loses nothing.

    Raises:
        ValueError: a batch is missing.
    """
    made = parts.read_parts(out)
    missing = sum(n not in made for n in range(len(plan.batches)))
    if missing and not complete(plan, out):
        raise ValueError(f"{out}: {missing} of {len(plan.batches)} batches are not there; start "
                         f"again to go on")
    if not missing:
        lines: dict[tuple[int, str], list[str]] = {
            (k, what): [] for k, info in enumerate(plan.infos)
            for what in (("scores", "captions") if info.generates else ("scores",))}
        for number in range(len(plan.batches)):
            for row in made[number]:
                lines[row.model, row.file].append(json_line(row.row))
        for (k, what), text in lines.items():
            write_atomically(out / plan.infos[k].file_name / f"{what}.jsonl", text)
    parts.remove_parts(out)

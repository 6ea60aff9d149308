"""Every kept checkpoint of a training run through one evaluation: learning curves.

Each checkpoint has its own results folder below the sweep's, filled like that of any run: killed,
the same command goes on. What was asked (tasks, data, pictures, options) is written down once for
all checkpoints, so that no curve is made of figures that do not belong together.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from benchmarks_eval import features
from benchmarks_eval.curves import FILE, Checkpoint, Sweep, make_curves
from benchmarks_eval.outcomes import RESULTS, read_results
from benchmarks_eval.plan import difference, digest
from benchmarks_eval.questions import Questions
from benchmarks_eval.ranks import Ranks
from benchmarks_eval.records import write_atomically
from benchmarks_eval.report import write_results
from benchmarks_eval.run import evaluate

if TYPE_CHECKING:
    from benchmarks_eval.models import Model
    from engine import CheckpointInfo

log = logging.getLogger("babyvlm")

ASKED = "asked.json"
"""What all checkpoints of a sweep are asked."""
CHECKPOINT = "checkpoint.json"
"""Which checkpoint a results folder is of."""


def kept_checkpoints(run: Path, kind: str | None) -> list[CheckpointInfo]:
    """The checkpoints that can be evaluated, by step.

    Args:
        run: a run directory of the engine.
        kind: only models of this kind; None: all.

    Raises:
        ValueError: no run there, or none of its checkpoints was kept with its model.
    """
    from engine import list_checkpoints

    found = list_checkpoints(run)
    kept = [info for info in found if info.model is not None]
    if not kept:
        raise ValueError(f"{run}: none of its {len(found)} checkpoints was kept with its model; "
                         f"train with checkpoints.keep_every set, for example --set "
                         f"checkpoints.keep_every=100")
    chosen = [info for info in kept if kind in (None, info.kind)]
    if not chosen:
        kinds = ", ".join(sorted({info.kind for info in kept}))
        raise ValueError(f"{run}: no kept checkpoint holds a {kind} model; there are: {kinds}")
    return chosen


def sweep(run: Path, questions: Questions, out: Path, *,
          load: Callable[[CheckpointInfo], Model], kind: str | None = None,
          store: Path | None = None, fresh: bool = False,
          ranks: Ranks | None = None) -> Sweep | None:
    """Evaluates every kept checkpoint and draws the curves.

    Args:
        run: a run directory of the engine.
        questions: what every checkpoint is asked.
        out: folder of the sweep; each checkpoint gets a folder in it.
        load: gives the model of a checkpoint; one is in memory at a time.
        kind: only checkpoints of this kind of model.
        store: folder of the feature store: a frozen tower sees each picture once in all.
        fresh: starts anew, whatever lies in ``out``.
        ranks: this process among all.

    Returns:
        The sweep; None on ranks other than the first.

    Raises:
        ValueError: bad data, no checkpoint, or ``out`` holds another sweep.
    """
    ranks = ranks or Ranks()
    chosen = kept_checkpoints(run, kind)
    problem: str | None = None
    left: list[int] = []
    if ranks.first:
        try:
            _claim(out, _asked(questions), fresh)
            left = [k for k, info in enumerate(chosen) if not _done(out, info)]
            if left and len(left) < len(chosen):
                log.info("%s: %d of %d checkpoints are there, %d to go", out,
                         len(chosen) - len(left), len(chosen), len(left))
        except (ValueError, OSError) as error:
            problem = str(error)
    problem, left = ranks.from_first((problem, left))
    if problem is not None:
        raise ValueError(problem)
    with tqdm(total=len(chosen), initial=len(chosen) - len(left), unit="checkpoint",
              desc="sweep", dynamic_ncols=True, disable=not ranks.first) as bar:
        for k in left:
            info = chosen[k]
            log.info("step %d (%s, %s)", info.step, info.phase, info.kind)
            model = load(info)
            results = evaluate([model], questions, out / info.path.name, store=store, ranks=ranks)
            if results is not None:
                write_results(results, out / info.path.name)  # last: from now on it is done
            del model
            bar.update()
    if not ranks.first:
        return None
    swept = collect(run, questions, chosen, out)
    write_atomically(out / FILE, json.dumps(swept.to_json(), indent=1, ensure_ascii=False,
                                            allow_nan=False) + "\n")
    return swept


def collect(run: Path, questions: Questions, chosen: Sequence[CheckpointInfo],
            out: Path) -> Sweep:
    """Curves from the results of all checkpoints."""
    places = tuple(Checkpoint(info.step, info.phase, info.kind, info.words_seen, info.pairs_seen,
                              info.path.name) for info in chosen)
    figures = [read_results(out / place.folder / RESULTS)["figures"] for place in places]
    return Sweep(out, str(run), questions.suite.model_dump(mode="json"),
                 asdict(questions.options), places, make_curves(places, figures))


def _asked(questions: Questions) -> dict[str, Any]:
    """What every checkpoint is asked; equal only if all figures mean the same."""
    tree = questions.suite.model_dump(mode="json",
                                      exclude={"root", "description", "show_pictures"})
    chosen = {key: value for key, value in asdict(questions.options).items()
              if key != "batch_size"}
    return {"format": 1, "suite": tree, "options": chosen, "data": questions.data_facts,
            "pictures": digest(questions.picture_hashes)}


def _claim(out: Path, asked: dict[str, Any], fresh: bool) -> None:
    path = out / ASKED
    if fresh:
        _clear(out)
    if path.is_file():
        odd = difference(_read(path), asked)
        if odd is not None:
            raise ValueError(f"{out} holds another sweep: its {odd} differ; give another --out, "
                             f"or --fresh to start anew")
        return
    write_atomically(path, json.dumps(asked, indent=1, ensure_ascii=False) + "\n")


def _clear(out: Path) -> None:
    """Removes a sweep, what says what it is last: no kill leaves results of unknown questions."""
    if not (out / ASKED).is_file():
        return
    (out / FILE).unlink(missing_ok=True)
    for folder in sorted(out.glob("step-*/")):
        shutil.rmtree(folder)
    (out / ASKED).unlink()


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}; --fresh starts anew") from None
    if not isinstance(tree, dict):
        raise ValueError(f"{path}: no JSON object; --fresh starts anew")
    return tree


def _done(out: Path, info: CheckpointInfo) -> bool:
    """Whether the results of a checkpoint are there; claims its folder for it."""
    folder = out / info.path.name
    facts = {"format": 1, "step": info.step,
             "sha256": features.file_hashes(info.path, ["manifest.json"])["manifest.json"]}
    path = folder / CHECKPOINT
    if path.is_file() and _read(path) != facts:
        raise ValueError(f"{folder} holds results of another checkpoint of step {info.step}: the "
                         f"run was trained again; give another --out, or --fresh to start anew")
    write_atomically(path, json.dumps(facts) + "\n")
    return (folder / RESULTS).is_file()

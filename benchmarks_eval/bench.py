"""How fast our scoring is: beside a loop over pairs, on the same model, machine and pairs.

The loop does what evaluation harnesses do for likelihoods (lmms-eval: one picture and one candidate
at a time): read the picture, run the tower, one forward of batch 1 over prompt and candidate with
logits at all positions, a softmax over the vocabulary. Ours is what ``run`` does, records included.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks_eval import features, parts
from benchmarks_eval.figures import BoundTask
from benchmarks_eval.models import Model
from benchmarks_eval.plan import Batch, ModelInfo, Wants, cut
from benchmarks_eval.records import Key, ScoreRecord
from benchmarks_eval.scoring import Asker, Room, ask_batch

SAME = 1e-4
"""Summed log-probabilities (nats) of both ways may differ by so much; more is an error."""


@dataclass(frozen=True)
class Timing:
    """One way of scoring in one round."""

    cpu_s: float
    wall_s: float


@dataclass(frozen=True)
class Compared:
    """The loop and ours at one number of candidates; ratios are of each round."""

    candidates: int
    pictures: int
    store: bool
    """Whether the features were there already, as for a second checkpoint of one tower."""
    loop: list[Timing]
    ours: list[Timing]
    difference: float
    """Largest difference of a summed log-probability (nats)."""

    def ratios(self, clock: str) -> list[float]:
        """Loop over ours, round by round; ``clock``: ``cpu_s`` or ``wall_s``."""
        return [getattr(a, clock) / max(getattr(b, clock), 1e-9)
                for a, b in zip(self.loop, self.ours, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Every number, and the median ratios."""
        return asdict(self) | {f"ratio_{clock}": statistics.median(self.ratios(clock))
                               for clock in ("cpu_s", "wall_s")}


def pair_scorer(model: Model) -> Callable[..., Any]:
    """``score_pair(picture, text)`` of a model that offers the plain way.

    Raises:
        ValueError: the model has none.
    """
    inner = getattr(model.handle, "inner", None)
    found = getattr(model.handle, "score_pair", None) or getattr(inner, "score_pair", None)
    if model.kind != "generative" or found is None:
        raise ValueError(f"--model {model.path}: generative models of the training engine can be "
                         f"timed pair by pair, this one cannot")
    return found


def questions(bound: Iterable[BoundTask], pictures: int, candidates: int,
              seed: int) -> dict[str, list[str]]:
    """Picture -> so many texts of the tasks, in alphabetical order.

    Raises:
        ValueError: the tasks hold fewer pictures or texts.
    """
    images: set[str] = set()
    texts: set[str] = set()
    for task in bound:
        for measure in task.measures:
            for trial in measure.trials:
                images.update(filter(None, trial.images))
                texts.update(shown for text in trial.texts for shown in task.task.render(text))
    if not images:
        raise ValueError("the tasks hold no pictures")
    if len(texts) < candidates:
        raise ValueError(f"--pairs {candidates}: the tasks hold {len(texts)} different texts")
    known = sorted(texts)
    chosen = sorted(images)
    chosen = [chosen[k * len(chosen) // pictures] for k in range(pictures)] \
        if len(chosen) > pictures else chosen
    rng = np.random.default_rng([seed, candidates])
    return {image: sorted(known[k] for k in rng.choice(len(known), candidates, replace=False))
            for image in chosen}


def compare(model: Model, bound: Sequence[BoundTask], root: Path, *, pictures: int,
            candidates: Sequence[int], rounds: int, seed: int) -> list[Compared]:
    """Times both ways in turn, with and without features in store.

    Raises:
        ValueError: the two ways give different scores, or the tasks are too small.
    """
    pair = pair_scorer(model)
    made: list[Compared] = []
    with tqdm(total=len(candidates) * (rounds + 1), unit="round", desc="bench",
              dynamic_ncols=True) as bar, tempfile.TemporaryDirectory() as folder:
        for number in candidates:
            asked = questions(bound, pictures, number, seed)
            want = Wants(ModelInfo.of(model))
            want.keys = {image: {Key(image, text) for text in texts}
                         for image, texts in asked.items()}
            batches = cut([want], None)
            hashes = features.file_hashes(root, list(asked))
            store = Path(folder) / "features"
            ways: dict[str, Callable[[], dict[Key, float]]] = {
                "loop": lambda asked=asked: {
                    Key(image, text): float(pair(root / image, text).logprob_sum)
                    for image, texts in asked.items() for text in texts},
                "ours": lambda batches=batches, hashes=hashes: _ours(
                    model, batches, root, Path(folder) / "out", None, hashes),
                "stored": lambda batches=batches, hashes=hashes, store=store: _ours(
                    model, batches, root, Path(folder) / "out", store, hashes),
            }
            scores = {name: way() for name, way in ways.items()}  # warms up and fills the store
            bar.update()
            # NumPy's maximum keeps a NaN, Python's may lose it.
            apart = {name: float(np.max([abs(scores["loop"][key] - own[key]) for key in own]))
                     for name, own in scores.items()}
            for name, most in apart.items():
                if not most <= SAME:
                    raise ValueError(f"{model.name}: the loop and {name} differ by {most:.2g} nats "
                                     f"at {number} candidates; {SAME:g} is accepted")
            timings: dict[str, list[Timing]] = {name: [] for name in ways}
            names = list(ways)
            for turn in range(rounds):
                shift = turn % len(names)
                for name in names[shift:] + names[:shift]:
                    timings[name].append(_timed(ways[name]))
                bar.update()
            made += [Compared(number, len(asked), name == "stored", timings["loop"], timings[name],
                              apart[name]) for name in ("ours", "stored")]
    return made


def _ours(model: Model, batches: Sequence[Batch], root: Path, out: Path, store: Path | None,
          hashes: dict[str, str]) -> dict[Key, float]:
    found: dict[Key, float] = {}
    asker = Asker(0, model, batches, root)
    kept = features.FeatureStore(store, model.handle.tower_hash, hashes)
    with parts.Part(out, 0) as part:
        for number, batch in enumerate(batches):
            rows = ask_batch(batch, {0: asker}, kept, root, Room())
            part.append(number, rows)
            for row in rows:
                record = ScoreRecord.from_json(row.row)
                assert record.logprob_sum is not None
                found[record.key] = record.logprob_sum
    parts.remove_parts(out)
    return found


def _timed(way: Callable[[], object]) -> Timing:
    cpu, wall = time.process_time(), time.perf_counter()
    way()
    return Timing(time.process_time() - cpu, time.perf_counter() - wall)


def table(compared: Sequence[Compared]) -> str:
    """One row a number of candidates and state of the store."""
    lines = [f"{'candidates':>10} {'pictures':>8} {'features':>8}   {'loop':>10} {'ours':>10}   "
             f"{'CPU ratio':<20} {'wall ratio':<20} {'largest':>10}",
             f"{'a picture':>10} {'':>8} {'':>8}   {'ms/picture':>10} {'ms/picture':>10}   "
             f"{'median [min, max]':<20} {'median [min, max]':<20} {'difference':>10}"]
    for row in compared:
        each = [1e3 * statistics.median(t.cpu_s for t in side) / row.pictures
                for side in (row.loop, row.ours)]
        lines.append(
            f"{row.candidates:>10} {row.pictures:>8} {'stored' if row.store else 'made':>8}   "
            f"{each[0]:>10.2f} {each[1]:>10.2f}   {_spread(row.ratios('cpu_s')):<20} "
            f"{_spread(row.ratios('wall_s')):<20} {row.difference:>10.1e}")
    lines.append("CPU time a picture; difference: of a summed log-probability, nats")
    return "\n".join(lines)


def _spread(ratios: Sequence[float]) -> str:
    return f"{statistics.median(ratios):.1f}x [{min(ratios):.1f}, {max(ratios):.1f}]"

"""What a page is made of: the models of a results folder, or the last ones of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks_eval.curves import FILE as SWEEP
from benchmarks_eval.curves import Sweep, read_sweep
from benchmarks_eval.outcomes import RESULTS, TRIALS, Judged, file_name, read_judged, read_results

# Distinct in hue and in lightness, so that they stay apart for the colour-blind and in print.
COLOURS = ("#0f766e", "#c2571a", "#4f46a5", "#8a6d00", "#b0276a", "#3b6ea5", "#57534e", "#7fa11f",
           "#8b3a1d", "#d17fb3")


@dataclass(frozen=True)
class Shown:
    """A model on the page."""

    label: str
    colour: str
    judged: Judged

    @property
    def kind(self) -> str:
        """contrastive, generative or letters."""
        return self.judged.kind

    @property
    def figures(self) -> list[dict[str, Any]]:
        """Its figures in ``results.json``."""
        return [figure for figure in self.judged.results["figures"]
                if figure["model"] == self.judged.model]

    @property
    def entry(self) -> dict[str, Any]:
        """What ``results.json`` says of the model."""
        return next(model for model in self.judged.results["models"]
                    if model["name"] == self.judged.model)


@dataclass(frozen=True)
class Side:
    """One of the page's two folders."""

    folder: Path
    models: tuple[Shown, ...]
    swept: Sweep | None = None
    title: str = ""

    @property
    def results(self) -> dict[str, Any]:
        """The tree of the first model's ``results.json``."""
        return self.models[0].judged.results

    def titled(self, title: str, first: int) -> Side:
        """The same with ``title`` before every label, and colours from number ``first`` on."""
        return replace(self, title=title, models=tuple(
            replace(one, label=f"{title} {one.label}", colour=COLOURS[(first + k) % len(COLOURS)])
            for k, one in enumerate(self.models)))


def read_side(path: str | Path) -> Side:
    """Reads a results folder, one model's folder in it, or a sweep.

    A sweep stands for the last checkpoint of each kind of model; its curves come with it.

    Raises:
        ValueError: nothing finished there.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    if (folder / SWEEP).is_file():
        return _sweep(folder)
    if (folder / RESULTS).is_file():
        inside = [folder / entry.get("file_name", file_name(entry["name"]))
                  for entry in read_results(folder / RESULTS)["models"]]
        judged = [read_judged(child) for child in inside if (child / TRIALS).is_file()]
        if not judged:
            raise ValueError(f"{folder}: no model's {TRIALS} here; `run` or `rescore --out` "
                             f"writes them")
    else:
        judged = [read_judged(folder)]
    return Side(folder, tuple(Shown(one.model, COLOURS[k % len(COLOURS)], one)
                              for k, one in enumerate(judged)))


def _sweep(folder: Path) -> Side:
    swept = read_sweep(folder)
    last = {place.kind: place for place in swept.checkpoints}  # by step: the last one stays
    return Side(folder, tuple(
        Shown(f"{kind}, step {place.step:,}", COLOURS[k % len(COLOURS)],
              read_judged(folder / place.folder))
        for k, (kind, place) in enumerate(last.items())), swept)


"""Names of models in tables and folders, where results go, what a model card is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks_eval.models.spec import parse


def display_names(specs: Sequence[str]) -> list[str]:
    """Short distinct names: the parts that tell the models apart, 'model' left out.

    Example: ``runs/a/contrastive/model`` and ``runs/a/generative/model`` become ``contrastive``
    and ``generative``; ``noise:runs/a/generative/model`` becomes ``noise-generative``.
    """
    split = [parse(spec).name_parts for spec in specs]
    for length in range(1, max((len(parts) for parts in split), default=1) + 1):
        names = ["/".join(parts[-length:]) for parts in split]
        if len(set(names)) == len(names):
            return names
    return [str(spec) for spec in specs]


def output_folder(spec: str, suite: str) -> Path:
    """Where results go unless told: ``<run>/eval/<suite>`` for ``<run>/<kind>/model`` (or what
    wraps it), ``runs/<name>/eval/<suite>`` for models that are no run of ours."""
    folder = parse(spec).folder
    if folder is None:
        run = Path("runs") / display_names([spec])[0]
    else:
        run = folder.parent.parent if folder.name == "model" else folder.parent
    return run / "eval" / suite


def card_scores(suite: str, version: int,
                figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What ``record_scores`` is given: suite -> version and figures by ``task/figure``."""
    kept = ("value", "low", "high", "n", "chance", "floor", "unit")
    rows = {f"{f['task']}/{f['figure']}": {key: f[key] for key in kept} for f in figures}
    return {suite: {"version": version, "figures": rows}}

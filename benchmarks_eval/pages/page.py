"""From results on disk to one HTML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks_eval.breakdowns.report import Sources
from benchmarks_eval.compare import differences as what_differs
from benchmarks_eval.curves import AXES, ONSET_RULE
from benchmarks_eval.pages.charts import charts
from benchmarks_eval.pages.details import details
from benchmarks_eval.pages.diff import differences
from benchmarks_eval.pages.headline import beside_published, groups
from benchmarks_eval.pages.pictures import Pictures
from benchmarks_eval.pages.sides import Side
from benchmarks_eval.pages.trials import samples, stories
from benchmarks_eval.published import load_published
from benchmarks_eval.records import write_atomically

FILE = "report.html"
DIFFERENCE = "difference.html"
"""Page of two runs."""
TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class Wishes:
    """What is to be on the page."""

    published: bool = False
    """Figures that others have published."""
    pictures: bool | None = None
    """None: where the task file shows them; True: always; False: never."""
    root: Path | None = None
    """Data folder, where it is not the run's any more."""
    every: bool = False
    """The difference of all figures, not only of the main ones."""
    common: bool = False
    """Where the trials of two runs differ, compare those that both have."""
    seed: int = 0
    sources: Sources = field(default_factory=Sources)


def write_report(path: Path, one: Side, other: Side | None = None,
                 wishes: Wishes | None = None) -> Path:
    """Writes the page atomically and returns its path."""
    write_atomically(path, render(one, other, wishes or Wishes()))
    return path


def render(one: Side, other: Side | None, wishes: Wishes) -> str:
    """The page as a string; it loads nothing from anywhere.

    Args:
        one: a run, or a sweep.
        other: what it is compared with.
        wishes: what is to be on the page.

    Raises:
        ValueError: a picture is missing, or the two have nothing in common.
    """
    if other is not None:
        one, other = one.titled("A", 0), other.titled("B", len(one.models))
    shown = [*one.models, *(other.models if other is not None else ())]
    suite = one.results["suite"]
    pictures = Pictures(*_pictures(one, other, wishes))
    headline = groups(shown)
    differ = [] if other is None else differences(
        one, other, pictures, every=wishes.every, common=wishes.common, seed=wishes.seed)
    sweeps = [{"title": side.title, "swept": side.swept, "charts": charts(side)}
              for side in (one, other) if side is not None and side.swept is not None]
    context: dict[str, Any] = {
        "suite": suite, "options": one.results["options"], "models": shown, "other": other,
        "groups": headline, "letters": any(model.kind == "letters" for model in shown),
        "generative": any(model.kind == "generative" for model in shown),
        "sweeps": sweeps, "axes": AXES, "onset_rule": ONSET_RULE, "differences": differ,
        "published": beside_published(shown, suite["name"], load_published())
        if wishes.published else None,
        "details": details(shown, wishes.sources, wishes.seed),
        "samples": samples(shown, pictures), "stories": stories(shown, pictures),
        "pictures": pictures.shown,
        "notes": list(dict.fromkeys(what_differs([model.judged for model in shown]))),
        "style": (TEMPLATES / "style.css").read_text(encoding="utf-8"),
    }
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              undefined=StrictUndefined, loader=FileSystemLoader(TEMPLATES))
    return environment.get_template("page.html.j2").render(context)


def _pictures(one: Side, other: Side | None, wishes: Wishes) -> tuple[Path, bool]:
    """Where pictures lie and whether they may be shown: where every suite on the page shows its
    own, or on demand."""
    trees = [model.judged.results for side in (one, other) if side is not None
             for model in side.models]
    shown = wishes.pictures
    if shown is None:
        shown = all(tree["suite"]["show_pictures"] for tree in trees)
    roots = list(dict.fromkeys(tree["root"] for tree in trees))
    if shown and wishes.root is None and len(roots) > 1:
        raise ValueError(f"the pictures of the two runs lie in {' and in '.join(roots)}: say which "
                         f"with --root, or leave them out with --no-pictures")
    return wishes.root or Path(roots[0]), shown

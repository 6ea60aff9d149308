"""Results for people and programs: the terminal table, sample captions, results.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks_eval.figures import Figure
from benchmarks_eval.judge import Results, Swept
from benchmarks_eval.notable import Sample
from benchmarks_eval.plan import ModelInfo
from benchmarks_eval.records import write_atomically

ABOVE = "*"
PRINTED_SAMPLES = 4
NUMBERS = 24
"""Columns of the table for n, chance and blind."""
NO_TERMINAL = 160
"""Columns of the table where it is written to a file."""


def number(value: float, unit: str) -> str:
    """.712 for shares and scores, +0.41 for nats; a share of exactly 1 stays 1.00."""
    if unit not in ("share", "score"):
        return _signed(value)
    text = f"{value:.3f}"
    return text[1:] if text.startswith("0") else text[:4]


def short(value: float, unit: str) -> str:
    """The same with two digits, for the ends of intervals."""
    if unit not in ("share", "score"):
        return _signed(value)
    text = f"{value:.2f}"
    return text[1:] if text.startswith("0") else text


def _signed(value: float) -> str:
    return f"{round(value, 2) + 0.0:+.2f}"  # adding zero turns -0.00 into +0.00


def cell(figure: Figure) -> str:
    """``.712* [.66, .76] 3t 0n``: value, 95 % interval, a star when it lies above the blind floor,
    trials that a tie decides, trials with a score that is not finite."""
    interval = f"[{short(figure.low, figure.unit)}, {short(figure.high, figure.unit)}]"
    star = ABOVE if figure.above_floor else " "
    return (f"{number(figure.value, figure.unit)}{star} {interval:<11} {figure.ties}t "
            f"{figure.nonfinite}n")


def rows_of(figures: Iterable[Figure]) -> dict[tuple[str, str], list[Figure]]:
    """Figures by (task, figure), in order: the rows of a table."""
    rows: dict[tuple[str, str], list[Figure]] = {}
    for figure in figures:
        rows.setdefault((figure.task, figure.figure), []).append(figure)
    return rows


def table(results: Results) -> str:
    """The terminal table: as many models side by side as the terminal has room for."""
    rows = rows_of(results.figures)
    left = max([len(f"  {task}  {figure}") for task, figure in rows] + [24])
    cells = {(figure.task, figure.figure, figure.model): cell(figure)
             for figure in results.figures}
    width = max([24, *map(len, map(_head, results.models)), *map(len, cells.values())])
    room = shutil.get_terminal_size(fallback=(NO_TERMINAL, 0)).columns - left - NUMBERS
    count = max(1, room // (width + 2))
    lines: list[str] = []
    for first in range(0, len(results.models), count):
        lines += [*_block(results, results.models[first:first + count], rows, cells, left, width),
                  ""]
    return "\n".join([*lines, *_legend(results)])


def _head(model: ModelInfo) -> str:
    return f"{model.name} (letters)" if model.kind == "letters" else model.name


def _block(results: Results, models: Sequence[ModelInfo],
           rows: Mapping[tuple[str, str], list[Figure]], cells: Mapping[tuple[str, str, str], str],
           left: int, width: int) -> list[str]:
    head = f"{'':<{left}} {'n':>6} {'chance':>7} {'blind':>6}  "
    lines = [head + "  ".join(f"{_head(model):<{width}}" for model in models).rstrip()]
    lines.append("─" * max(len(lines[0]), len(head) + len(models) * (width + 2) - 2))
    group = None
    task_before = ""
    for (task, name), figures in rows.items():
        shown = [cells.get((task, name, model.name)) for model in models]
        if not any(shown):
            continue  # a figure of other models
        first = figures[0]
        if first.group != group:
            group = first.group
            lines.append(group or results.suite.name)
        label = task if task != task_before else " " * len(task)
        task_before = task
        lines.append((f"{f'  {label}  {name}':<{left}} {first.n:>6} "
                      f"{number(first.chance, first.unit):>7} {_floor(figures):>6}  "
                      + "  ".join(f"{one or '–':<{width}}" for one in shown)).rstrip())
    return lines


def _legend(results: Results) -> list[str]:
    lines = [f"{ABOVE} the 95 % interval lies above the blind floor: the best of chance, a "
             f"constant answer and text-only models.",
             "t: trials that equal scores decide, n: trials with a score that is not finite "
             "(wrong)."]
    if results.options.score.ties != "share":
        worth = {"strict": "count as wrong", "first": "count for the first candidate of the file, "
                 "the right one, as the published scorer has it"}[results.options.score.ties]
        lines.append(f"Ties {worth}: constant answers are no longer at chance.")
    if any(model.kind == "letters" for model in results.models):
        lines.append("(letters): shares among the options of a trial, such as the letters that a "
                     "chat model names: another kind of measurement than likelihoods.")
    return lines


def sweep_table(swept: Sequence[Swept]) -> str:
    """Text-choice figures by alpha, one row a task and model."""
    if not swept:
        return ""
    alphas = list(swept[0].shares)
    left = max(len(f"  {row.task}  {row.model}") for row in swept)
    lines = ["Share right when alpha times the text's own log-likelihood is taken off",
             f"{'':<{left}} {'n':>6} {'chance':>7} {'mean':>6}"
             + "".join(f"{f'a={alpha:g}':>8}" for alpha in alphas)]
    for row in swept:
        lines.append(f"{f'  {row.task}  {row.model}':<{left}} {row.n:>6} "
                     f"{number(row.chance, 'share'):>7} {number(row.mean, 'share'):>6}"
                     + "".join(f"{number(row.shares[a], 'share'):>8}" for a in alphas))
    lines.append("mean: per token, nothing taken off. Alpha chosen on the same trials flatters; "
                 "choose it on others.")
    return "\n".join(lines)


def _floor(figures: Sequence[Figure]) -> str:
    # Shuffled-caption floors belong to a model; the table shows the highest.
    return number(max(figure.floor for figure in figures), figures[0].unit)


def sample_lines(samples: Sequence[Sample], root: Path, per_group: int = PRINTED_SAMPLES) -> str:
    """A few pictures with the reference and what each generative model says."""
    lines: list[str] = []
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.captions:
            groups.setdefault(sample.group or sample.task, []).append(sample)
    for group, members in groups.items():
        lines.append(f"Captions for pictures of {group}")
        step = max(1, len(members) // per_group)
        for sample in members[::step][:per_group]:
            lines.append(f"  {root / sample.image}")
            lines.append(f"    people say   {' / '.join(sample.references)}")
            lines += [f"    {name} says   {' '.join(caption.split()) or '(nothing)'}"
                      for name, caption in sample.captions.items()]
    return "\n".join(lines)


def write_results(results: Results, out: Path) -> Path:
    """Writes ``results.json`` atomically and returns its path."""
    path = out / "results.json"
    text = json.dumps(results.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, text + "\n")
    return path

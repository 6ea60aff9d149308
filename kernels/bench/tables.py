"""Markdown tables from result files, and the part of a README that is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .gates import best_peer, evaluate, headline
from .results import Report, Row
from .run import CANARY

__all__ = ["BEGIN", "END", "refuse_smoke", "render", "update_readme"]

BEGIN = "<!-- kernels.bench: begin -->"
END = "<!-- kernels.bench: end -->"
_UNSTEADY = 1.15
"""Canary p80 / p20 above which a case's times are marked: clocks or neighbours moved."""


def refuse_smoke(reports: Sequence[Report], path: Path) -> None:
    """Refuse numbers of tiny problems.

    Raises:
        ValueError: a report is marked smoke.
    """
    if any(report.smoke for report in reports):
        raise ValueError(
            f"{path}: holds smoke numbers, which say nothing about speed; --smoke takes them anyway"
        )


def render(reports: Sequence[Report]) -> str:
    """Return everything as markdown: where it was measured, times, host and memory, targets."""
    blocks = [_where(report) for report in reports]
    for op in dict.fromkeys(row.op for report in reports for row in report.rows):
        blocks.append(f"**{op}**: time, cold cache, median (20 to 80 %)\n\n{_times(reports, op)}")
        costs = _costs(reports, op)
        if costs:
            blocks.append(f"**{op}**: host time a call and peak memory\n\n{costs}")
        left_out = _left_out(reports, op)
        if left_out:
            blocks.append(left_out)
    blocks.append(f"**Targets**\n\n{_targets(reports)}")
    return "\n\n".join(blocks)


def _where(report: Report) -> str:
    head = report.header
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    commit = head["commit"][:12] + (" with changes" if head.get("dirty") else "")
    text = (
        f"{head['device']}, {head['dtype']}, {head['date'][:10]}, commit {commit}: copy "
        f"{head['copy_bytes_per_s'] / 1e12:.3g} TB/s, product "
        f"{head['matmul_flops_per_s'] / 1e12:.3g} TFLOP/s. {versions}."
    )
    return f"**Smoke run on tiny problems, not a measurement.** {text}" if report.smoke else text


def _times(reports: Sequence[Report], op: str) -> str:
    lines = [
        "| case | mode | ours, ms | warm, ms | floor, ms | of copy rate | of product rate "
        "| best peer | ratio | all peers, ms |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|---|",
    ]
    notes: dict[str, int] = {}
    for report in reports:
        rows = [
            row for row in report.find(op=op, metric="time", cache="cold") if row.provider != CANARY
        ]
        for case, mode in dict.fromkeys((row.case, row.mode) for row in rows):
            ours, best = headline(report, op, case, mode), best_peer(report, op, case, mode)
            others = [row for row in rows if (row.case, row.mode) == (case, mode)]
            others = sorted((row for row in others if row is not ours), key=lambda r: r.p50 or 0.0)
            any_row = ours or others[0]
            mark = "" if _steady(report, op, case) else " ‡"
            lines.append(
                f"| {case}{mark} | {mode} | {_ours(ours)} | {_warm(report, ours)} "
                f"| {_number(any_row.floor_ms)} "
                f"| {_percent(ours and ours.share_of_copy)} "
                f"| {_percent(ours and ours.share_of_matmul)} "
                f"| {_name(best, notes) if best else '–'} | {_ratio(ours, best)} "
                f"| {' · '.join(f'{_name(row, notes)} {_number(row.p50)}' for row in others)} |"
            )
    footer = [f"{_superscript(number)} {text}" for text, number in notes.items()]
    if any(" ‡ |" in line for line in lines):
        footer.append(f"‡ unsteady: the canary's 80th percentile is over {_UNSTEADY}× its 20th")
    return "\n".join(lines) + ("\n\n" + "; ".join(footer) + "." if footer else "")


def _ours(row: Row | None) -> str:
    if row is None:
        return "–"
    return f"{row.provider} **{_number(row.p50)}** ({_number(row.p20)}–{_number(row.p80)})"


def _warm(report: Report, row: Row | None) -> str:
    """The same with a warm cache."""
    if row is None:
        return "–"
    found = report.find(
        op=row.op, case=row.case, provider=row.provider, mode=row.mode, metric="time", cache="warm"
    )
    return _number(found[0].p50 if found else None)


def _ratio(ours: Row | None, best: Row | None) -> str:
    if ours is None or best is None or not ours.p50 or best.p50 is None:
        return "–"
    return f"{best.p50 / ours.p50:.2f}×"


def _name(row: Row, notes: dict[str, int]) -> str:
    said = "; ".join(text for text in (row.computes, row.note) if text)
    if not said:
        return row.provider
    return row.provider + _superscript(notes.setdefault(said, len(notes) + 1))


def _superscript(number: int) -> str:
    return "".join("⁰¹²³⁴⁵⁶⁷⁸⁹"[int(digit)] for digit in str(number))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value < 10 else f"{value:,.1f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _steady(report: Report, op: str, case: str) -> bool:
    rows = report.find(op=op, case=case, provider=CANARY)
    return all(row.config.get("spread", 1.0) <= _UNSTEADY for row in rows)


def _costs(reports: Sequence[Report], op: str) -> str:
    lines: list[str] = []
    for report in reports:
        keys = dict.fromkeys(
            (row.case, row.provider)
            for row in report.rows
            if row.op == op and row.metric in ("host", "memory")
        )
        modes = dict.fromkeys(row.mode for row in report.find(op=op, metric="host"))
        if keys and not lines:
            titles = [f"{mode} host, µs | {mode} memory, MB" for mode in modes]
            lines = [f"| case | provider | {' | '.join(titles)} |"]
            lines.append("|---|---|" + "--:|--:|" * len(modes))
        for case, provider in keys:
            cells = []
            for mode in modes:
                for metric, unit in (("host", 1.0), ("memory", 1e6)):
                    found = report.find(
                        op=op, case=case, provider=provider, mode=mode, metric=metric
                    )
                    value = found[0].p50 if found else None
                    cells.append("–" if value is None else f"{value / unit:,.1f}")
            lines.append(f"| {case} | {provider} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _left_out(reports: Sequence[Report], op: str) -> str:
    """Say why peers have no number: one line a reason."""
    reasons: dict[str, list[str]] = {}
    for report in reports:
        for row in report.find(op=op, metric="none"):
            cases = reasons.setdefault(f"{row.provider} {row.gate}: {row.detail}", [])
            if row.case not in cases:
                cases.append(row.case)
    lines = [f"- {reason} ({', '.join(cases)})" for reason, cases in reasons.items()]
    return "Without a number:\n\n" + "\n".join(lines) if lines else ""


def _targets(reports: Sequence[Report]) -> str:
    lines = ["| target | gate | stretch | measured | verdict |", "|---|--:|--:|--:|---|"]
    for outcome in evaluate(reports):
        sign = "≥" if outcome.target.at_least else "≤"

        def bound(value: float | None, sign: str = sign) -> str:
            return "" if value is None else f"{sign} {value:g}"

        measured = "–" if outcome.value is None else f"{outcome.value:.3g}"
        note = f" ({outcome.note})" if outcome.note else ""
        lines.append(
            f"| {outcome.target.name} | {bound(outcome.target.gate)} "
            f"| {bound(outcome.target.stretch)} | {measured} | {outcome.verdict}{note} |"
        )
    return "\n".join(lines)


def update_readme(path: Path, text: str) -> bool:
    """Replace what stands between the two markers.

    Args:
        path: a file with the lines `BEGIN` and `END`, in this order.
        text: what goes between them.

    Returns:
        Whether the file changed.

    Raises:
        ValueError: the file or a marker is missing.
    """
    try:
        old = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"--readme: {path}: {error.strerror}") from None
    if old.count(BEGIN) != 1 or old.count(END) != 1 or old.index(BEGIN) > old.index(END):
        raise ValueError(f"--readme: {path} needs one line {BEGIN} and after it one line {END}")
    head, tail = old[: old.index(BEGIN)], old[old.index(END) :]
    new = f"{head}{BEGIN}\n\n{text}\n\n{tail}"
    if new != old:
        path.write_text(new, encoding="utf-8")
    return new != old

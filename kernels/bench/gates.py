"""The targets, as data, and whether a set of reports meets them.

A target compares our time (cold cache, median) with a peer's, with another case of ours, with a
limit, or with the measured copy rate. Ratios are taken inside one report: one process, interleaved.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .results import Report, Row

__all__ = ["Outcome", "Target", "best_peer", "evaluate", "headline", "targets"]

_MODULES = (
    "attention_gates", "cross_entropy_gates", "pairs_gates", "row_op_gates",
    "augment_gates", "embedding_gates", "adamw_gates",
)  # fmt: skip
"""Where the targets of each op stand, in a tuple ``TARGETS``."""

Kind = Literal["ratio", "limit", "copy share", "per byte"]


@dataclass(frozen=True)
class Target:
    """One line of the list of targets.

    ``ratio``: time of ``peer`` (``best``: the fastest there is) over ours, at least ``gate``.
    ``limit``: our ``metric`` at most ``gate``. ``copy share``: share of the copy rate, at least.
    ``per byte``: our time a byte over that on the case ``peer``, at most.
    ``gate`` is what must hold, ``stretch`` what is aimed for; None where there is none.
    """

    name: str
    kind: Kind
    case: str
    mode: str
    gate: float | None
    stretch: float | None = None
    peer: str = ""
    op: str = "attention"
    metric: str = "time"

    @property
    def at_least(self) -> bool:
        """Whether more is better."""
        return self.kind in ("ratio", "copy share")


@dataclass(frozen=True)
class Outcome:
    """A target beside what was measured; ``value`` None: not measured, ``note`` says why."""

    target: Target
    value: float | None
    note: str = ""

    def holds(self, bound: float | None) -> bool:
        """Whether the value satisfies a bound."""
        if self.value is None or bound is None:
            return False
        return self.value >= bound if self.target.at_least else self.value <= bound

    @property
    def verdict(self) -> str:
        """``met``, ``met, stretch too``, ``missed`` or ``not measured``."""
        if self.value is None:
            return "not measured"
        if self.target.gate is None:
            return "stretch met" if self.holds(self.target.stretch) else "stretch missed"
        if not self.holds(self.target.gate):
            return "missed"
        return "met, stretch too" if self.holds(self.target.stretch) else "met"


def targets() -> tuple[Target, ...]:
    """Return the targets of all ops, in the order of their modules."""
    found = (importlib.import_module(f"{__package__}.{name}").TARGETS for name in _MODULES)
    return tuple(target for listed in found for target in listed)


def headline(report: Report, op: str, case: str, mode: str, metric: str = "time") -> Row | None:
    """Return our row of a case: of ours the first that was measured, cold."""
    cache = "cold" if metric == "time" else ""
    found = report.find(op=op, case=case, mode=mode, metric=metric, cache=cache, ours=True)
    return found[0] if found else None


def best_peer(report: Report, op: str, case: str, mode: str) -> Row | None:
    """Return the fastest row of others' implementations on a case, cold."""
    found = report.find(op=op, case=case, mode=mode, metric="time", cache="cold", ours=False)
    found = [row for row in found if row.provider != "canary"]
    return min(found, key=lambda row: row.p50 or 0.0) if found else None


def evaluate(reports: Sequence[Report]) -> list[Outcome]:
    """Return each target's outcome: its worst among the GPU reports that hold what it needs."""
    return [_evaluate(reports, target) for target in targets()]


def _evaluate(reports: Sequence[Report], target: Target) -> Outcome:
    why = "no GPU report"
    found: list[Outcome] = []
    for report in reports:
        if report.header.get("device_type") != "cuda" or report.smoke:
            continue
        outcome = _in_report(report, target)
        if outcome.value is None:
            why = outcome.note
        else:
            found.append(outcome)
    if not found:
        return Outcome(target, None, why)
    worst = min if target.at_least else max
    return worst(found, key=lambda outcome: outcome.value or 0.0)


def _in_report(report: Report, target: Target) -> Outcome:
    ours = headline(report, target.op, target.case, target.mode, target.metric)
    if ours is None or not ours.p50:
        return Outcome(target, None, _missing(report, target, ""))
    if target.kind == "limit":
        return Outcome(target, ours.p50, ours.provider)
    if target.kind == "copy share":
        return Outcome(target, ours.share_of_copy, ours.provider)
    if target.kind == "per byte":
        other = headline(report, target.op, target.peer, target.mode)
        if other is None or not other.p50 or not ours.bytes or not other.bytes:
            return Outcome(target, None, f"{target.peer} not measured")
        value = (ours.p50 / ours.bytes) / (other.p50 / other.bytes)
        return Outcome(target, value, ours.provider)
    peer = _peer_row(report, target)
    if peer is None or peer.p50 is None:
        return Outcome(target, None, _missing(report, target, target.peer))
    return Outcome(target, peer.p50 / ours.p50, _against(peer))


def _peer_row(report: Report, target: Target) -> Row | None:
    if target.peer == "best":
        return best_peer(report, target.op, target.case, target.mode)
    found = report.find(
        op=target.op, case=target.case, mode=target.mode, provider=target.peer, metric="time",
        cache="cold",
    )  # fmt: skip
    return found[0] if found else None


def _against(peer: Row) -> str:
    return f"{peer.provider}, {peer.computes}" if peer.computes else peer.provider


def _missing(report: Report, target: Target, provider: str) -> str:
    """Say why a provider (empty: ours) has no number on the target's case."""
    wanted = {"op": target.op, "case": target.case, "metric": "none"}
    rows = report.find(**wanted, **({"provider": provider} if provider else {"ours": True}))
    if rows:
        return f"{rows[0].provider} {rows[0].gate}: {rows[0].detail}"
    return " ".join(word for word in (provider, "not measured on", target.case) if word)

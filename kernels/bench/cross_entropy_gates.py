"""The targets of linear cross-entropy and of scoring, as data."""

from __future__ import annotations

from .gates import Target

__all__ = ["TARGETS"]

_WHO = {
    "best": "the best peer",
    "liger": "Liger-Kernel",
    "every_row": "a loss in every row",
    "one_product": "the product alone",
}


def _ratio(
    case: str, peer: str, gate: float, stretch: float | None = None, *, scoring: bool = False
) -> Target:
    op, mode = ("linear_logprobs", "fwd") if scoring else ("linear_cross_entropy", "fwd+bwd")
    name = f"{case} {'scoring' if scoring else 'cross-entropy'} against {_WHO[peer]}"
    return Target(name, "ratio", case, mode, gate, stretch, peer, op=op)


def _memory(case: str) -> Target:
    return Target(
        f"{case} fwd+bwd, extra bytes (1 GiB)", "limit", case, "fwd+bwd", float(1 << 30),
        op="linear_cross_entropy", metric="memory",
    )  # fmt: skip


TARGETS: tuple[Target, ...] = (
    _ratio("GPT2", "best", 1.0),
    _ratio("GPT2", "liger", 3.0),
    # 1.17 of three products at 790 TFLOP/s.
    Target("GPT2 fwd+bwd, ms", "limit", "GPT2", "fwd+bwd", None, 22.5, op="linear_cross_entropy"),
    _memory("GPT2"),
    # At most 0.19 of the time of all rows, for 0.15 of them.
    _ratio("GPT2-15%", "every_row", 1 / 0.19),
    _memory("GPT2-15%"),
    _ratio("NARROW", "best", 1.3, 2.0),
    _memory("NARROW"),
    _ratio("BABY", "best", 1.3, 2.0),
    _memory("BABY"),
    # At most 1.25 of its time, 1.12 as an aim.
    _ratio("GPT2", "one_product", 1 / 1.25, 1 / 1.12, scoring=True),
    _ratio("BABY", "one_product", 1 / 1.25, 1 / 1.12, scoring=True),
)

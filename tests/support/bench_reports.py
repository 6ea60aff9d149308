"""Reports as a GPU would have given them, with invented numbers, for tables, gates and pictures."""

from __future__ import annotations

from typing import Any

import torch

from kernels.bench import load_ops
from kernels.bench.cases import cases, find_op
from kernels.bench.results import METRICS, Report, Row
from kernels.bench.roofline import Ceilings, floor_ms, shares

CEILINGS = Ceilings(4.3e12, 790e12)
# How many times slower than the floor each invented implementation is.
SLOWER = {
    "triton": 1.3,
    "varlen": 2.9,
    "flex": 6.0,
    "sdpa_cudnn": 3.1,
    "sdpa_flash": 3.5,
}


def header(**changes: Any) -> dict[str, Any]:
    return {
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "date": "2026-01-02T03:04:05Z",
        "smoke": False,
        "device": "Invented GPU",
        "device_type": "cuda",
        "dtype": "bfloat16",
        "copy_bytes_per_s": CEILINGS.copy_bytes_per_s,
        "matmul_flops_per_s": CEILINGS.matmul_flops_per_s,
        "versions": {"torch": "2.11.0", "triton": "3.6.0"},
        **changes,
    }


def row(op: str, case: str, provider: str, mode: str, p50: float, **changes: Any) -> Row:
    metric = changes.pop("metric", "time")
    cache = changes.pop("cache", "cold" if metric == "time" else "")
    return Row(
        op, case, provider, mode, cache, metric, METRICS[metric], "green",
        p20=p50 * 0.98, p50=p50, p80=p50 * 1.03, n=50, **changes,
    )  # fmt: skip


def report(slower: dict[str, float] | None = None, **head: Any) -> Report:
    """Every attention case, fwd, bwd and both, and the intervals of P1."""
    load_ops()
    rows: list[Row] = []
    for case in cases("attention"):
        spec = case.spec("full")
        for mode, work in find_op("attention").work(spec, torch.bfloat16).items():
            floor = floor_ms(work, CEILINGS)
            for provider, factor in (slower or SLOWER).items():
                if provider == "sdpa_flash" and case.name == "W":
                    continue
                copy, matmul = shares(work, floor * factor, CEILINGS)
                causal = provider == "varlen" and spec.prefix is not None
                rows.append(
                    row(
                        "attention", case.name, provider, mode, floor * factor,
                        ours=provider == "triton", floor_ms=floor, bytes=work.bytes,
                        flops=work.flops, share_of_copy=copy, share_of_matmul=matmul,
                        computes="causal on the same documents" if causal else "",
                    )
                )  # fmt: skip
        rows.append(row("attention", case.name, "triton", "fwd", 0.05, cache="warm", ours=True))
        rows.append(row("attention", case.name, "canary", "", 0.2, config={"spread": 1.01}))
    for mode, cost in (("fwd", 21.0), ("bwd", 36.0)):
        rows.append(row("attention", "P1", "triton", mode, cost, metric="host", ours=True))
        rows.append(row("attention", "P1", "triton", mode, 4.2e8, metric="memory", ours=True))
    rows.append(row("intervals", "P1", "intervals", "build", 0.006, ours=True, floor_ms=0.0003))
    rows.append(
        Row("attention", "P1", "flash_attn_4", "", "", "none", "", "unavailable",
            detail="flash-attn-4 is not installed")
    )  # fmt: skip
    return Report(header(**head), rows)

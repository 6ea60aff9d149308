"""Where the cases of each op come from; nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
from typing import Any

from .cases import CompileCase, require_compiler

__all__ = ["PROVIDERS", "all_cases"]

PROVIDERS = {
    "attention": "kernels.attention_triton.offline",
    "intervals": "kernels.intervals_triton",
    "cross_entropy": "kernels.cross_entropy.offline",
    "pairs": "kernels.pairs.offline",
    "norm": "kernels.rows.norm_offline",
    "activations": "kernels.rows.activations_offline",
    "rotary": "kernels.rows.rotary_offline",
    "embedding": "kernels.embedding.offline",
    "adamw": "kernels.optimizer.offline",
    "augment": "kernels.augment.offline",
}
"""Op to the module whose ``offline_cases()`` lists its cases."""


def all_cases(op: str | None = None) -> list[CompileCase]:
    """Return the cases of one op, or of all.

    Raises:
        ValueError: no such op.
        RuntimeError: in a process that interprets.
    """
    require_compiler()
    if op is not None and op not in PROVIDERS:
        raise ValueError(f"op: one of {', '.join(PROVIDERS)} expected, got {op!r}")
    found: list[CompileCase] = []
    for name, module in PROVIDERS.items():
        if op in (None, name):
            listed = importlib.import_module(module).offline_cases()
            found += [_case(name, item) for item in listed]
    return found


def _case(op: str, item: CompileCase | dict[str, Any]) -> CompileCase:
    """A small kernel may list its cases as plain dicts, free of this package."""
    if isinstance(item, CompileCase):
        return item
    kernel = item["fn"].__name__.removesuffix("_kernel")
    return CompileCase(
        op=op,
        kernel=kernel,
        fn=item["fn"],
        signature=item["signature"],
        constexprs=item["constexprs"],
        attrs=item["attrs"],
        options={"num_warps": item["num_warps"], "num_stages": item["num_stages"]},
        expect=item["expect"],
        variant=item["name"].removeprefix(f"{kernel}_"),
    )

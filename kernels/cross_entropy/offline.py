"""What of linear cross-entropy is compiled offline: every frozen row, in all that it serves.

Recorded from the launch code itself, so with the types, alignments and constants that a GPU sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..offline.cases import CompileCase, Expect, case_of, record
from .chunks import Options, Problem
from .fused import fused_losses
from .kernel import ROW_MULTIPLE, row_step, scaled
from .table import PARTS, fused_config, row_frozen

__all__ = ["offline_cases"]

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
ROWS = 1024
# Most columns of a row of the table to vocabularies that it serves, round and odd.
_VOCABULARIES = {4_096: (2_350, 2_048), 16_384: (9_001,), 1 << 31: (50_257, 50_304)}
# What leaves the table's row undressed, and what dresses it.
_PLAIN: dict[str, dict[str, Any]] = {
    "base": {},
    "upstream": {"upstream": True},
    "losses alone": {"gradient": False},
    "ignored": {"ignored": -100},
    "z-loss": {"z_loss": 1e-4},
    "ignored z-loss upstream": {"ignored": -100, "z_loss": 1e-4, "upstream": True},
}
_DRESSED: dict[str, dict[str, Any]] = {
    "class": {"class_weight": True},
    "bias": {"bias": True},
    "softcap": {"softcap": 30.0},
    "smoothing": {"smoothing": 0.1},
    "smoothing class": {"smoothing": 0.1, "class_weight": True},
    "softcap upstream": {"softcap": 30.0, "upstream": True},
    "bias softcap smoothing class z-loss": {
        "bias": True, "softcap": 30.0, "smoothing": 0.1, "class_weight": True, "z_loss": 1e-4,
    },
    "all": {
        "bias": True, "softcap": 30.0, "smoothing": 0.1, "class_weight": True, "z_loss": 1e-4,
        "ignored": -100, "upstream": True,
    },
}  # fmt: skip


def _options(given: dict[str, Any]) -> Options:
    names = ("softcap", "z_loss", "smoothing", "ignored")
    return Options(**{name: given[name] for name in names if name in given})


def _vector(given: dict[str, Any], name: str, size: int, dtype: torch.dtype) -> Tensor | None:
    return torch.empty(size, dtype=dtype) if given.get(name) else None


def _rows(vocab: int, dtype: torch.dtype, given: dict[str, Any]) -> None:
    stride = -(-vocab // ROW_MULTIPLE) * ROW_MULTIPLE
    logits = torch.empty(ROWS, stride, dtype=dtype)[:, :vocab]
    upstream = _vector(given, "upstream", ROWS, FP32)
    class_weight = _vector(given, "class_weight", vocab, FP32)
    row_step(
        logits,
        torch.empty(ROWS, dtype=torch.int64),
        _vector(given, "bias", vocab, dtype),
        class_weight,
        None if class_weight is None else torch.empty(1),
        upstream,
        None if upstream is not None else torch.empty(ROWS),
        _options(given),
        given.get("gradient", True),
    )


def _fused(rows: int, width: int, vocab: int, dtype: torch.dtype, given: dict[str, Any]) -> None:
    problem = Problem(
        torch.empty(rows, width, dtype=dtype),
        torch.empty(vocab, width, dtype=dtype),
        torch.empty(rows, dtype=torch.int64),
        None,
        _vector(given, "bias", vocab, dtype),
        _vector(given, "class_weight", vocab, FP32),
        _options(given),
    )
    fused_losses(problem, negative=given.get("negative", False))


def _cases(
    kernel: str,
    expect: Expect,
    row: tuple[str | int, ...],
    variant: str,
    launch: Any,
    quick: bool = False,
) -> CompileCase:
    found = [one for one in record(launch) if one.fn.__name__ == f"{kernel}_kernel"]
    if len(found) != 1:
        raise RuntimeError(f"{kernel}: its launch made {len(found)} calls of it")
    row = (kernel, *row)
    return case_of(
        found[0], op="cross_entropy", expect=expect, row=row, variant=variant, quick=quick
    )


def _row_cases() -> Iterator[CompileCase]:
    for most, kind in row_frozen():
        named = kind, f"V<={most}" if most < 1 << 31 else "any V"
        served = {"plain": _PLAIN, "dressed": _DRESSED, "wide": _PLAIN | _DRESSED}[kind]
        for vocab in _VOCABULARIES[most][: 1 if kind == "wide" else None]:
            for name, given in served.items():
                dtype = FP32 if kind == "wide" else FP16 if "upstream" in name else BF16
                yield _cases(
                    "cross_entropy_rows", "none", named,
                    f"{_name(dtype)} {vocab} {name}",
                    lambda v=vocab, d=dtype, g=given: _rows(v, d, g),
                    vocab == 50_257 and name in ("base", "all"),
                )  # fmt: skip


def _fused_cases() -> Iterator[CompileCase]:
    given: dict[str, dict[str, Any]] = {"base": {}}
    given |= {name: _DRESSED[name] for name in _DRESSED if "upstream" not in name and name != "all"}
    for name, options in given.items():
        weighted = "smoothing" in options and "class_weight" in options
        row = ("weighted" if weighted else "plain", f"warps={fused_config(weighted).warps}")
        for dtype, width, vocab in (
            (BF16, 768, 50_304), (FP16, 256, 2_350), (BF16, 272, 50_257), (BF16, 16, 1),
        ):  # fmt: skip
            yield _cases(
                "cross_entropy_fused", "wgmma", row, f"{_name(dtype)} H={width} V={vocab} {name}",
                lambda h=width, v=vocab, d=dtype, g=options: _fused(ROWS, h, v, d, g),
                width == 768 and name in ("base", "smoothing class"),
            )  # fmt: skip
    for rows, vocab in ((65_536, 50_304), (1, 256_000), (1, 2_350), (65_536, 64)):
        for name, options in (
            ("negative", {"negative": True}),
            ("all", _DRESSED["all"] | {"upstream": False}),
        ):
            yield _cases(
                "cross_entropy_combine", "none", (f"parts<={PARTS}",), f"{rows} x {vocab} {name}",
                lambda t=rows, v=vocab, g=options: _fused(t, 16, v, BF16, g),
                vocab == 256_000,
            )  # fmt: skip


def _scale_cases() -> Iterator[CompileCase]:
    for source, result in ((BF16, BF16), (FP16, FP16), (FP32, BF16), (FP32, FP16), (FP32, FP32)):
        yield _cases(
            "cross_entropy_scale", "none", (), f"{_name(source)} to {_name(result)}",
            lambda s=source, r=result: scaled(torch.empty(4096, dtype=s), torch.empty(()), r),
            source == FP32 and result == BF16,
        )  # fmt: skip


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.").replace("bfloat", "bf").replace("float", "fp")


def offline_cases() -> list[CompileCase]:
    """Return the cases of all frozen rows."""
    return [*_row_cases(), *_fused_cases(), *_scale_cases()]

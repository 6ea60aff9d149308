"""Attention over a packed row: the cases, their truth and their work.

Legend: T rows, H query heads, K key/value heads, D head dimension, all documents packed in one row.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from kernels.intervals import Intervals, intervals
from kernels.reference import attention_reference

from .cases import Case, Inputs, Op, Part, Scale, Work, register_case, register_op

__all__ = ["ROW", "AttentionInputs", "Packed"]

ROW = 65_536
"""Tokens of a packed row in the short-document cases."""
_LONGEST_SMALL = 384
"""Rows of a document in a small version: three tiles of 128, so that every kind of tile occurs."""


@dataclass(frozen=True)
class Packed:
    """A packed row: document lengths, heads and the mask. ``prefix``: None is causal."""

    lengths: tuple[int, ...]
    heads: int
    dim: int
    prefix: int | None = None
    window: int | None = None
    kv_heads: int = 0
    """0: as many as query heads."""

    @property
    def kv(self) -> int:
        """K, the number of key/value heads."""
        return self.kv_heads or self.heads

    @property
    def total(self) -> int:
        """T, the number of rows."""
        return sum(self.lengths)

    @property
    def longest(self) -> int:
        """Rows of the longest document."""
        return max(self.lengths)

    @property
    def mask(self) -> str:
        """The mask in words."""
        if self.prefix is not None:
            return f"prefix-LM ({self.prefix})"
        return "causal" if self.window is None else f"causal, window {self.window:,}"

    def ends(self) -> Tensor:
        """``cu_seqlens``, int32 ``[documents + 1]``, on the host."""
        return torch.tensor([0, *self.lengths]).cumsum(0).to(torch.int32)

    def prefix_lens(self) -> Tensor | None:
        """The prefix of each document, int32 on the host: a short document is all prefix."""
        if self.prefix is None:
            return None
        return torch.tensor([min(self.prefix, n) for n in self.lengths], dtype=torch.int32)

    def intervals(self) -> Intervals:
        """The mask on the host (kept for the last few specs)."""
        return _intervals(self)

    def causal(self) -> Packed:
        """The same documents without their prefix."""
        return replace(self, prefix=None)

    def __str__(self) -> str:
        """Describe it in one line."""
        low, high = min(self.lengths), max(self.lengths)
        size = f"{high:,}" if low == high else f"{low:,}–{high:,}"
        heads = f"{self.heads}" if self.kv == self.heads else f"{self.heads}/{self.kv}"
        return (
            f"{self.total:,} tokens: {len(self.lengths):,} documents of {size}, "
            f"{heads} heads × {self.dim}, {self.mask}"
        )


@lru_cache(maxsize=16)
def _intervals(spec: Packed) -> Intervals:
    return intervals(spec.ends(), prefix_lens=spec.prefix_lens(), window=spec.window)


@dataclass(eq=False)
class AttentionInputs(Inputs):
    """q ``[T, H, D]``, k and v ``[T, K, D]``, the gradient of the output, the mask."""

    spec: Packed
    tensors: dict[str, Tensor]
    upstream: Tensor
    intervals: Intervals

    def with_spec(self, spec: Packed) -> AttentionInputs:
        """Return the same tensors under another mask."""
        moved = spec.intervals().to(self.upstream.device)
        return AttentionInputs(spec, self.tensors, self.upstream, moved)


def _build(spec: Packed, device: torch.device, dtype: torch.dtype, seed: int) -> AttentionInputs:
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(heads: int) -> Tensor:
        shape = (spec.total, heads, spec.dim)
        return torch.randn(shape, generator=generator, device=device).to(dtype)

    q, k, v, upstream = (draw(heads) for heads in (spec.heads, spec.kv, spec.kv, spec.heads))
    tensors = {name: x.requires_grad_() for name, x in (("q", q), ("k", k), ("v", v))}
    return AttentionInputs(spec, tensors, upstream, spec.intervals().to(device))


# Truth -------------------------------------------------------------------------------------------


def _parts(inputs: AttentionInputs, everything: bool) -> Sequence[Part]:
    """Documents are independent, heads too: each part is a few documents of a few heads."""
    spec = inputs.spec
    limit = (2 << 30) if inputs.upstream.is_cuda else (1 << 26)
    ranges = _whole_row(spec, limit) if everything else _spot_check(spec, limit)
    return [_part(inputs, *found) for found in ranges]


def _whole_row(spec: Packed, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first document, one past the last, first key head, one past) covering everything."""
    first = 0
    while first < len(spec.lengths):
        last, rows = first + 1, spec.lengths[first]
        while last < len(spec.lengths) and rows + spec.lengths[last] <= 1024:
            rows += spec.lengths[last]
            last += 1
        heads = _heads_that_fit(spec, rows, limit)
        for head in range(0, spec.kv, heads):
            yield first, last, head, min(head + heads, spec.kv)
        first = last


def _spot_check(spec: Packed, limit: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield a few documents from end to end of the row, with as many heads as fit."""
    count = len(spec.lengths)
    picks = {0, 1, count // 3, count // 2, count - 2, count - 1}
    for document in sorted(picks & set(range(count))):
        heads = _heads_that_fit(spec, spec.lengths[document], limit)
        first = 0 if document % 2 == 0 else spec.kv - heads
        yield document, document + 1, first, first + heads


def _heads_that_fit(spec: Packed, rows: int, limit: int) -> int:
    """How many key heads keep one fp64 score matrix of their query heads under ``limit`` bytes."""
    return max(1, min(spec.kv, limit // (8 * max(rows, 1) ** 2 * (spec.heads // spec.kv))))


def _part(inputs: AttentionInputs, first: int, last: int, head: int, head_stop: int) -> Part:
    spec, group = inputs.spec, inputs.spec.heads // inputs.spec.kv
    ends = [0, *torch.tensor(spec.lengths).cumsum(0).tolist()]
    rows = slice(ends[first], ends[last])
    own = replace(spec, lengths=spec.lengths[first:last])
    of_queries, of_keys = slice(head * group, head_stop * group), slice(head, head_stop)
    heads = {"out": of_queries, "dq": of_queries, "dk": of_keys, "dv": of_keys}
    heads |= {"q": of_queries, "k": of_keys, "v": of_keys}

    def pick(name: str, tensor: Tensor) -> Tensor:
        return tensor[rows, heads[name]]

    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        mask = intervals(own.ends(), prefix_lens=own.prefix_lens(), window=own.window)
        q, k, v = leaves = [
            pick(name, x).detach().to(dtype).requires_grad_() for name, x in inputs.tensors.items()
        ]
        out = attention_reference(q, k, v, mask.to(inputs.upstream.device))
        assert isinstance(out, Tensor)
        upstream = pick("out", inputs.upstream).to(dtype)
        grads = torch.autograd.grad(out, leaves, upstream)
        return {"out": out.detach(), **dict(zip(("dq", "dk", "dv"), grads, strict=True))}

    return Part(f"documents {first} to {last - 1}, heads {head} to {head_stop - 1}", truth, pick)


# Work --------------------------------------------------------------------------------------------


def _work(spec: Packed, dtype: torch.dtype) -> dict[str, Work]:
    """Each tensor once; 4 D flops a visible (query, key) pair and head forward, 10 D backward.

    Forward reads q, k, v and writes out and the fp32 log-sum-exp; backward reads those and dout
    and writes three gradients. The mask is two int32 vectors.
    """
    mask = spec.intervals()
    pairs = int((mask.stop.long() - mask.start.long()).sum()) * spec.heads
    query_bytes = spec.total * spec.heads * spec.dim * dtype.itemsize
    key_bytes = spec.total * spec.kv * spec.dim * dtype.itemsize
    small = spec.total * spec.heads * 4 + 2 * spec.total * 4
    fwd = Work(2 * query_bytes + 2 * key_bytes + small, 4 * spec.dim * pairs)
    bwd = Work(4 * query_bytes + 4 * key_bytes + small, 10 * spec.dim * pairs)
    return {"fwd": fwd, "bwd": bwd, "fwd+bwd": Work(fwd.bytes + bwd.bytes, fwd.flops + bwd.flops)}


# Cases -------------------------------------------------------------------------------------------


def _random_lengths(total: int, low: int, high: int, seed: int) -> tuple[int, ...]:
    """Lengths drawn evenly from low to high until they fill ``total``."""
    rng = random.Random(seed)
    lengths: list[int] = []
    left = total
    while left > high:
        lengths.append(min(rng.randint(low, high), left - low))
        left -= lengths[-1]
    return (*lengths, left)


def _cut(spec: Packed, scale: Scale) -> Packed:
    """The same kind of row, small: a few documents, the last one among them; smoke: fewer heads."""
    if scale == "full":
        return spec
    longest, heads = (_LONGEST_SMALL, spec.heads) if scale == "small" else (100, 2)
    count = 1 if spec.longest > longest else 3 if scale == "small" else 2
    chosen = (*spec.lengths[:count], spec.lengths[-1])
    return replace(
        spec,
        lengths=tuple(min(n, longest) for n in chosen),
        window=None if spec.window is None else min(spec.window, 60),
        prefix=None if spec.prefix is None else min(spec.prefix, longest * 5 // 6),
        heads=heads,
    )


def _case(name: str, doc: str, spec: Packed) -> None:
    def described(scale: Scale) -> Packed:
        return _cut(spec, scale)

    register_case(Case("attention", name, doc, described))


def _register(cases: Callable[[str, str, Packed], None]) -> None:
    picture = Packed((*[230] * 284, 216), heads=12, dim=64, prefix=196)
    baby = Packed((*[60] * 1092, 16), heads=32, dim=8, prefix=49)
    words = Packed(_random_lengths(ROW, 16, 128, seed=0), heads=6, dim=64)
    cases("P1", "196 image and 34 text tokens a document, prefix-LM", picture)
    cases("P1-causal", "the documents of P1 under a causal mask", picture.causal())
    cases("BABY", "49 image and 11 text tokens a document, many tiny heads, prefix-LM", baby)
    cases("P2", "short texts of 16 to 128 tokens, causal", words)
    cases("8192x34", "8,192 documents: nothing may grow with documents squared",
          Packed((34,) * 8192, heads=12, dim=64))  # fmt: skip
    cases("L64", "long documents, causal", Packed((4096,) * 8, heads=16, dim=64))
    cases("L128", "long documents, wide heads, causal", Packed((8192,) * 4, heads=16, dim=128))
    cases("W", "very long documents, sliding window",
          Packed((16_384,) * 2, heads=16, dim=64, window=1024))  # fmt: skip


register_op(
    Op(
        name="attention",
        doc="attention over a packed row under interval masks",
        modes=("fwd", "bwd", "fwd+bwd", "build"),
        build=_build,
        parts=_parts,
        work=_work,
    )
)
_register(_case)

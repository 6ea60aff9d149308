"""Linear cross-entropy: cases, truth and work of ``linear_cross_entropy`` and ``linear_logprobs``.

Logits of random data spread by 1, as when training begins: no share of a word is negligible, so
that skipping small gradients (cut-cross-entropy's filter) gains little. It gains more on a trained
model. Legend: T rows, n of them with loss, H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import Case, Inputs, Op, Part, Scale, Work, register_case, register_op

__all__ = ["LinearInputs", "LinearLoss"]

TRUTH_LOGITS = 1 << 27
"""Logits of a chunk of the truth: a GiB in float64."""


@dataclass(frozen=True)
class LinearLoss:
    """Shapes, and which share of the rows carries loss."""

    rows: int
    width: int
    vocab: int
    share: float = 1.0

    @property
    def kept(self) -> int:
        """n, the number of rows with loss."""
        return round(self.rows * self.share)

    def __str__(self) -> str:
        """Describe it in one line."""
        loss = "" if self.kept == self.rows else f", {self.kept:,} of them with loss"
        return f"{self.rows:,} rows{loss} × {self.width} × {self.vocab:,} words"


@dataclass(eq=False)
class LinearInputs(Inputs):
    """x ``[T, H]``, weight ``[V, H]``; targets int64 ``[T]``, -100 where there is no loss."""

    spec: LinearLoss
    upstream: Tensor
    targets: Tensor

    def with_every_row(self) -> LinearInputs:
        """Return the same tensors with a loss (of word 0) where there was none."""
        spec = replace(self.spec, share=1.0)
        return LinearInputs(spec, self.tensors, self.upstream, self.targets.clamp(min=0))


def _build(spec: LinearLoss, device: torch.device, dtype: torch.dtype, seed: int) -> LinearInputs:
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(rows: int, scale: float) -> Tensor:
        made = torch.randn(rows, spec.width, generator=generator, device=device)
        return (made * scale).to(dtype).requires_grad_()

    x, weight = draw(spec.rows, 1.0), draw(spec.vocab, spec.width**-0.5)
    targets = torch.randint(spec.vocab, (spec.rows,), generator=generator, device=device)
    order = torch.rand(spec.rows, generator=generator, device=device).argsort()
    targets[order[spec.kept :]] = -100
    # Not 1, so that whoever forgets it is seen.
    upstream = torch.tensor(0.75, device=device)
    return LinearInputs(spec, {"x": x, "weight": weight}, upstream, targets)


def _whole(name: str, tensor: Tensor) -> Tensor:
    return tensor


def _loss_parts(inputs: LinearInputs, everything: bool) -> Sequence[Part]:
    """All of it at once: dW needs every row anyway. Chunks of rows, dW added up in float32."""

    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        x, weight = (y.detach().to(dtype) for y in inputs.leaves)
        weight.requires_grad_()
        wide = torch.promote_types(dtype, torch.float32)
        upstream = float(inputs.upstream) / max(inputs.spec.kept, 1)
        loss = torch.zeros((), dtype=wide, device=x.device)
        dw = torch.zeros(weight.shape, dtype=wide, device=x.device)
        dx = torch.empty_like(x)
        chunk = max(1, TRUTH_LOGITS // inputs.spec.vocab)
        for first in range(0, x.shape[0], chunk):
            rows = slice(first, first + chunk)
            part = x[rows].requires_grad_()
            logits = F.linear(part, weight).to(wide)
            found = F.cross_entropy(logits, inputs.targets[rows], reduction="sum")
            scale = torch.tensor(upstream, dtype=wide, device=x.device)
            dx[rows], more = torch.autograd.grad(found, (part, weight), scale)
            dw += more
            loss += found.detach() / max(inputs.spec.kept, 1)
        return {"loss": loss, "dx": dx, "dw": dw.to(dtype)}

    return [Part("the whole row", truth, _whole)]


def _logprob_parts(inputs: LinearInputs, everything: bool) -> Sequence[Part]:
    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        x, weight = (y.detach().to(dtype) for y in inputs.leaves)
        wide = torch.promote_types(dtype, torch.float32)
        chunk = max(1, TRUTH_LOGITS // inputs.spec.vocab)
        parts = [
            -F.cross_entropy(F.linear(part, weight).to(wide), targets, reduction="none")
            for part, targets in zip(x.split(chunk), inputs.targets.split(chunk), strict=True)
        ]
        return {"logprobs": torch.cat(parts)}

    return [Part("the whole row", truth, _whole)]


def _loss_work(spec: LinearLoss, dtype: torch.dtype) -> dict[str, Work]:
    """Three products of the rows with loss; their x and the weight read, both gradients written."""
    own = spec.kept * spec.width * dtype.itemsize
    dx, weight = (count * spec.width * dtype.itemsize for count in (spec.rows, spec.vocab))
    bytes_moved = own + dx + 2 * weight + 8 * spec.rows
    return {"fwd+bwd": Work(bytes_moved, 6 * spec.kept * spec.width * spec.vocab)}


def _logprob_work(spec: LinearLoss, dtype: torch.dtype) -> dict[str, Work]:
    operands = (spec.rows + spec.vocab) * spec.width * dtype.itemsize
    flops = 2 * spec.rows * spec.width * spec.vocab
    return {"fwd": Work(operands + 12 * spec.rows, flops)}


def _cut(spec: LinearLoss, scale: Scale) -> LinearLoss:
    """Small: a few tiles, an odd vocabulary stays odd. Smoke: for a CPU."""
    if scale == "full":
        return spec
    if scale == "small":
        return replace(spec, rows=1000, vocab=min(spec.vocab, 4096))
    return replace(spec, rows=60, width=32, vocab=min(spec.vocab, 512) - spec.vocab % 128 % 5)


def _cases(op: str, name: str, doc: str, spec: LinearLoss) -> None:
    register_case(Case(op, name, doc, lambda scale: _cut(spec, scale)))


register_op(
    Op(
        name="linear_cross_entropy",
        doc="cross-entropy of a linear layer and its gradients",
        modes=("fwd+bwd",),
        build=_build,
        parts=_loss_parts,
        work=_loss_work,
    )
)
register_op(
    Op(
        name="linear_logprobs",
        doc="log-probabilities of given words under a linear layer",
        modes=("fwd",),
        build=_build,
        parts=_logprob_parts,
        work=_logprob_work,
    )
)
_GPT2 = LinearLoss(65_536, 768, 50_304)
_NARROW = LinearLoss(65_536, 256, 50_304)
_BABY = LinearLoss(65_536, 256, 2_350)
for _op, _name, _doc, _spec in (
    ("linear_cross_entropy", "GPT2", "the output layer of GPT-2 small, every row", _GPT2),
    ("linear_cross_entropy", "GPT2-15%", "the same where captions follow images",
     replace(_GPT2, share=0.15)),
    ("linear_cross_entropy", "NARROW", "a narrow model of many words", _NARROW),
    ("linear_cross_entropy", "BABY", "a narrow model of few words", _BABY),
    ("linear_logprobs", "GPT2", "scoring with GPT-2 small", _GPT2),
    ("linear_logprobs", "BABY", "scoring with a small model", _BABY),
):  # fmt: skip
    _cases(_op, _name, _doc, _spec)

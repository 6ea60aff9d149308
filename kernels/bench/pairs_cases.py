"""The losses over all pairs: cases, truth and work of ``contrastive_loss`` and ``sigmoid_loss``.

The floor holds no N x N: InfoNCE is four products of N x N x D (logits once for the log-sum-exps of
rows and columns, again for the gradients, and two for those), the sigmoid loss three.
Legend: N pairs, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .cases import Case, Inputs, Op, Part, Scale, Work, register_case, register_op

__all__ = ["OPS", "PairInputs", "Pairs"]

OPS = ("contrastive_loss", "sigmoid_loss")
SCALARS = {"contrastive_loss": {"scale": 1 / 0.07}, "sigmoid_loss": {"scale": 10.0, "bias": -10.0}}
"""Where training starts: OpenAI's CLIP, Google's SigLIP."""
TRUTH_LOGITS = 1 << 27
"""Logits of a chunk of the truth: a GiB in float64."""


@dataclass(frozen=True)
class Pairs:
    """Shapes."""

    rows: int
    width: int

    def __str__(self) -> str:
        """Describe it in one line."""
        return f"{self.rows:,} pairs × {self.width}"


@dataclass(eq=False)
class PairInputs(Inputs):
    """image and text ``[N, D]``; scale and bias, float32 ``[]``, as leaves like these."""

    spec: Pairs
    upstream: Tensor


def _build(op: str, spec: Pairs, device: torch.device, dtype: torch.dtype, seed: int) -> PairInputs:
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(spec.rows, spec.width, generator=generator, device=device)

    image = draw()
    text = image * 0.3 + draw()  # a little learnt: own pairs stand out
    leaves = {"image": image, "text": text}
    tensors = {name: F.normalize(x, dim=1).to(dtype) for name, x in leaves.items()}
    tensors |= {name: torch.tensor(x, device=device) for name, x in SCALARS[op].items()}
    # Not 1, so that whoever forgets it is seen.
    upstream = torch.tensor(0.75, device=device)
    return PairInputs(spec, {n: x.requires_grad_() for n, x in tensors.items()}, upstream)


# Truth ------------------------------------------------------------------------------------------


def _contrastive(own: Tensor, other: Tensor, rows: slice, scale: Tensor) -> Tensor:
    """Sum over some rows of one direction's cross-entropy, halved; logits in the dtype given."""
    logits = (scale * own[rows]) @ other.T
    target = torch.arange(rows.start, rows.stop, device=own.device)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(logits.to(wide), target, reduction="sum") / 2


def _sigmoid(own: Tensor, other: Tensor, rows: slice, scale: Tensor, bias: Tensor) -> Tensor:
    """Sum over the pairs of some rows, terms in the dtype given."""
    logits = (scale * own[rows]) @ other.T + bias
    sign = torch.full_like(logits, -1.0, requires_grad=False)
    sign[:, rows].diagonal().fill_(1.0)
    wide = torch.promote_types(logits.dtype, torch.float32)
    return -F.logsigmoid(sign * logits).sum(dtype=wide)


def _parts(op: str, inputs: PairInputs, everything: bool) -> Sequence[Part]:
    """All of it at once: every gradient needs every pair. Rows in chunks, sums in float32."""
    spec = inputs.spec

    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        wide = torch.promote_types(dtype, torch.float32)
        image, text, *scalars = (x.detach() for x in inputs.leaves)
        leaves = [image.to(dtype), text.to(dtype), *(x.to(wide) for x in scalars)]
        leaves = [x.requires_grad_() for x in leaves]
        image, text, *scalars = leaves
        sums = [torch.zeros(x.shape, dtype=wide, device=x.device) for x in leaves]
        loss = torch.zeros((), dtype=wide, device=image.device)
        both = [partial(_contrastive, image, text), partial(_contrastive, text, image)]
        terms: list[Callable[..., Tensor]] = (
            both if op == OPS[0] else [partial(_sigmoid, image, text)]
        )
        chunk = max(1, TRUTH_LOGITS // spec.rows)
        for first in range(0, spec.rows, chunk):
            rows = slice(first, min(first + chunk, spec.rows))
            for term in terms:
                found = term(rows, *scalars) / spec.rows
                upstream = inputs.upstream.to(found.dtype)
                loss += found.detach()
                for total, grad in zip(
                    sums, torch.autograd.grad(found, leaves, upstream), strict=True
                ):
                    total += grad
        grads = (total.to(leaf.dtype) for total, leaf in zip(sums, leaves, strict=True))
        return {"loss": loss, **{f"d{n}": x for n, x in zip(inputs.tensors, grads, strict=True)}}

    return [Part("all pairs", truth, lambda _, tensor: tensor)]


# Work and cases ---------------------------------------------------------------------------------


def _work(op: str, spec: Pairs, dtype: torch.dtype) -> dict[str, Work]:
    """Features read, gradients written; products of all pairs."""
    product = 2 * spec.rows**2 * spec.width
    features = 2 * spec.rows * spec.width * dtype.itemsize
    return {"fwd+bwd": Work(2 * features, (4 if op == OPS[0] else 3) * product)}


def _case(op: str, name: str, doc: str, spec: Pairs) -> None:
    def described(scale: Scale) -> Pairs:
        if scale == "full":
            return spec
        return replace(spec, rows=1000) if scale == "small" else Pairs(70, 40)

    register_case(Case(op, name, doc, described))


for _op, _loss, _doc in zip(
    OPS, ("InfoNCE", "SigLIP"), ("symmetric InfoNCE", "the pairwise sigmoid loss"), strict=True
):
    register_op(
        Op(
            _op, f"{_doc} and its gradients", ("fwd+bwd",), partial(_build, _op),
            partial(_parts, _op), partial(_work, _op),
        )
    )  # fmt: skip
    _case(_op, f"{_loss}-32k", "a global batch on one GPU", Pairs(32_768, 512))
    _case(_op, f"{_loss}-4k", "one GPU's own batch", Pairs(4096, 512))
    _case(_op, f"{_loss}-131k", "whose matrix would take 64 GiB", Pairs(131_072, 512))

"""The naive references: the definition of each op, in the input's own dtype, fp64 included.

Nothing here is fast and nothing is shared with the implementations; tests compare against it.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .dropout import keep, row_keys, seed_tensor
from .intervals import Intervals

__all__ = [
    "attention_reference",
    "contrastive_loss_reference",
    "linear_cross_entropy_reference",
]


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    intervals: Intervals,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    dropout: float = 0.0,
    seed: int | Tensor | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Dense O(T²) attention: ``[T, H, D]`` (and float32 ``[T, H]``), all scores in one matrix.

    With ``dropout``, ``seed`` (an int of 64 bits or an int64 tensor of one element) picks the mask
    of `kernels.dropout`; None draws one from torch's global generator.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    scores = torch.einsum("ihd,jhd->hij", q, k) * factor
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~intervals.dense_mask(), float("-inf"))
    weights = torch.softmax(scores, dim=-1)
    if dropout > 0.0:
        rows = torch.arange(q.shape[0], device=q.device)
        kept = keep(row_keys(seed_tensor(seed, q.device), rows, q.shape[1]), rows, dropout)
        weights = weights * kept.permute(1, 0, 2) / (1.0 - dropout)  # kept: [i, h, j]
    out = torch.einsum("hij,jhd->ihd", weights, v)
    if not return_lse:
        return out
    return out, torch.logsumexp(scores.detach(), dim=-1).T.float()


def linear_cross_entropy_reference(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Cross-entropy of ``x weightᵀ`` written out from the definition, row by row."""
    logits = x @ weight.T
    if bias is not None:
        logits = logits + bias
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    lse = torch.logsumexp(logits, dim=-1)
    log_p = logits - lse[:, None]
    kept = torch.ones_like(targets, dtype=torch.bool)
    if ignore_index is not None:
        kept = targets != ignore_index
    safe = torch.where(kept, targets, torch.zeros_like(targets))
    w = logits.new_ones(weight.shape[0]) if class_weight is None else class_weight
    hot = F.one_hot(safe, weight.shape[0]).to(logits.dtype)
    share = (1.0 - label_smoothing) * hot + label_smoothing / weight.shape[0]
    losses = -(share * w * log_p).sum(-1) + z_loss * lse.square()
    losses = torch.where(kept, losses, torch.zeros_like(losses))
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    total = (w[safe] * kept).sum()
    return losses.sum() / torch.where(total == 0, torch.ones_like(total), total)


def contrastive_loss_reference(
    image: Tensor, text: Tensor, logit_scale: Tensor | float, *, labels: Tensor | None = None
) -> Tensor:
    """Symmetric InfoNCE written out with an explicit target matrix."""
    logits = logit_scale * (image @ text.T)
    if labels is None:
        labels = torch.arange(image.shape[0], device=image.device)
    same = (labels[:, None] == labels[None, :]).to(logits.dtype)
    target = same / same.sum(dim=1, keepdim=True)
    rows = -(target * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
    columns = -(target.T * torch.log_softmax(logits, dim=0)).sum(dim=0).mean()
    return (rows + columns) / 2

"""The naive references: the definition of each op, in the input's own dtype, fp64 included.

Nothing here is fast and nothing is shared with the implementations; tests compare against it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .dropout import keep, row_keys, seed_tensor
from .intervals import Intervals
from .rows.common import drop

__all__ = [
    "adamw_reference",
    "attention_reference",
    "augment_reference",
    "bias_gelu_reference",
    "contrastive_loss_reference",
    "embedding_reference",
    "linear_cross_entropy_reference",
    "norm_reference",
    "rotary_reference",
    "sigmoid_loss_reference",
    "swiglu_reference",
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


def norm_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    center: bool,
    eps: float,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return y and, with ``residual``, the sum; see `kernels.rows.norm.layer_norm`."""
    summed = None
    if residual is not None:
        x = summed = drop(x, dropout, seed) + residual
    centred = x - x.mean(-1, keepdim=True) if center else x
    scale = torch.sqrt(centred.square().mean(-1, keepdim=True) + eps)
    y = centred / scale * weight
    return (y if bias is None else y + bias).to(x.dtype), summed


def bias_gelu_reference(
    x: Tensor,
    bias: Tensor | None = None,
    *,
    approximate: str,
    dropout: float = 0.0,
    seed: Tensor | None = None,
) -> Tensor:
    """See `kernels.rows.activations.bias_gelu`."""
    z = x if bias is None else x + bias
    if approximate == "tanh":
        share = 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (z + 0.044715 * z**3)))
    else:
        share = 0.5 * (1.0 + torch.erf(z / math.sqrt(2.0)))
    return drop((z * share).to(x.dtype), dropout, seed)


def swiglu_reference(gate: Tensor, up: Tensor | None = None) -> Tensor:
    """See `kernels.rows.activations.swiglu`."""
    if up is None:
        half = gate.shape[-1] // 2
        gate, up = gate[..., :half], gate[..., half:]
    return gate * torch.sigmoid(gate) * up


def rotary_reference(
    q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Tensor | None]:
    """See `kernels.rows.rotary.rotary`: a head's halves are parts of D / 2 complex numbers."""
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    turn = torch.complex(cos.to(wide), sin.to(wide))[:, None]  # [T, 1, D / 2]

    def turned(x: Tensor) -> Tensor:
        left, right = x.to(wide).chunk(2, dim=-1)
        z = torch.complex(left, right) * turn
        return torch.cat([z.real, z.imag], dim=-1).to(x.dtype)

    return turned(q), None if k is None else turned(k)


def sigmoid_loss_reference(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    labels: Tensor | None = None,
) -> Tensor:
    """Sigmoid loss of all pairs of ``[N, D]``, divided by N, with an explicit matrix of signs."""
    logits = logit_scale * (image @ text.T) + logit_bias
    if labels is None:
        labels = torch.arange(image.shape[0], device=image.device)
    same = labels[:, None] == labels[None, :]
    sign = torch.where(same, 1.0, -1.0).to(logits.dtype)
    return -F.logsigmoid(sign * logits).sum() / max(image.shape[0], 1)


def embedding_reference(ids: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """See `kernels.embedding.public.embedding`: a product with a matrix of ones and zeros."""
    if padding_idx is not None:
        fixed = torch.arange(weight.shape[0], device=weight.device) == padding_idx
        weight = torch.where(fixed[:, None], weight.detach(), weight)
    hot = F.one_hot(ids.long().flatten(), weight.shape[0]).to(weight.dtype)
    return (hot @ weight).reshape(*ids.shape, weight.shape[1])


def adamw_reference(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    max_norm: float | None = None,
    skip_nonfinite: bool = False,
) -> Tensor:
    """One step of AdamW in place, gradients clipped; see `kernels.optimizer.ops.fused_adamw`."""
    norm = torch.sqrt(torch.stack([g.square().sum() for g in grads]).sum())
    if skip_nonfinite and not torch.isfinite(norm):
        return norm
    factor = 1.0 if max_norm is None else min(1.0, max_norm / (float(norm) + 1e-6))
    for p, grad, m, v, step in zip(params, grads, exp_avgs, exp_avg_sqs, steps, strict=True):
        g = grad * factor
        step += 1
        p -= lr * weight_decay * p
        m.copy_(betas[0] * m + (1 - betas[0]) * g)
        v.copy_(betas[1] * v + (1 - betas[1]) * g * g)
        m_hat = m / (1 - betas[0] ** float(step))
        v_hat = v / (1 - betas[1] ** float(step))
        p -= lr * m_hat / (v_hat.sqrt() + eps)
    return norm


def augment_reference(
    images: Tensor,
    table: Tensor,
    changes: int,
    height: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
    layout: str,
    patch: int,
    antialias: bool,
) -> Tensor:
    """See `kernels.augment.public.augment_images`: one picture after another, in float64."""
    made = []
    for image, row in zip(images.permute(0, 3, 1, 2).double() / 255, table.tolist(), strict=True):
        top, left, h, w, flip = map(int, row[:5])
        x = F.interpolate(
            image[None, :, top : top + h, left : left + w], (height, width), mode="bilinear",
            antialias=antialias,
        )[0]  # fmt: skip
        x = x.flip(2) if flip else x
        grey = x.new_tensor((0.2989, 0.587, 0.114))
        brightness, contrast, saturation, hue, grayscale = (
            amount if changes >> at & 1 else neutral
            for at, (amount, neutral) in enumerate(
                zip(row[5:], (1.0, 1.0, 1.0, 0.0, 0.0), strict=True)
            )
        )
        x = (brightness * x).clamp(0, 1)
        middle = torch.einsum("chw,c->hw", x, grey).mean()
        x = (contrast * x + (1 - contrast) * middle).clamp(0, 1)
        x = (saturation * x + (1 - saturation) * torch.einsum("chw,c->hw", x, grey)).clamp(0, 1)
        if hue:
            x = _hue_turned(x, hue)
        if grayscale:
            x = torch.einsum("chw,c->hw", x, grey).expand(3, -1, -1)
        made.append((x - x.new_tensor(mean)[:, None, None]) / x.new_tensor(std)[:, None, None])
    if not made:
        out = images.new_empty((0, 3, height, width), dtype=dtype)
    else:
        out = torch.stack(made).to(dtype)
    if layout == "patches":
        return F.unfold(out, patch, stride=patch).mT.contiguous()
    kind = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    return out.contiguous(memory_format=kind)


def _hue_turned(x: Tensor, turn: float) -> Tensor:
    """``[3, H, W]`` to hue, saturation and value, the hue turned, and back: A. R. Smith 1978."""
    value, span = x.amax(0), x.amax(0) - x.amin(0)
    red, green, blue = (value - x) / torch.where(span > 0, span, 1.0)
    hue = torch.stack([blue - green, 2 + red - blue, 4 + green - red])
    sixths = torch.remainder(hue.gather(0, x.argmax(0)[None])[0] + 6 * turn, 6)
    f = sixths - sixths.floor()
    p, q, t = value - span, value - span * f, value - span * (1 - f)
    faces = torch.stack(
        [torch.stack(face) for face in (
            (value, t, p), (q, value, p), (p, value, t), (p, q, value), (t, p, value), (value, p, q)
        )]
    )  # [6, 3, H, W]  # fmt: skip
    return faces.gather(0, sixths.long().remainder(6)[None, None].expand(1, 3, -1, -1))[0]

"""Cross-entropy of a linear layer, without ever holding the whole logits.

Legend: T rows, H width, V vocabulary. In a vision-language row most positions carry no loss: those
rows are dropped before the product, so they cost nothing. Small products are simply made whole
(nothing is faster); large ones go through row chunks whose logits are computed again in the
backward pass, the weight gradient being added up in float32.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from . import dispatch
from .reference import linear_cross_entropy_reference

__all__ = ["linear_cross_entropy", "linear_logprobs"]

LOGITS_BUDGET = 2**26
"""Most logits to hold at once (256 MB in float32). The baby sizes, 8,000 x 2,350, take 2^24.2."""


def linear_cross_entropy(
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
    """Return the cross-entropy of ``logits = x weightᵀ + bias`` against ``targets``.

    The loss of a row is torch's `cross_entropy` (smoothing and class weights included) plus
    ``z_loss * logsumexp(logits)²`` (PaLM, Chowdhery et al. 2022 §5).

    Args:
        x: ``[T, H]``, floating.
        weight: ``[V, H]``, same dtype; may be an embedding's.
        targets: int64 ``[T]``, in [0, V) or ``ignore_index``.
        bias: ``[V]``.
        ignore_index: rows with this target have loss 0 and cost nothing. ``None`` says that no
            row is ignored, which spares a GPU the look (and the wait) for them.
        softcap: logits become ``softcap * tanh(logits / softcap)``.
        z_loss: weight of the squared log-normaliser.
        label_smoothing: in [0, 1): share of the target spread evenly over the vocabulary.
        class_weight: float ``[V]``: weight of each class.
        reduction: ``none`` gives float32 ``[T]`` with 0 at ignored rows; ``sum`` adds them up;
            ``mean`` divides the sum by the total class weight of the kept targets (their number
            without ``class_weight``); with no row kept it is 0.

    Returns:
        float32 (float64 for float64 input): a scalar, or ``[T]``. Gradients reach x, weight, bias.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    _check(x, weight, targets)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: [{weight.shape[0]}] expected, got shape {tuple(bias.shape)}")
    if class_weight is not None and class_weight.shape != weight.shape[:1]:
        raise ValueError(
            f"class_weight: [{weight.shape[0]}] expected, got shape {tuple(class_weight.shape)}"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: mean, sum or none expected, got {reduction!r}")
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap: more than 0 expected, got {softcap}")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing: in [0, 1) expected, got {label_smoothing}")
    rows, kept = targets.shape[0], None
    if ignore_index is not None:
        kept = (targets != ignore_index).nonzero().squeeze(1)
        if kept.shape[0] == rows:
            kept = None
        else:
            x, targets = x.index_select(0, kept), targets.index_select(0, kept)
    run = dispatch.choose("linear_cross_entropy", x)
    losses = run(
        x,
        weight,
        targets,
        bias=bias,
        softcap=softcap,
        z_loss=z_loss,
        label_smoothing=label_smoothing,
        class_weight=class_weight,
    )
    if reduction == "none":
        if kept is None:
            return losses
        return losses.new_zeros(rows).index_copy(0, kept, losses)
    if reduction == "sum":
        return losses.sum()
    if class_weight is None:
        return losses.sum() / max(targets.shape[0], 1)
    total = class_weight.to(losses.dtype)[targets].sum()
    return losses.sum() / torch.where(total == 0, torch.ones_like(total), total)


def linear_logprobs(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return ``log softmax(x weightᵀ)[targets]``, float32 ``[T]``, without gradient.

    Args:
        x: ``[T, H]``, floating.
        weight: ``[V, H]``, same dtype.
        targets: int64 ``[T]``, in [0, V).

    Raises:
        ValueError: naming the argument that is wrong.
    """
    _check(x, weight, targets)
    return dispatch.choose("linear_logprobs", x)(x, weight, targets)


def _check(x: Tensor, weight: Tensor, targets: Tensor) -> None:
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"x: floating [T, H] expected, got {x.dtype} of shape {tuple(x.shape)}")
    if weight.dim() != 2 or weight.shape[1] != x.shape[1]:
        raise ValueError(f"weight: [V, {x.shape[1]}] expected, got shape {tuple(weight.shape)}")
    if weight.dtype != x.dtype:
        raise ValueError(f"weight: x's dtype {x.dtype} expected, got {weight.dtype}")
    if targets.dtype != torch.int64 or targets.shape != x.shape[:1]:
        raise ValueError(
            f"targets: int64 [{x.shape[0]}] expected, "
            f"got {targets.dtype} of shape {tuple(targets.shape)}"
        )


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _row_losses(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    softcap: float | None,
    z_loss: float,
    label_smoothing: float,
    class_weight: Tensor | None,
) -> Tensor:
    logits = F.linear(_wide(x), weight, bias)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    losses = F.cross_entropy(
        logits, targets, class_weight, label_smoothing=label_smoothing, reduction="none"
    )
    if z_loss:
        losses = losses + z_loss * torch.logsumexp(logits, dim=-1).square()
    return losses


def linear_cross_entropy_chunked(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
) -> Tensor:
    """Row losses ``[T]``: in one piece under `LOGITS_BUDGET`, else in recomputed chunks."""
    # Widened once outside the chunks, so that their weight gradients add up in float32.
    weight = _wide(weight)
    row_losses = partial(
        _row_losses,
        bias=None if bias is None else _wide(bias),
        softcap=softcap,
        z_loss=z_loss,
        label_smoothing=label_smoothing,
        class_weight=None if class_weight is None else class_weight.to(weight.dtype),
    )
    rows = max(1, LOGITS_BUDGET // weight.shape[0])
    if x.shape[0] <= rows:
        return row_losses(x, weight, targets)
    losses = [
        checkpoint(
            row_losses, x_part, weight, t_part, use_reentrant=False, preserve_rng_state=False
        )
        for x_part, t_part in zip(x.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(losses)  # type: ignore[arg-type]


@torch.no_grad()
def linear_logprobs_chunked(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Row log-probabilities float32 ``[T]``, chunk by chunk."""
    weight = _wide(weight)
    rows = max(1, LOGITS_BUDGET // weight.shape[0])
    parts = [
        -F.cross_entropy(F.linear(_wide(x_part), weight), t_part, reduction="none")
        for x_part, t_part in zip(x.split(rows), targets.split(rows), strict=True)
    ]
    return torch.cat(parts).float()


dispatch.register("linear_cross_entropy", "chunked", linear_cross_entropy_chunked)
dispatch.register(
    "linear_cross_entropy",
    "reference",
    partial(linear_cross_entropy_reference, ignore_index=None, reduction="none"),
    opt_in=True,
)
dispatch.register("linear_logprobs", "chunked", linear_logprobs_chunked)

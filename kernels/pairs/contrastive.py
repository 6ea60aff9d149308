"""Symmetric InfoNCE over the global batch (van den Oord et al. 2018; CLIP, Radford et al. 2021).

On a GPU the N x N logits exist a tile at a time (`kernels.pairs.contrastive_triton`); the portable
implementation makes them whole where they are few, else a block at a time
(`kernels.pairs.contrastive_eager`). Legend: n rows of this rank, N of all ranks, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import dispatch
from ..collectives import Group, gather_rows, resolve_group
from ..doors import refuse_triton
from ..reference import contrastive_loss_reference
from . import contrastive_eager
from .ops import contrastive_triton
from .ranks import contrastive_ranks, row_counts

__all__ = ["PLAIN_LOGITS", "check_pairs", "check_scalar", "contrastive_loss"]

PLAIN_LOGITS = 2**20
"""Where no rank has more logits than this, they are made whole: there is less to do than a block's
bookkeeping, and what autograd then holds at most is 21 MB in float32 (31 MB with labels)."""


def contrastive_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    *,
    labels: Tensor | None = None,
    group: Group | str | None = None,
) -> Tensor:
    """Return the mean over rows of the image-to-text and text-to-image cross-entropies, halved.

    Args:
        image: ``[n, D]``, floating, normally of unit length.
        text: ``[n, D]``, row i belongs to image i.
        logit_scale: multiplies the similarities (1 / temperature), a number or a tensor of one
            element, which gets a gradient.
        labels: int64 ``[n]``: rows with the same label are all positives of each other, the target
            being uniform over them (SupCon's "out" form, Khosla et al. 2020). ``None``: only i-i.
        group: a process group, or ``"world"``: the rows of all ranks are gathered and this rank
            returns its share of the loss, so that the shares' **sum** over ranks is the mean over
            the global batch, and so are the gradients' sums. Ranks may hold different numbers of
            rows. ``None``: this process alone.

    Returns:
        A scalar, float32 (float64 for float64 input).

    Raises:
        ValueError: naming the argument that is wrong.
    """
    check_pairs(image, text, labels)
    check_scalar("logit_scale", logit_scale)
    where = resolve_group(group)
    run = dispatch.choose("contrastive_loss", image, text, logit_scale, labels, where)
    return run(image, text, logit_scale, labels, where)


def check_pairs(image: Tensor, text: Tensor, labels: Tensor | None) -> None:
    """Raise ValueError unless these are features of pairs."""
    if image.dim() != 2 or not image.is_floating_point():
        raise ValueError(
            f"image: floating [n, D] expected, got {image.dtype} of shape {tuple(image.shape)}"
        )
    if text.shape != image.shape or text.dtype != image.dtype:
        raise ValueError(
            f"text: image's {image.dtype} {tuple(image.shape)} expected, "
            f"got {text.dtype} {tuple(text.shape)}"
        )
    if labels is not None and (labels.shape != image.shape[:1] or labels.dtype != torch.int64):
        raise ValueError(
            f"labels: int64 [{image.shape[0]}] expected, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    for name, x in (("text", text), ("labels", labels)):
        if x is not None and x.device != image.device:
            raise ValueError(f"{name}: image's device {image.device} expected, got {x.device}")


def check_scalar(name: str, value: Tensor | float) -> None:
    """Raise ValueError unless ``value`` is one number."""
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(
            f"{name}: a number or a tensor of one element expected, got shape {tuple(value.shape)}"
        )


def _eager(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    labels: Tensor | None,
    group: Group | None,
) -> Tensor:
    """The loss in torch's operations: any device, any dtype."""
    if image.dtype != torch.float64:
        image, text = image.float(), text.float()
    sizes = row_counts(image, group)
    if max(sizes) * sum(sizes) > PLAIN_LOGITS:
        return contrastive_ranks(image, text, logit_scale, labels, group, sizes, contrastive_eager)
    if group is None:
        return _alone(image, text, logit_scale, labels)
    return _among(image, text, logit_scale, labels, group, sizes)


def _among(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    labels: Tensor | None,
    group: Group,
    sizes: list[int],
) -> Tensor:
    """This rank's rows against everyone's: two ``[n, N]`` blocks, the scale in the features."""
    first = sum(sizes[: torch.distributed.get_rank(group)])
    # One collective for both: half the latency, and one fixed order of the backward ones.
    both = gather_rows(torch.cat([image, text], dim=1), group, sizes=sizes)
    all_image, all_text = both.chunk(2, dim=1)
    to_text = (logit_scale * image) @ all_text.T
    to_image = (logit_scale * text) @ all_image.T
    if labels is None:
        target = torch.arange(first, first + image.shape[0], device=image.device)
    else:
        target = _targets(labels, gather_rows(labels, group, sizes=sizes), image.dtype)
    sums = F.cross_entropy(to_text, target, reduction="sum") + F.cross_entropy(
        to_image, target, reduction="sum"
    )
    return sums / (2 * max(all_image.shape[0], 1))


def _alone(
    image: Tensor, text: Tensor, logit_scale: Tensor | float, labels: Tensor | None
) -> Tensor:
    """One product for both directions: half the time of two on a CPU."""
    logits = (logit_scale * image) @ text.T
    by_row, by_column = torch.log_softmax(logits, dim=1), torch.log_softmax(logits, dim=0)
    if labels is None:
        sums = by_row.diagonal().sum() + by_column.diagonal().sum()
    else:
        sums = ((by_row + by_column) * _targets(labels, labels, image.dtype)).sum()
    return -sums / (2 * max(image.shape[0], 1))


def _targets(labels: Tensor, all_labels: Tensor, dtype: torch.dtype) -> Tensor:
    """``[n, N]``: uniform over the positives of each row."""
    same = labels[:, None] == all_labels[None, :]
    return same.to(dtype) / same.sum(dim=1, keepdim=True)


def _reference(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    labels: Tensor | None,
    group: Group | None,
) -> Tensor:
    if group is not None:
        raise ValueError("group: the reference of contrastive_loss runs on one rank only")
    return contrastive_loss_reference(image, text, logit_scale, labels=labels)


def _triton(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    labels: Tensor | None,
    group: Group | None,
) -> Tensor:
    if group is None:
        return contrastive_triton(image, text, logit_scale, labels)
    from . import contrastive_launch

    sizes = row_counts(image, group)
    return contrastive_ranks(image, text, logit_scale, labels, group, sizes, contrastive_launch)


dispatch.register(
    "contrastive_loss", "triton", _triton, refuses=refuse_triton, devices=("cuda",), first=True
)
dispatch.register("contrastive_loss", "eager", _eager)
dispatch.register("contrastive_loss", "reference", _reference, opt_in=True)

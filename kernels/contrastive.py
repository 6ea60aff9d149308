"""Symmetric InfoNCE over the global batch (van den Oord et al. 2018; CLIP, Radford et al. 2021).

Legend: n rows of this rank, N rows of all ranks, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import dispatch
from .collectives import Group, gather_rows, resolve_group
from .reference import contrastive_loss_reference

__all__ = ["contrastive_loss"]


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
        logit_scale: multiplies the similarities (1 / temperature); a tensor gets a gradient.
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
    where = resolve_group(group)
    return dispatch.choose("contrastive_loss", image)(image, text, logit_scale, labels, where)


def contrastive_loss_gathered(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    labels: Tensor | None,
    group: Group | None,
) -> Tensor:
    """The loss with this rank's two ``[n, N]`` blocks of logits made whole."""
    if image.dtype != torch.float64:
        image, text = image.float(), text.float()
    rows, first = image.shape[0], 0
    all_image, all_text, all_labels = image, text, labels
    if group is not None:
        rank = torch.distributed.get_rank(group)
        count = torch.tensor([rows], device=image.device)
        sizes = gather_rows(count, group, sizes=[1] * torch.distributed.get_world_size(group))
        sizes = sizes.tolist()
        first = sum(sizes[:rank])
        # One collective for both: half the latency, and one fixed order of the backward ones.
        both = gather_rows(torch.cat([image, text], dim=1), group, sizes=sizes)
        all_image, all_text = both.chunk(2, dim=1)
        if labels is not None:
            all_labels = gather_rows(labels, group, sizes=sizes)
    total = max(all_image.shape[0], 1)
    to_text = logit_scale * (image @ all_text.T)
    to_image = logit_scale * (text @ all_image.T)
    if labels is None or all_labels is None:
        target = torch.arange(first, first + rows, device=image.device)
    else:
        same = labels[:, None] == all_labels[None, :]
        target = same.to(image.dtype) / same.sum(dim=1, keepdim=True)
    sums = F.cross_entropy(to_text, target, reduction="sum") + F.cross_entropy(
        to_image, target, reduction="sum"
    )
    return sums / (2 * total)


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


dispatch.register("contrastive_loss", "gathered", contrastive_loss_gathered)
dispatch.register("contrastive_loss", "reference", _reference, opt_in=True)

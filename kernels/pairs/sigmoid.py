"""The pairwise sigmoid loss over the global batch (SigLIP, Zhai et al. 2023).

Every pair is a binary question of its own, so no pair needs another's logit: no implementation
holds more than a block of the N x N. Legend: n rows of this rank, N rows of all ranks, D width.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import dispatch
from ..collectives import Group, gather_rows, resolve_group
from ..doors import refuse_triton
from ..reference import sigmoid_loss_reference
from ..second import refuse_second
from .contrastive import check_pairs, check_scalar
from .contrastive_eager import row_blocks
from .ops import sigmoid_triton
from .ranks import row_counts, sigmoid_ranks

__all__ = ["sigmoid_loss"]

PLAIN_LOGITS = 2**18
"""As few as this go through plain operations: there is less to do than a block's bookkeeping."""


def sigmoid_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    *,
    labels: Tensor | None = None,
    group: Group | str | None = None,
) -> Tensor:
    """Return the sum over all pairs of ``-log sigmoid(± logit)``, divided by the number of rows.

    The logit of a pair is ``logit_scale * image · text + logit_bias``; it counts with + where the
    two belong together and with - where they do not.

    Args:
        image: ``[n, D]``, floating, normally of unit length.
        text: ``[n, D]``, row i belongs to image i.
        logit_scale: a number or a tensor of one element, which gets a gradient; and
        logit_bias: likewise. The paper starts with 10 and -10.
        labels: int64 ``[n]``: rows with the same label belong together. ``None``: only i and i.
        group: a process group, or ``"world"``: the texts of all ranks are gathered and this rank
            returns the share of its images in the loss over the global batch: the shares' **sum**
            over ranks is the loss, and so are the gradients' sums. Ranks may hold different
            numbers of rows. ``None``: this process alone.

    Returns:
        A scalar, float32 (float64 for float64 input).

    Raises:
        ValueError: naming the argument that is wrong.
    """
    check_pairs(image, text, labels)
    check_scalar("logit_scale", logit_scale)
    check_scalar("logit_bias", logit_bias)
    where = resolve_group(group)
    run = dispatch.choose("sigmoid_loss", image, text, logit_scale, logit_bias, labels, where)
    return run(image, text, logit_scale, logit_bias, labels, where)


def _plain(
    image: Tensor,
    text: Tensor,
    scale: Tensor,
    bias: Tensor,
    image_labels: Tensor | None,
    text_labels: Tensor | None,
    first: int,
) -> Tensor:
    logits = torch.addmm(bias, scale * image, text.T)
    if image_labels is None or text_labels is None:
        sign = torch.ones_like(logits, requires_grad=False)
        sign[:, first : first + image.shape[0]].diagonal().fill_(-1.0)
    else:
        sign = torch.where(image_labels[:, None] == text_labels[None, :], -1.0, 1.0)
    # -log sigmoid(-x) = softplus(x), in torch a quarter faster; beyond 80 it is x in every dtype.
    terms = F.softplus(sign.to(logits.dtype) * logits, threshold=80.0)
    return terms.sum() / max(text.shape[0], 1)


class _Blocks(torch.autograd.Function):
    """Loss and gradients together, some image rows at a time against all texts."""

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        image_labels: Tensor | None,
        text_labels: Tensor | None,
        first: int,
        wanted: bool,
    ) -> Tensor:
        total = max(text.shape[0], 1)
        dimage, dtext = torch.zeros_like(image), torch.zeros_like(text)
        loss, dbias = scale.new_zeros(()), scale.new_zeros(())
        for rows in row_blocks(image, text.shape[0]):
            block = image[rows]
            own_columns = slice(first + rows.start, first + rows.stop)
            # Logits as seen from where a pair's loss is: down for most, up for those that match.
            seen = torch.addmm(-bias, block * -scale, text.T)
            if image_labels is None or text_labels is None:
                own = seen[:, own_columns].diagonal()
                sign = None
            else:
                same = image_labels[rows, None] == text_labels[None, :]
                own, sign = None, torch.where(same, -1.0, 1.0).to(seen.dtype)
            seen = _turned(seen, own, sign)
            terms, kept = torch.ops.aten.log_sigmoid_forward(seen)
            loss -= terms.sum()
            if wanted:
                one = torch.ones((), dtype=seen.dtype, device=seen.device).expand_as(seen)
                weights = torch.ops.aten.log_sigmoid_backward(one, seen, kept)
                if own is not None:
                    own = weights[:, own_columns].diagonal()
                weights = _turned(weights, own, sign)
                torch.mm(weights, text, out=dimage[rows])
                dtext.addmm_(weights.T, block)
                dbias += weights.sum()
        if not wanted:
            return loss / total
        factor = scale / total
        # A weight's part of dscale is weight * product: the same sum over D instead of over pairs.
        dscale = torch.dot(dimage.flatten(), image.flatten()) / total
        ctx.save_for_backward(dimage.mul_(factor), dtext.mul_(factor), dscale, dbias / total)
        return loss / total

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_second("sigmoid_loss")
        found = [dloss * x for x in ctx.saved_tensors]
        return *found, None, None, None, None


def _turned(x: Tensor, own: Tensor | None, sign: Tensor | None) -> Tensor:
    """Change the sign where pairs match: in place, of the view ``own`` or by ``sign``."""
    if own is not None:
        own.neg_()
    return x if sign is None else x.mul_(sign)


def _number(value: Tensor | float, like: Tensor) -> Tensor:
    """Return it as ``[]``, without an operation where it is that: each takes as long as a row."""
    if not isinstance(value, Tensor):
        return like.new_full((), value)
    value = value.to(like)
    return value if value.dim() == 0 else value.reshape(())


def _eager(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    labels: Tensor | None,
    group: Group | None,
) -> Tensor:
    """The loss with a block of logits made at a time: any device, any torch dtype."""
    if image.dtype != torch.float64:
        image, text = image.float(), text.float()
    first, all_labels = 0, labels
    if group is not None:
        sizes = row_counts(image, group)
        first = sum(sizes[: torch.distributed.get_rank(group)])
        text = gather_rows(text, group, sizes=sizes)
        if labels is not None:
            all_labels = gather_rows(labels, group, sizes=sizes)
    scale, bias = _number(logit_scale, image), _number(logit_bias, image)
    if image.shape[0] * text.shape[0] <= PLAIN_LOGITS:
        return _plain(image, text, scale, bias, labels, all_labels, first)
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (image, text, scale, bias))
    return _Blocks.apply(image, text, scale, bias, labels, all_labels, first, wanted)  # type: ignore[return-value]


def _reference(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    labels: Tensor | None,
    group: Group | None,
) -> Tensor:
    if group is not None:
        raise ValueError("group: the reference of sigmoid_loss runs on one rank only")
    return sigmoid_loss_reference(image, text, logit_scale, logit_bias, labels=labels)


def _triton(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    labels: Tensor | None,
    group: Group | None,
) -> Tensor:
    if group is None:
        return sigmoid_triton(image, text, logit_scale, logit_bias, labels)
    return sigmoid_ranks(image, text, logit_scale, logit_bias, labels, group)


dispatch.register(
    "sigmoid_loss", "triton", _triton, refuses=refuse_triton, devices=("cuda",), first=True
)
dispatch.register("sigmoid_loss", "eager", _eager)
dispatch.register("sigmoid_loss", "reference", _reference, opt_in=True)

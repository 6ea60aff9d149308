"""The losses over all pairs, over the rows of several ranks: by our kernels, or in blocks.

Each rank holds one block of pairs, its images against all texts, and multiplies it once. Rows are
complete there; a column's log-sum-exp is put together from the ranks' parts (8 bytes a column),
and the ranks' gradients of the texts are added up. The other way, a row block and a column block
a rank, each against everything, multiplies twice as much and moves twice the features.

Texts are gathered, not passed round in a ring: 32,768 of 1,024 in bf16 are 67 MB, by arithmetic
0.2 ms at NVLink's 400 GB/s beside 11 ms of products at 790 TFLOP/s, and the sum of a ring's steps
is the same. A ring would only save the memory, and all texts take less of it than the activations
that made one rank's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..collectives import Group, gather_rows
from ..second import refuse_second
from .common import positives_of, scalar

__all__ = ["contrastive_ranks", "row_counts", "sigmoid_ranks"]


def row_counts(x: Tensor, group: Group | None) -> list[int]:
    """Return how many rows each rank holds; read on the host, since they may differ."""
    if group is None:
        return [x.shape[0]]
    count = torch.tensor([x.shape[0]], device=x.device)
    return gather_rows(count, group, sizes=[1] * dist.get_world_size(group)).tolist()


class _Everyone:
    """All ranks' texts and positives, gathered, and where this rank's rows lie among them.

    Without a group a process is everyone there is.
    """

    def __init__(
        self, text: Tensor, labels: Tensor | None, group: Group | None, sizes: list[int]
    ) -> None:
        """Gather."""
        self.group, self.sizes = group, sizes
        self.rank = 0 if group is None else dist.get_rank(group)
        self.first, self.count = sum(sizes[: self.rank]), sum(sizes)
        self.text = self._rows(text.detach())
        all_labels = None if labels is None else self._rows(labels)
        self.positives = positives_of(all_labels, self.own, _sums(text.dtype))

    def _rows(self, x: Tensor) -> Tensor:
        return x if self.group is None else gather_rows(x, self.group, sizes=self.sizes)

    @property
    def own(self) -> slice:
        """This rank's rows."""
        return slice(self.first, self.first + self.sizes[self.rank])

    def stack(self, x: Tensor) -> Tensor:
        """Return one tensor of each rank: ``[world, ...]``."""
        if self.group is None:
            return x[None]
        return gather_rows(x[None], self.group, sizes=[1] * len(self.sizes))

    def own_share_of_sum(self, dtext: Tensor, dtype: torch.dtype) -> Tensor:
        """Add up the ranks' gradients of all texts and take this rank's rows."""
        if self.group is not None:
            dist.all_reduce(dtext, group=self.group)
        return dtext[self.own].to(dtype)


def _sums(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which ranks' gradients are added up."""
    return torch.promote_types(dtype, torch.float32)


class _Contrastive(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, image: Tensor, text: Tensor, scale: Tensor, everyone: _Everyone, steps: Any
    ) -> Tensor:
        ctx.everyone, ctx.steps = everyone, steps
        rows, part = steps.statistics(
            image, everyone.text, scale, everyone.positives, everyone.first
        )
        shifts, logs = everyone.stack(part).unbind(1)  # [world, N]
        columns = part
        if len(everyone.sizes) > 1:
            shift = shifts.amax(0)
            columns = torch.stack([shift, (shifts + logs - shift).exp2().sum(0).log2()])
        ctx.save_for_backward(image, scale, rows, columns)
        return steps.loss(rows, columns, everyone.first, everyone.count)

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_second("contrastive_loss")
        all_, (image, scale, rows, columns) = ctx.everyone, ctx.saved_tensors
        largest, own, weights = dloss, None, None
        if all_.group is not None:
            # A pair of this rank's row and another's column counts in the losses of both ranks.
            every = all_.stack(dloss)
            largest = every.abs().amax()
            relative = every / torch.where(largest == 0, torch.ones_like(largest), largest)
            own = relative[all_.rank].reshape(1)
            weights = torch.cat(
                [one.expand(size) for one, size in zip(relative, all_.sizes, strict=True)]
            )
        wants = ctx.needs_input_grad
        # Every rank takes part in the sum of the texts' gradients, whatever it wants itself.
        dimage, dtext, dscale = ctx.steps.gradients(
            largest.reshape(1), image, all_.text, scale, all_.positives, rows, columns, all_.first,
            all_.count, wants[0], wants[1] or all_.group is not None, own, weights,
            _sums(image.dtype),
        )  # fmt: skip
        if wants[1] or all_.group is not None:
            dtext = all_.own_share_of_sum(dtext, image.dtype)
        return dimage if wants[0] else None, dtext if wants[1] else None, dscale, None, None


class _Sigmoid(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        text: Tensor,
        scale: Tensor,
        bias: Tensor,
        everyone: _Everyone,
        wanted: bool,
    ) -> Tensor:
        ctx.everyone = everyone
        ctx.save_for_backward(image, scale, bias)
        loss, *ctx.made = _sigmoid_block(ctx, image, scale, bias, wanted)
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        refuse_second("sigmoid_loss")
        from .sigmoid_launch import rescale

        made, ctx.made = ctx.made, None
        if made is None:
            image, scale, bias = ctx.saved_tensors
            made = _sigmoid_block(ctx, image, scale, bias, True)[1:]
        dimage, dtext, scalars = made
        upstream, wants = dloss.reshape(1), ctx.needs_input_grad
        rescale(dimage, dtext, upstream, dimage.dtype)
        dtext = ctx.everyone.own_share_of_sum(dtext, dimage.dtype)
        scalars = scalars * upstream
        return (
            dimage if wants[0] else None, dtext if wants[1] else None, scalars[:1], scalars[1:],
            None, None,
        )  # fmt: skip


def _sigmoid_block(
    ctx: Any, image: Tensor, scale: Tensor, bias: Tensor, gradients: bool
) -> tuple[Tensor, ...]:
    from . import sigmoid_launch as launch

    all_ = ctx.everyone
    known = all_.positives
    ids = (None, None) if known is None else (known.rows, known.columns)
    return launch.forward(
        image, all_.text, scale, bias, *ids, all_.first, all_.count, gradients,
        gradients and ctx.needs_input_grad[0], gradients, _sums(image.dtype),
    )  # fmt: skip


def contrastive_ranks(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    labels: Tensor | None,
    group: Group | None,
    sizes: list[int],
    steps: Any,
) -> Tensor:
    """This rank's share of symmetric InfoNCE over the rows of all ranks.

    ``steps``: the module that computes it, `contrastive_launch` or `contrastive_eager`.
    """
    scale = scalar(logit_scale, image.device, _sums(image.dtype))
    everyone = _Everyone(text, labels, group, sizes)
    return _Contrastive.apply(image, text, scale, everyone, steps)  # type: ignore[return-value]


def sigmoid_ranks(
    image: Tensor,
    text: Tensor,
    logit_scale: Tensor | float,
    logit_bias: Tensor | float,
    labels: Tensor | None,
    group: Group,
) -> Tensor:
    """This rank's share of the pairwise sigmoid loss over the rows of all ranks."""
    scale, bias = scalar(logit_scale, image.device), scalar(logit_bias, image.device)
    everyone = _Everyone(text, labels, group, row_counts(text, group))
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in (image, text, scale, bias))
    return _Sigmoid.apply(image, text, scale, bias, everyone, wanted)  # type: ignore[return-value]

"""Linear cross-entropy over chunks of rows: the logits of a chunk become their own gradient.

Losses whose upstream gradient is one number (mean, sum) are differentiated in the forward pass, as
Liger-Kernel does (Hsu et al. 2024, arXiv 2410.10989): while a chunk's logits are there they are
overwritten with the gradient of the rows' *sum*, which two products turn into those of x and of
the weight; the backward pass multiplies by the number. (Of the sum, not the mean: in fp16 a share
of 1 / T would underflow.) With one number a row the chunks are made again in the backward pass.
Rows without loss are never multiplied.

What happens to a chunk is a function of its own, so that this file serves any device: here in torch
operations, in `kernels.cross_entropy.kernel` as one launch. Legend: T rows, n rows with loss,
H width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .table import chunk_rows

__all__ = ["Gradients", "Options", "Problem", "RowStep", "in_chunks", "kept_rows", "row_step"]


@dataclass(frozen=True)
class Options:
    """Scalars of the loss; 0 stands for none."""

    softcap: float = 0.0
    z_loss: float = 0.0
    smoothing: float = 0.0
    ignored: int | None = None
    """Target of rows that are computed and left out; None where `Problem.kept` has dropped them."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What is computed: ``softmax(x weightᵀ + bias)`` against ``targets``."""

    x: Tensor
    """``[T, H]``."""
    weight: Tensor
    """``[V, H]``."""
    targets: Tensor
    """int64 ``[T]``."""
    kept: Tensor | None
    """int64 ``[n]``, ascending: the rows with loss; None: all."""
    bias: Tensor | None
    class_weight: Tensor | None
    """float32 ``[V]`` (float64 for float64 inputs)."""
    options: Options

    @property
    def rows(self) -> int:
        """n, the number of rows that are computed."""
        return self.targets.shape[0] if self.kept is None else self.kept.shape[0]

    def rows_between(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Return x and targets of some of the n rows."""
        if self.kept is None:
            return self.x[first:last], self.targets[first:last]
        kept = self.kept[first:last]
        return self.x.index_select(0, kept), self.targets.index_select(0, kept)


RowStep = Callable[
    [Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None,
     Options, bool],
    None,
]  # fmt: skip
"""``(logits, targets, bias, class_weight, its sum, upstream, losses, options, gradient)``: writes
``losses`` [n] if given, and if wanted the gradient over ``logits`` [n, V]."""


@dataclass(eq=False)
class Gradients:
    """Results of the n rows: x's in its dtype, the others summed in float32; None: not wanted."""

    losses: Tensor | None
    x: Tensor | None
    weight: Tensor | None
    bias: Tensor | None


def kept_rows(targets: Tensor, ignore_index: int | None) -> tuple[Tensor | None, int | None]:
    """Return the rows with loss (None: all), and the target to look for while computing.

    The look waits for a GPU. A CUDA graph cannot wait, so while one is captured no row is dropped:
    those without loss are computed and left out.
    """
    if ignore_index is None:
        return None, None
    if targets.is_cuda and torch.cuda.is_current_stream_capturing():
        return None, ignore_index
    kept = (targets != ignore_index).nonzero().squeeze(1)
    return (None if kept.shape[0] == targets.shape[0] else kept), None


@torch.no_grad()
def in_chunks(
    problem: Problem,
    step: RowStep,
    *,
    upstream: Tensor | None = None,
    losses: bool = True,
    wants: tuple[bool, bool, bool] = (False, False, False),
    row_multiple: int = 1,
    widen: bool = False,
) -> Gradients:
    """Compute losses, and the gradients of the losses' sum weighted by ``upstream``.

    Args:
        problem: see there.
        step: what happens to the logits of a chunk.
        upstream: float32 ``[n]``; None: ones.
        losses: whether losses are wanted.
        wants: gradients of x, weight, bias.
        row_multiple: rows of logits begin at multiples of so many elements.
        widen: whether fp16 and bf16 are computed in float32 (on a CPU it costs nothing).
    """
    x, weight = problem.x, problem.weight
    (vocab, width), rows = weight.shape, problem.rows
    narrow = widen and x.dtype.itemsize < 4
    dtype = torch.float32 if narrow else x.dtype
    exact = torch.float64 if x.dtype == torch.float64 else torch.float32
    if weight.stride(0) != 1 and weight.stride(1) != 1:
        weight = weight.contiguous()  # once, not in each product
    weight = weight.to(dtype)
    new = x.new_empty
    found = Gradients(
        new(rows, dtype=exact) if losses else None,
        new(rows, width) if wants[0] else None,
        new(vocab, width, dtype=exact) if wants[1] else None,
        new(vocab, dtype=exact) if wants[2] else None,
    )
    if rows == 0 or vocab == 0:
        for sums in (found.losses, found.x, found.weight, found.bias):
            if sums is not None:
                sums.zero_()
        return found
    chunk = chunk_rows(rows, width, vocab, dtype.itemsize, x.device.type)
    buffer = new(chunk, -(-vocab // row_multiple) * row_multiple, dtype=dtype)
    weight_sum = None if problem.class_weight is None else problem.class_weight.sum().view(1)
    for first in range(0, rows, chunk):
        last = min(first + chunk, rows)
        x_part, targets = problem.rows_between(first, last)
        x_part = x_part.to(dtype)
        logits = buffer[: last - first, :vocab]
        torch.mm(x_part, weight.t(), out=logits)
        step(
            logits, targets, problem.bias, problem.class_weight, weight_sum,
            None if upstream is None else upstream[first:last],
            None if found.losses is None else found.losses[first:last],
            problem.options, any(wants),
        )  # fmt: skip
        if found.x is not None:
            _product(logits, weight, found.x[first:last])
        if found.weight is not None:
            _sum_of_products(logits.t(), x_part, found.weight, first == 0)
        if found.bias is not None:
            part = logits.sum(0, dtype=exact)
            found.bias.copy_(part) if first == 0 else found.bias.add_(part)
        del x_part, targets  # before the next ones are picked
    return found


def _product(a: Tensor, b: Tensor, out: Tensor) -> None:
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a @ b)


def _sum_of_products(a: Tensor, b: Tensor, total: Tensor, first: bool) -> None:
    """``total (+)= a @ b``, added up in ``total``'s dtype whatever the operands'."""
    if total.dtype == a.dtype:
        torch.mm(a, b, out=total) if first else torch.addmm(total, a, b, out=total)
    elif a.is_cuda:
        if first:
            torch.mm(a, b, out_dtype=total.dtype, out=total)
        else:
            torch.addmm(total, a, b, out_dtype=total.dtype, out=total)
    else:
        a, b = a.to(total.dtype), b.to(total.dtype)
        torch.mm(a, b, out=total) if first else torch.addmm(total, a, b, out=total)


def row_step(
    logits: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    class_weight: Tensor | None,
    weight_sum: Tensor | None,
    upstream: Tensor | None,
    losses: Tensor | None,
    options: Options,
    gradient: bool,
) -> None:
    """The `RowStep` in torch operations, in place as far as they go; formulas: see the kernel's."""
    if logits.dtype.itemsize < 4:
        wide = logits.float()
        row_step(wide, targets, bias, class_weight, weight_sum, upstream, losses, options, gradient)
        if gradient:
            logits.copy_(wide)
        return
    if bias is not None:
        logits.add_(bias)
    slope = None
    if options.softcap:
        logits.div_(options.softcap).tanh_()
        slope = 1 - logits.square() if gradient else None
        logits.mul_(options.softcap)
    live = None
    if options.ignored is not None:
        live = targets != options.ignored
        targets = torch.where(live, targets, 0)
    column = targets[:, None]
    share = options.smoothing / logits.shape[1]
    every = logits.shape[1] if weight_sum is None else weight_sum
    tilted = options.smoothing > 0 and losses is not None
    gap, lse, tilt = _normalise(logits, column, class_weight, every, gradient, tilted)
    own = torch.full_like(gap, 1 - options.smoothing)
    if class_weight is not None:
        own.mul_(class_weight.index_select(0, targets))
    if losses is not None:
        loss = own * gap
        if tilt is not None:
            loss.sub_(tilt, alpha=share)
        if options.z_loss:
            loss.add_(lse.square(), alpha=options.z_loss)
        losses.copy_(loss if live is None else torch.where(live, loss, 0))
    if not gradient:
        return
    dz = logits
    above = torch.ones_like(own) if upstream is None else upstream
    if upstream is not None or class_weight is not None or options.z_loss:  # else it is one
        factor = own + share * every
        factor.add_(lse, alpha=2 * options.z_loss)
        dz.mul_((factor * above)[:, None])
    if options.smoothing:
        spread = above[:, None] * share
        dz.sub_(spread if class_weight is None else spread * class_weight)
    dz.scatter_add_(1, column, (own * above).neg_()[:, None])
    if slope is not None:
        dz.mul_(slope)
    if live is not None:
        dz.masked_fill_(~live[:, None], 0)


def _normalise(
    logits: Tensor,
    column: Tensor,
    class_weight: Tensor | None,
    every: Tensor | int,
    gradient: bool,
    tilted: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Overwrite logits with the softmax p, or with log p where no ``gradient`` is made of them.

    Returns -log p of the target ``column``, the log-normaliser, and if wanted ``sum_v w_v log p_v``
    (``every``: the sum of the class weights w).
    """
    at_target = logits.gather(1, column).squeeze(1)
    top = logits.amax(1) if gradient else None
    if top is None:
        torch.log_softmax(logits, -1, out=logits)
    elif tilted:
        logits.sub_(top[:, None])
    tilt = None
    if tilted:
        tilt = logits.sum(1) if class_weight is None else logits.mv(class_weight)
    if top is None:
        gap = logits.gather(1, column).squeeze(1).neg_()
        return gap, gap + at_target, tilt
    torch.softmax(logits, -1, out=logits)
    # One over the sum of exponentials is the largest share. On a CPU cheaper than exp(log p).
    log_norm = logits.amax(1).log_().neg_()
    if tilt is not None:
        tilt.sub_(every * log_norm)
    return (top - at_target).add_(log_norm), top + log_norm, tilt

"""BatchNorm over the batch of all ranks, on any backend.

torch's `SyncBatchNorm` needs GPUs. Here each rank's count, mean and sum of squared deviations are
gathered once a layer and combined (Chan et al. 1983), through autograd, so that several ranks
compute what one would on the whole batch.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from kernels import gather_rows, resolve_group


def _normalise(module: nn.BatchNorm2d, x: Tensor, group: dist.ProcessGroup) -> Tensor:
    """Batch-normalise ``[N, C, H, W]`` with statistics over ``group``; N may differ, even be 0."""
    wide = x if x.dtype == torch.float64 else x.float()
    channels = x.shape[1]
    count = x.numel() // channels
    if count:
        mean = wide.mean(dim=(0, 2, 3))
        squares = (wide - mean[:, None, None]).square().sum(dim=(0, 2, 3))
    else:
        mean = squares = wide.sum(dim=(0, 2, 3))
    own = torch.cat([mean.new_full((1,), count), mean, squares])[None]
    ranks = gather_rows(own, group, sizes=[1] * dist.get_world_size(group))
    counts, means, deviations = ranks[:, :1], ranks[:, 1 : channels + 1], ranks[:, channels + 1 :]
    total = counts.sum()
    mean = (counts * means).sum(dim=0) / total
    squares = (deviations + counts * (means - mean).square()).sum(dim=0)
    variance = squares / total
    if module.track_running_stats and module.running_mean is not None:
        assert module.running_var is not None and module.num_batches_tracked is not None
        with torch.no_grad():
            module.num_batches_tracked.add_(1)
            share = module.momentum
            if share is None:
                share = 1.0 / float(module.num_batches_tracked)
            unbiased = squares / (total - 1).clamp(min=1)
            module.running_mean.lerp_(mean.to(module.running_mean.dtype), share)
            module.running_var.lerp_(unbiased.to(module.running_var.dtype), share)
    scale = torch.rsqrt(variance + module.eps)
    if module.affine:
        scale = scale * module.weight
    shift = -mean * scale
    if module.affine:
        shift = shift + module.bias
    return (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """`BatchNorm2d` whose training statistics cover all ranks."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        group = resolve_group("world") if self.training else None
        return super().forward(x) if group is None else _normalise(self, x, group)


class GlobalBatchNormAct2d(BatchNormAct2d):
    """timm's BatchNorm with activation, likewise."""

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        group = resolve_group("world") if self.training else None
        if group is None:
            return super().forward(x)
        # A subclass of torch's BatchNorm2d, which type checkers cannot see.
        layer = cast(Any, self)
        return layer.act(layer.drop(_normalise(layer, x, group)))


def share_batchnorm(module: nn.Module) -> None:
    """Make every BatchNorm layer inside ``module`` cover all ranks, keeping names and weights."""
    for layer in module.modules():
        # Only the class changes: same parameters, same buffers, same names in the state dict.
        if type(layer) is nn.BatchNorm2d:
            layer.__class__ = GlobalBatchNorm2d
        elif type(layer) is BatchNormAct2d:
            layer.__class__ = GlobalBatchNormAct2d

"""Windows of stored pictures at a new size, by torch's operations: on a GPU, and on a CPU.

Legend: N pictures, Hs x Ws as stored, H x W of the result.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resized_by_products", "resized_one_by_one"]


@torch.library.custom_op("babyvlm::resize_windows", mutates_args=())
def resized_one_by_one(
    images: Tensor, table: Tensor, height: int, width: int, antialias: bool
) -> Tensor:
    """Return the windows that `COLUMNS` describes, float32 ``[N, 3, H, W]`` in 0 to 255.

    Each picture by itself, so that only its window is touched; reads the table on the host.
    """
    out = torch.empty(images.shape[0], 3, height, width, device=images.device)
    stored_h, stored_w = images.shape[1:3]
    for k, row in enumerate(table[:, :5].tolist()):
        top, left, h, w, flip = map(int, row)
        top, left = min(max(top, 0), stored_h - 1), min(max(left, 0), stored_w - 1)
        window = images[k, top : top + max(h, 1), left : left + max(w, 1)].permute(2, 0, 1)
        x = F.interpolate(
            window[None].float(), (height, width), mode="bilinear", antialias=antialias
        )
        out[k] = x[0].flip(2) if flip else x[0]
    return out


@resized_one_by_one.register_fake
def _(images: Tensor, table: Tensor, height: int, width: int, antialias: bool) -> Tensor:
    shape = (images.shape[0], 3, height, width)
    return torch.empty(shape, dtype=torch.float32, device=images.device)


def _shares(
    start: Tensor, extent: Tensor, stored: int, out: int, antialias: bool, flip: Tensor | None
) -> Tensor:
    """Share of each stored pixel of an axis in each output pixel, float32 ``[N, out, stored]``.

    Positions are counted in 1 / (2 out) of a stored pixel: output i lies at (2 i + 1) extent,
    stored j at (2 j + 1) out, and shares fall linearly to 0 over the reach. All whole numbers.
    """
    start, extent = (v.int()[:, None, None] for v in (start, extent))
    i = torch.arange(out, dtype=torch.int32, device=start.device)[None, :, None]
    if flip is not None:
        i = torch.where(flip[:, None, None] > 0, out - 1 - i, i)
    j = torch.arange(stored, dtype=torch.int32, device=start.device) - start  # [N, 1, stored]
    reach = (2 * extent).clamp(min=2 * out) if antialias else 2 * out
    share = (reach - ((2 * j + 1) * out - (2 * i + 1) * extent).abs()).clamp(min=0)
    share = torch.where((j >= 0) & (j < extent), share, 0)
    return share / share.sum(2, keepdim=True)


def resized_by_products(
    images: Tensor, table: Tensor, height: int, width: int, antialias: bool
) -> Tensor:
    """Windows of ``[N, Hs, Ws, 3]`` at the new size, float32 ``[N, 3, H, W]`` in 0 to 255."""
    pictures, stored_h, stored_w, _ = images.shape
    top, left, h, w, flip = table[:, :5].unbind(1)
    down = _shares(top, h, stored_h, height, antialias, None)
    across = _shares(left, w, stored_w, width, antialias, flip)
    with torch.autocast(images.device.type, enabled=False):
        x = torch.bmm(down, images.reshape(pictures, stored_h, stored_w * 3).float())
        x = x.view(pictures, height, stored_w, 3).permute(0, 3, 1, 2)
        x = x.reshape(pictures, 3 * height, stored_w)
        return torch.bmm(x, across.mT).view(pictures, 3, height, width)

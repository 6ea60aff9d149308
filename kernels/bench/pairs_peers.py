"""Who computes the losses over all pairs: ours, torch's operations, open_clip, Inf-CL, CCE.

The libraries are imported when they are measured. open_clip runs as it trains, under autocast.
Inf-CL and cut-cross-entropy know one direction of InfoNCE: both are asked for. cut-cross-entropy
skips gradients below a threshold by default; it is measured with that and without.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..pairs.contrastive import contrastive_loss
from ..pairs.sigmoid import sigmoid_loss
from .attention_peers import forced
from .pairs_cases import OPS, PairInputs, Pairs
from .peers import (
    Peer,
    Run,
    anywhere,
    grads_of,
    installed,
    needs_gpu,
    needs_triton,
    register_peer,
)

__all__ = ["MOST_ROWS_WHOLE"]

MOST_ROWS_WHOLE = 65_536
"""Beyond this the float32 matrices of a step, 17 GB each, do not fit beside each other."""

Loss = Callable[..., Tensor]
"""``(image, text, scale)`` or ``(image, text, scale, bias)`` to the loss."""


def _run(make: Callable[[PairInputs], Loss], inputs: PairInputs, **more: Any) -> Run:
    loss, leaves = make(inputs), inputs.leaves

    def collect(out: Tensor, grads: tuple[Tensor, ...]) -> dict[str, Tensor]:
        found = {"loss": out, **{f"d{n}": x for n, x in zip(inputs.tensors, grads, strict=True)}}
        # Three digits: of one number, the path that it is compared with may have more by luck.
        return {name: x.half() if x.dim() == 0 else x for name, x in found.items()}

    return Run(inputs, lambda: loss(*leaves), grads_of(inputs), collect, **more)


# Ours --------------------------------------------------------------------------------------------

_PUBLIC: dict[str, Loss] = {OPS[0]: contrastive_loss, OPS[1]: sigmoid_loss}


def _ours(op: str, name: str, inputs: PairInputs) -> Run:
    return _run(lambda _: _PUBLIC[op], inputs, around=partial(forced, op, name))


# torch's operations ------------------------------------------------------------------------------


def _plain_contrastive(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    logits, target = (scale * image) @ text.T, torch.arange(image.shape[0], device=image.device)
    wide = logits.float()
    return (F.cross_entropy(wide, target) + F.cross_entropy(wide.T, target)) / 2


def _plain_sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    logits = (scale * image) @ text.T + bias
    sign = 2 * torch.eye(image.shape[0], device=image.device, dtype=logits.dtype) - 1
    return -F.logsigmoid((sign * logits).float()).sum() / image.shape[0]


_PLAIN: dict[str, Loss] = {OPS[0]: _plain_contrastive, OPS[1]: _plain_sigmoid}


def _compiled(make: Callable[[PairInputs], Loss], inputs: PairInputs) -> Loss:
    torch._dynamo.reset()
    return torch.compile(make(inputs), dynamic=False)


def _whole(spec: Pairs) -> str | None:
    return "its matrices do not fit" if spec.rows > MOST_ROWS_WHOLE else None


# Libraries ---------------------------------------------------------------------------------------


def _chunked(device: torch.device) -> str | None:
    why = installed("open_clip", device)
    if why is not None:
        return why
    made = importlib.import_module("open_clip.loss").SigLipLoss
    known = "chunk_size" in inspect.signature(made).parameters
    return None if known else "this open_clip has no chunk_size"


def _open_clip(op: str, inputs: PairInputs, **options: Any) -> Loss:
    losses = importlib.import_module("open_clip.loss")
    loss = (losses.ClipLoss if op == OPS[0] else losses.SigLipLoss)(**options)
    image = inputs.tensors["image"]
    narrow = image.dtype in (torch.float16, torch.bfloat16)

    def run(*leaves: Tensor) -> Tensor:
        with torch.autocast(image.device.type, image.dtype if narrow else None, enabled=narrow):
            return loss(*leaves)

    return run


def _both_directions(one: Callable[[Tensor, Tensor, Tensor], Tensor], inputs: PairInputs) -> Loss:
    target = torch.arange(inputs.spec.rows, device=inputs.tensors["image"].device)

    def run(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
        scale = scale.to(image.dtype)
        return (one(scale * image, text, target) + one(scale * text, image, target)) / 2

    return run


def _inf_cl(inputs: PairInputs) -> Loss:
    rows = importlib.import_module("inf_cl").cal_flash_loss
    width = min(inputs.spec.width, 256)
    return _both_directions(lambda a, b, target: rows(a, b, target, head_dim=width).mean(), inputs)


def _cce(inputs: PairInputs, **options: Any) -> Loss:
    found = importlib.import_module("cut_cross_entropy").linear_cross_entropy
    return _both_directions(partial(found, **options), inputs)


def _whole_heads(spec: Pairs) -> str | None:
    return None if spec.width in (16, 32, 64, 128) or spec.width % 256 == 0 else "widths of 256s"


# Registration ------------------------------------------------------------------------------------


_COMPILED = {"torch": "torch_compile", "open_clip": "clip_compile"}
for _op in OPS:
    for _name, _doc, _where in (
        ("triton", "ours: Triton kernels", needs_triton),
        ("eager", "ours: torch's operations, blocks of logits", anywhere),
    ):
        register_peer(Peer(_op, _name, _doc, _where, partial(_ours, _op, _name), ours=True))
    for _name, _doc, _make, _where in (
        ("torch", "torch's operations, the matrix whole",
         lambda _, op=_op: _PLAIN[op], anywhere),
        ("open_clip", "open_clip's loss", partial(_open_clip, _op),
         partial(installed, "open_clip", gpu=False)),
    ):  # fmt: skip
        register_peer(Peer(_op, _name, _doc, _where, partial(_run, _make), _whole))
        _where = needs_gpu if _name == "torch" else partial(installed, "open_clip")
        register_peer(
            Peer(_op, _COMPILED[_name], f"{_doc}, compiled", _where,
                 partial(_run, partial(_compiled, _make)), _whole, full_only=True)
        )  # fmt: skip
register_peer(
    Peer(OPS[1], "clip_chunked", "open_clip's loss, 512 rows at a time", _chunked,
         partial(_run, partial(_open_clip, OPS[1], chunk_size=512)))
)  # fmt: skip
register_peer(
    Peer(OPS[0], "inf_cl", "Inf-CL, both directions", partial(installed, "inf_cl"),
         partial(_run, _inf_cl), _whole_heads)
)  # fmt: skip
for _name, _doc, _options in (
    ("cce", "cut-cross-entropy, both directions, small gradients skipped", {}),
    ("cce_unfiltered", "cut-cross-entropy, both directions", {"filter_eps": None}),
):
    register_peer(
        Peer(OPS[0], _name, _doc, partial(installed, "cut_cross_entropy"),
             partial(_run, partial(_cce, **_options)))
    )  # fmt: skip

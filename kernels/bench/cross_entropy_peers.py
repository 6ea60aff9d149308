"""Who computes linear cross-entropy: ours, torch's operations, and the libraries where installed.

Liger-Kernel, cut-cross-entropy and quack are imported when they are measured. Liger-Kernel adds up
the weight's gradient in its own dtype by default, cut-cross-entropy skips gradients below a
threshold: both are measured with that and without.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import linear_cross_entropy, linear_logprobs
from .attention_peers import forced
from .cross_entropy_cases import LinearInputs, LinearLoss
from .peers import Peer, Run, anywhere, grads_of, installed, needs_triton, register_peer

__all__ = ["EVERY_ROW", "LOGITS_ALONE"]

EVERY_ROW = "loss of every row"
LOGITS_ALONE = "logits alone, stored"

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(x, weight, targets)`` to the mean loss."""


def _named(out: Tensor, grads: tuple[Tensor, ...]) -> dict[str, Tensor]:
    # Three digits: of one number, the path that it is compared with may have more by luck.
    return {"loss": out.half(), **dict(zip(("dx", "dw"), grads, strict=True))}


def _loss_run(make: Callable[[], Loss], inputs: LinearInputs, **more: Any) -> Run:
    loss, (x, weight), targets = make(), inputs.leaves, inputs.targets
    return Run(inputs, lambda: loss(x, weight, targets), grads_of(inputs), _named, **more)


def _scores(make: Callable[[], Loss], inputs: LinearInputs, **more: Any) -> Run:
    score, (x, weight), targets = make(), inputs.leaves, inputs.targets

    @torch.no_grad()
    def forward() -> Tensor:
        return score(x, weight, targets)

    return Run(inputs, forward, None, lambda out, _: {"logprobs": out}, **more)


# Ours --------------------------------------------------------------------------------------------


def _ours(op: str, name: str, inputs: LinearInputs) -> Run:
    around = partial(forced, op, name)
    if op == "linear_logprobs":
        return _scores(lambda: linear_logprobs, inputs, around=around)
    ignored = None if inputs.spec.kept == inputs.spec.rows else -100
    loss = partial(linear_cross_entropy, ignore_index=ignored)
    return _loss_run(lambda: loss, inputs, around=around)


def _every_row(inputs: LinearInputs) -> Run:
    """What dropping rows without loss is measured against."""
    every = inputs.with_every_row()
    loss = partial(linear_cross_entropy, ignore_index=None)
    return _loss_run(lambda: loss, every, computes=EVERY_ROW)


def _drops_rows(spec: LinearLoss) -> str | None:
    return "every row has a loss" if spec.kept == spec.rows else None


# torch's operations ------------------------------------------------------------------------------


def _plain_loss(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(x, weight).float(), targets)


def _plain_scores(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return -F.cross_entropy(F.linear(x, weight).float(), targets, reduction="none")


def _compiled(function: Loss) -> Loss:
    torch._dynamo.reset()
    return torch.compile(function, dynamic=False)


def _one_product(inputs: LinearInputs) -> Run:
    def collect(out: Tensor, _: None) -> dict[str, Tensor]:
        scores = torch.log_softmax(out.float(), -1)
        return {"logprobs": scores.gather(1, inputs.targets[:, None]).squeeze(1)}

    run = _scores(lambda: lambda x, weight, _: F.linear(x, weight), inputs, computes=LOGITS_ALONE)
    run.collect = collect
    return run


# Libraries ---------------------------------------------------------------------------------------


def _liger(**options: Any) -> Loss:
    found = importlib.import_module("liger_kernel.transformers.functional")
    return partial(found.liger_fused_linear_cross_entropy, **options)


def _cce(**options: Any) -> Loss:
    return partial(importlib.import_module("cut_cross_entropy").linear_cross_entropy, **options)


def _quack() -> Loss:
    return importlib.import_module("quack.linear_cross_entropy").chunked_linear_cross_entropy


def _multiples_of_eight(spec: LinearLoss) -> str | None:
    return "rows of 16 bytes alone" if spec.vocab % 8 or spec.width % 8 else None


# Registration ------------------------------------------------------------------------------------


for _op in ("linear_cross_entropy", "linear_logprobs"):
    register_peer(
        Peer(_op, "triton", "ours: Triton kernels, cuBLAS products", needs_triton,
             partial(_ours, _op, "triton"), ours=True)
    )  # fmt: skip
    register_peer(
        Peer(_op, "chunked", "ours: torch operations on chunks of rows", anywhere,
             partial(_ours, _op, "chunked"), ours=True)
    )  # fmt: skip
register_peer(
    Peer("linear_cross_entropy", "every_row", "ours, with a loss in every row", anywhere,
         _every_row, _drops_rows, ours=True)
)  # fmt: skip
for _name, _doc, _make in (
    ("torch", "F.cross_entropy(F.linear(x, w).float())", lambda: _plain_loss),
    ("torch_compile", "the same, compiled", lambda: _compiled(_plain_loss)),
):
    register_peer(
        Peer("linear_cross_entropy", _name, _doc, anywhere, partial(_loss_run, _make),
             full_only=_name == "torch_compile")
    )  # fmt: skip
for _name, _doc, _make in (
    ("torch", "F.cross_entropy(F.linear(x, w).float()) row by row", lambda: _plain_scores),
    ("torch_compile", "the same, compiled", lambda: _compiled(_plain_scores)),
):
    register_peer(
        Peer("linear_logprobs", _name, _doc, anywhere, partial(_scores, _make),
             full_only=_name == "torch_compile")
    )  # fmt: skip
register_peer(Peer("linear_logprobs", "one_product", "the product alone", anywhere, _one_product))
for _name, _doc, _options in (
    ("liger", "Liger-Kernel, dW added up in float32", {"accum_dtype": torch.float32}),
    ("liger_default", "Liger-Kernel, dW added up in its own dtype", {}),
):
    register_peer(
        Peer("linear_cross_entropy", _name, _doc,
             partial(installed, "liger_kernel.transformers.functional"),
             partial(_loss_run, partial(_liger, **_options)))
    )  # fmt: skip
register_peer(
    Peer("linear_cross_entropy", "cce", "cut-cross-entropy, small gradients skipped",
         partial(installed, "cut_cross_entropy"), partial(_loss_run, _cce))
)  # fmt: skip
register_peer(
    Peer("linear_cross_entropy", "cce_unfiltered", "cut-cross-entropy, all gradients",
         partial(installed, "cut_cross_entropy"),
         partial(_loss_run, partial(_cce, filter_eps=None)))
)  # fmt: skip
register_peer(
    Peer("linear_cross_entropy", "quack", "quack, chunked linear cross-entropy",
         partial(installed, "quack.linear_cross_entropy"), partial(_loss_run, _quack),
         _multiples_of_eight)
)  # fmt: skip

"""Who takes a step of AdamW: ours, and torch's optimizers behind torch's clipping.

Each has weights, gradients and state of its own and goes on with them from call to call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..optimizer import AdamW
from .adamw_cases import DECAY, HYPER, OP, TAKEN, StepInputs
from .attention_peers import forced
from .peers import Peer, Run, anywhere, needs_gpu, needs_triton, register_peer


class _Own:
    """One peer's copy of a problem."""

    def __init__(self, inputs: StepInputs) -> None:
        self.wide = [x.clone() for x in inputs.leaves]
        self.grads = [x.clone() for x in inputs.grads]
        self.exp_avgs = [x.clone() for x in inputs.exp_avgs]
        self.exp_avg_sqs = [x.clone() for x in inputs.exp_avg_sqs]
        self.narrow = [x.bfloat16() for x in self.wide] if inputs.spec.masters else None

    def adopt(self, optimizer: torch.optim.Optimizer, params: list[Tensor]) -> None:
        """Give an optimizer of ``params`` the state."""
        for at, p in enumerate(params):
            optimizer.state[p] = {
                "step": torch.full((), float(TAKEN), device=p.device),
                "exp_avg": self.exp_avgs[at],
                "exp_avg_sq": self.exp_avg_sqs[at],
            }

    def named(self, *_: Any) -> dict[str, Tensor]:
        """Name what a step wrote."""

        def flat(xs: list[Tensor]) -> Tensor:
            return torch.cat([x.detach().flatten() for x in xs])

        found = {
            "weights": flat(self.wide), "exp_avgs": flat(self.exp_avgs),
            "exp_avg_sqs": flat(self.exp_avg_sqs),
        }  # fmt: skip
        if self.narrow is not None:
            found["narrow"] = flat(self.narrow)
        return found


def _groups(params: list[Tensor]) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in params if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in params if p.dim() < 2], "weight_decay": 0.0},
    ]


def _ours(name: str, inputs: StepInputs) -> Run:
    own = _Own(inputs)
    params = own.wide if own.narrow is None else own.narrow
    for p, g in zip(params, own.grads, strict=True):
        p.grad = g
    optimizer = AdamW(
        _groups(params), max_norm=inputs.spec.clip, master_weights=inputs.spec.masters, **HYPER
    )
    own.adopt(optimizer, params)
    if inputs.spec.masters:
        for p, w in zip(params, own.wide, strict=True):
            optimizer.state[p]["master"] = w
    return Run(inputs, optimizer.step, None, own.named, around=partial(forced, OP, name))


def _torch(
    options: dict[str, Any], inputs: StepInputs, around: Callable[..., Any] | None = None
) -> Run:
    own, clip = _Own(inputs), inputs.spec.clip
    wide_grads = own.grads if own.narrow is None else [torch.empty_like(x) for x in own.wide]
    for p, g in zip(own.wide, wide_grads, strict=True):
        p.grad = g
    lr = {"lr": torch.tensor(HYPER["lr"], device=own.wide[0].device)} if around else {}
    optimizer = torch.optim.AdamW(_groups(own.wide), **(HYPER | lr), **options)
    own.adopt(optimizer, own.wide)
    narrow = own.narrow

    def step() -> None:
        if narrow is not None:
            torch._foreach_copy_(wide_grads, own.grads)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(own.wide, clip)
        optimizer.step()
        if narrow is not None:
            torch._foreach_copy_(narrow, own.wide)

    run = step if around is None else around(step)

    def forward() -> None:
        with torch.no_grad():
            run()

    return Run(inputs, forward, None, own.named)


def _compiled(inputs: StepInputs) -> Run:
    torch._dynamo.reset()
    return _torch({"foreach": True, "capturable": True}, inputs, torch.compile)


for _name, _doc, _where in (
    ("triton", "ours: one launch, with the norm two", needs_triton),
    ("eager", "ours: torch's fused", anywhere),
):
    register_peer(Peer(OP, _name, _doc, _where, partial(_ours, _name), ours=True))
for _name, _doc, _options in (
    ("torch_fused", "torch.optim.AdamW(fused=True)", {"fused": True}),
    ("torch_foreach", "torch.optim.AdamW(foreach=True)", {"foreach": True}),
):
    register_peer(Peer(OP, _name, _doc, anywhere, partial(_torch, _options)))
register_peer(
    Peer(
        OP, "torch_compile", "clipping and foreach, compiled", needs_gpu, _compiled, full_only=True
    )
)

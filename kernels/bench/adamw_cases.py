"""One step of AdamW with all of GPT-2 small: cases, truth and work.

Bound by memory: 28 bytes a parameter in float32 (gradient in; weight and two moments in and out),
4 more where the norm is needed first; with float32 masters of bfloat16 weights 28 and 2. Weights,
or masters, are float32 whatever dtype is asked for: that is what is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..reference import adamw_reference
from .cases import Case, Inputs, Op, Part, Scale, Work, register_case, register_op

__all__ = ["HYPER", "OP", "TAKEN", "Model", "StepInputs"]

OP = "adamw"
TAKEN = 10
"""Steps taken before."""
HYPER: dict[str, Any] = {"lr": 6e-4, "betas": (0.9, 0.95), "eps": 1e-8}
DECAY = 0.1
_PIECE = 256
"""Elements at either end of each tensor that a spot check looks at."""


@dataclass(frozen=True)
class Model:
    """A GPT-2; ``clip``: the largest norm of its gradients; ``masters``: weights in bfloat16."""

    layers: int = 12
    width: int = 768
    words: int = 50_257
    positions: int = 1024
    clip: float | None = None
    masters: bool = False

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of its parameters; the output layer is the table of words."""
        n = self.width
        block = [
            (n,), (n,), (n, 3 * n), (3 * n,), (n, n), (n,), (n,), (n,), (n, 4 * n), (4 * n,),
            (4 * n, n), (n,),
        ]  # fmt: skip
        return [(self.words, n), (self.positions, n), *block * self.layers, (n,), (n,)]

    @property
    def parameters(self) -> int:
        """How many numbers these are."""
        return sum(torch.Size(shape).numel() for shape in self.shapes)

    def __str__(self) -> str:
        """Describe it in one line."""
        more = f", clipped at {self.clip:g}" if self.clip else ""
        kind = "bfloat16 with masters" if self.masters else "float32"
        return f"{self.parameters:,} in {len(self.shapes)} tensors, {kind}{more}"


@dataclass(eq=False)
class StepInputs(Inputs):
    """``tensors`` are the float32 weights; nobody may write to any of these."""

    grads: list[Tensor]
    exp_avgs: list[Tensor]
    exp_avg_sqs: list[Tensor]


def _build(spec: Model, device: torch.device, _: torch.dtype, seed: int) -> StepInputs:
    generator = torch.Generator(device=device).manual_seed(seed)

    def draw(scale: float) -> list[Tensor]:
        return [
            torch.randn(shape, generator=generator, device=device).mul_(scale)
            for shape in spec.shapes
        ]

    size = spec.parameters**-0.5  # the gradients' norm is 1
    weights, grads, first, second = draw(0.02), draw(size), draw(size), draw(size)
    if spec.masters:
        grads = [g.bfloat16() for g in grads]
    names = {f"w{at}": x for at, x in enumerate(weights)}
    return StepInputs(spec, names, None, grads, first, [x.square_() for x in second])


def _parts(inputs: StepInputs, everything: bool) -> Sequence[Part]:
    spec: Model = inputs.spec
    sizes = [x.numel() for x in inputs.leaves]

    def ends(x: Tensor) -> Tensor:
        x = x.flatten()
        if everything or len(x) <= 2 * _PIECE:
            return x
        return torch.cat([x[:_PIECE], x[-_PIECE:]])

    def pick(_: str, x: Tensor) -> Tensor:
        return torch.cat([ends(part) for part in x.split(sizes)])

    def truth(dtype: torch.dtype) -> dict[str, Tensor]:
        norms = [torch.linalg.vector_norm(g, dtype=dtype) for g in inputs.grads]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        scale = min(1.0, spec.clip / (float(norm) + 1e-6)) if spec.clip else 1.0
        found: dict[str, list[Tensor]] = {"weights": [], "exp_avgs": [], "exp_avg_sqs": []}
        everything_of = zip(
            inputs.leaves, inputs.grads, inputs.exp_avgs, inputs.exp_avg_sqs, strict=True
        )
        for w, g, m, v in everything_of:
            taken = torch.full((), float(TAKEN), device=w.device)
            p, grad, m, v = (ends(x).to(dtype, copy=True) for x in (w, g, m, v))
            adamw_reference([p], [grad * scale], [m], [v], [taken], weight_decay=_decay(w), **HYPER)
            for xs, x in zip(found.values(), (p, m, v), strict=True):
                xs.append(x)
        named = {name: torch.cat(xs) for name, xs in found.items()}
        if spec.masters:
            wide = dtype == torch.float64
            named["narrow"] = named["weights"] if wide else named["weights"].bfloat16()
        return named

    return [Part("every tensor" if everything else "the ends of each tensor", truth, pick)]


def _decay(w: Tensor) -> float:
    return DECAY if w.dim() > 1 else 0.0


def _work(spec: Model, _: torch.dtype) -> dict[str, Work]:
    grad = 2 if spec.masters else 4
    each = 24 + grad * (2 if spec.clip else 1) + (2 if spec.masters else 0)
    return {"fwd": Work(each * spec.parameters, 0)}


def _case(name: str, doc: str, spec: Model) -> None:
    def described(scale: Scale) -> Model:
        if scale == "full":
            return spec
        if scale == "small":  # as many tensors: the host's part
            return replace(spec, width=64, words=1000, positions=64)
        return replace(spec, layers=1, width=16, words=40, positions=8)

    register_case(Case(OP, name, doc, described))


register_op(Op(OP, "one step of AdamW", ("fwd",), _build, _parts, _work))
_case("ADAMW-124M", "float32", Model())
_case("ADAMW-124M-clip", "and the norm of all gradients", Model(clip=0.5))
_case("ADAMW-124M-bf16", "bfloat16 weights and their masters", Model(masters=True))
_case("ADAMW-124M-bf16-clip", "and the norm", Model(clip=0.5, masters=True))

"""Problems of the losses over all pairs, and the comparison of our kernels with the references."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from support.numerics import DEVICE, assert_error_at_most_twice
from support.row_ops import backend
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kernels.pairs.contrastive import contrastive_loss
from kernels.pairs.sigmoid import sigmoid_loss
from kernels.reference import contrastive_loss_reference, sigmoid_loss_reference

__all__ = [
    "LOSSES", "LargestTensor", "Pairs", "compare", "evaluate", "features", "labels_of", "public",
    "reference", "scalars_of",
]  # fmt: skip

LOSSES = ("contrastive", "sigmoid")


@dataclass(frozen=True)
class Pairs:
    """Features of ``count`` pairs, and how the loss sees them."""

    loss: str = "contrastive"
    count: int = 70
    dim: int = 40
    dtype: torch.dtype = torch.float32
    labels: int = 0
    """Rows share this many labels; 0: no labels."""
    scale: float = 14.0
    bias: float = -8.0
    """Of the sigmoid loss."""
    match: float = 0.0
    """How far texts are drawn towards their images: 0 untrained, 1 equal."""
    upstream: float = 1.0
    """The gradient of the loss."""


def features(pairs: Pairs, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return images and texts ``[N, D]`` of unit length."""
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(pairs.count, pairs.dim, generator=generator) for _ in range(2))
    text = pairs.match * image + (1 - pairs.match) * text
    image, text = (F.normalize(x, dim=1).to(DEVICE, pairs.dtype) for x in (image, text))
    return image, text


def labels_of(pairs: Pairs) -> Tensor | None:
    """Return int64 labels ``[N]``, far apart and negative too."""
    if not pairs.labels:
        return None
    generator = torch.Generator().manual_seed(7)
    drawn = torch.randint(pairs.labels, (pairs.count,), generator=generator)
    return (drawn.to(DEVICE) - pairs.labels // 2) * 3_000_000_007


def _run(
    pairs: Pairs, function: object, leaves: list[Tensor], labels: Tensor | None
) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in leaves]
    loss = function(*leaves, labels)  # type: ignore[operator]
    upstream = torch.full_like(loss, pairs.upstream)
    return [loss.detach(), *torch.autograd.grad(loss, leaves, upstream)]


def scalars_of(pairs: Pairs, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Return scale and, for the sigmoid loss, bias."""
    values = [pairs.scale] if pairs.loss == "contrastive" else [pairs.scale, pairs.bias]
    return [torch.tensor(x, dtype=torch.float32).to(DEVICE, dtype) for x in values]


def public(pairs: Pairs, *given: Tensor | None) -> Tensor:
    """Call the public function with features, scalars and labels."""
    *leaves, labels = given
    function = contrastive_loss if pairs.loss == "contrastive" else sigmoid_loss
    return function(*leaves, labels=labels)  # type: ignore[arg-type]


def evaluate(pairs: Pairs, image: Tensor, text: Tensor, name: str = "triton") -> list[Tensor]:
    """Run an implementation: the loss, the gradients of image, text, scale (and bias)."""
    with backend(f"{pairs.loss}_loss", name):
        return _run(
            pairs, partial(public, pairs), [image, text, *scalars_of(pairs)], labels_of(pairs)
        )


def reference(
    pairs: Pairs, image: Tensor, text: Tensor, dtype: torch.dtype, scalars: torch.dtype
) -> list[Tensor]:
    """Run the reference with features cast to ``dtype`` and scale and bias to ``scalars``."""

    def function(*leaves: Tensor) -> Tensor:
        *rest, labels = leaves
        if pairs.loss == "contrastive":
            return contrastive_loss_reference(*rest, labels=labels)
        return sigmoid_loss_reference(*rest, labels=labels)

    leaves = [image.to(dtype), text.to(dtype), *scalars_of(pairs, scalars)]
    return _run(pairs, function, leaves, labels_of(pairs))


def compare(
    pairs: Pairs, given: tuple[Tensor, Tensor] | None = None, name: str = "triton"
) -> list[Tensor]:
    """Hold loss and gradients against fp64 and PyTorch's fp32 operations on the same features.

    The path is fp32 throughout, its gradients rounded to the features' dtype: stricter than that
    dtype's own operations. What is added to twice its error: the roundings to that dtype that
    weights and gradients cannot avoid, and one fp32 rounding of the largest logit, which
    exponentials turn into a relative error.
    """
    image, text = given or features(pairs)
    ours = evaluate(pairs, image, text, name)
    path = reference(pairs, image, text, torch.float32, torch.float32)
    exact = reference(pairs, image, text, torch.float64, torch.float64)
    products = image.double() @ text.double().T
    logit = abs(pairs.scale) * float(products.abs().max()) + abs(pairs.bias)
    step = torch.finfo(pairs.dtype).eps / torch.finfo(torch.float32).eps
    names = ("loss", "dimage", "dtext", "dscale", "dbias")
    for name, a, b, c in zip(names, ours, path, exact, strict=False):
        if name in ("dimage", "dtext"):
            b = b.to(pairs.dtype)
            terms = _weight_rounding(pairs, image, text) * step + logit * float(c.abs().max())
        else:
            one = products.abs().max() if name == "dscale" else 1.0
            terms = max(1.0, logit) * float(c.abs()) + float(one) * abs(pairs.upstream) * 2
        assert a.dtype == b.dtype, f"{name}: {a.dtype}"
        assert_error_at_most_twice(f"{name} of {pairs}", a, b, c, terms=terms)
    return ours


def _weight_rounding(pairs: Pairs, image: Tensor, text: Tensor) -> float:
    """The largest term of a gradient: a weight of at most 2 (1), a feature, the factors."""
    weight = 1.0 / pairs.count
    return weight * abs(pairs.scale * pairs.upstream) * float(torch.cat([image, text]).abs().max())


class LargestTensor(TorchDispatchMode):
    """Remember how many elements the largest tensor has that any operation gives."""

    elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Look at what the operation gives."""
        found = func(*args, **(kwargs or {}))
        for x in found if isinstance(found, (tuple, list)) else (found,):
            if isinstance(x, Tensor):
                self.elements = max(self.elements, x.numel())
        return found

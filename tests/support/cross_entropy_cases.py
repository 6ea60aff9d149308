"""Linear cross-entropy problems for tests, and their comparison with fp64 and with PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from support.numerics import DEVICE, assert_error_at_most_twice
from torch import Tensor

from kernels import dispatch, linear_cross_entropy, linear_logprobs
from kernels.reference import linear_cross_entropy_reference

__all__ = [
    "OPTIONS",
    "Problem",
    "compare",
    "forced",
    "inputs",
    "loss_and_grads",
    "options_of",
    "torch_path",
]

OPTIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "bias": {"bias": True},
    "softcap": {"softcap": 2.0},
    "z_loss": {"z_loss": 0.1},
    "smoothing": {"label_smoothing": 0.2},
    "class": {"class_weight": True},
    "class smoothing": {"class_weight": True, "label_smoothing": 0.2},
    "all": {
        "bias": True, "softcap": 3.0, "z_loss": 0.01, "label_smoothing": 0.1, "class_weight": True,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Problem:
    """Shapes, dtype and options of one call."""

    rows: int = 7
    width: int = 16
    vocab: int = 33
    dtype: torch.dtype = torch.float32
    options: dict[str, Any] = field(default_factory=dict)
    """Of `linear_cross_entropy`; ``bias`` and ``class_weight`` are True where wanted."""
    reduction: str = "none"
    ignored: tuple[int, ...] = ()
    """Rows without loss."""
    spread: float = 1.0
    """Standard deviation of the logits."""
    seed: int = 0

    def but(self, **changes: Any) -> Problem:
        """Return the same problem with changes."""
        return replace(self, **changes)


def inputs(problem: Problem) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return x, weight, bias, targets and an upstream gradient of the reduced loss."""
    generator = torch.Generator().manual_seed(problem.seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    rows, width, vocab = problem.rows, problem.width, problem.vocab
    x, weight = draw(rows, width), draw(vocab, width) * (problem.spread * width**-0.5)
    bias = draw(vocab)
    targets = torch.randint(vocab, (rows,), generator=generator)
    targets[list(problem.ignored)] = -100
    upstream = draw(rows) if problem.reduction == "none" else draw(1).squeeze(0)
    x, weight, bias = (y.to(problem.dtype).to(DEVICE) for y in (x, weight, bias))
    return x, weight, bias, targets.to(DEVICE), upstream.to(DEVICE)


def options_of(problem: Problem, bias: Tensor, dtype: torch.dtype) -> dict[str, Any]:
    """Return the keyword arguments of a call, tensors in ``dtype``."""
    options = dict(problem.options)
    if options.pop("bias", False):
        options["bias"] = bias
    if options.pop("class_weight", False):
        weights = torch.linspace(0.5, 2, problem.vocab, dtype=dtype)
        options["class_weight"] = weights.to(bias.device)
    return options | {"reduction": problem.reduction}


@contextmanager
def forced(name: str) -> Iterator[None]:
    """Let nothing but the named implementation run."""
    for op in ("linear_cross_entropy", "linear_logprobs"):
        dispatch.set_backend(op, name)
    try:
        yield
    finally:
        for op in ("linear_cross_entropy", "linear_logprobs"):
            dispatch.set_backend(op, None)


def loss_and_grads(
    function: Callable[..., Tensor],
    problem: Problem,
    made: tuple[Tensor, ...],
    dtype: torch.dtype | None = None,
) -> list[Tensor]:
    """Return the loss, dx, dW and, with a bias, dbias; ``dtype``: cast the inputs to it."""
    x, weight, bias, targets, upstream = made
    x, weight, bias = (y.detach().to(dtype or y.dtype) for y in (x, weight, bias))
    leaves = [y.requires_grad_() for y in (x, weight, bias)]
    options = options_of(problem, bias, dtype or torch.float32)
    leaves = leaves if "bias" in options else leaves[:2]
    loss = function(x, weight, targets, **options)
    grads = torch.autograd.grad(loss, leaves, upstream.to(loss.dtype))
    return [loss.detach(), *grads]


def torch_path(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """PyTorch's own: logits in the dtype of x, the loss in float32."""
    logits = F.linear(x, weight, bias).float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    loss = F.cross_entropy(
        logits, targets, class_weight, label_smoothing=label_smoothing, reduction="none"
    )
    if z_loss:
        live = targets != -100
        loss = loss + z_loss * torch.where(live, torch.logsumexp(logits, -1).square(), 0)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    kept = targets[targets != -100]
    total = kept.numel() if class_weight is None else class_weight[kept].sum()
    return loss.sum() / (total if total else 1)


def _rounded(problem: Problem) -> float:
    """What a sum of losses may be off by, in units of float32, however lucky the path is.

    Its rows' logits are rounded to the dtype, independently; there is one number to compare.
    """
    if problem.reduction == "none" or problem.dtype == torch.float32:
        return 1.0
    logit = 3 * problem.spread * torch.finfo(problem.dtype).eps / torch.finfo(torch.float32).eps
    return logit * (problem.rows**0.5 if problem.reduction == "sum" else problem.rows**-0.5)


def compare(
    problem: Problem, made: tuple[Tensor, ...] | None = None, name: str = "triton"
) -> list[Tensor]:
    """Assert that an implementation is at most twice as far from fp64 as PyTorch's own path.

    Compares the loss, its gradients under a random upstream gradient, the loss computed without
    gradients, and, where no option says otherwise, the log-probabilities.
    """
    made = inputs(problem) if made is None else made
    exact = loss_and_grads(linear_cross_entropy_reference, problem, made, torch.float64)
    path = loss_and_grads(torch_path, problem, made)
    with forced(name):
        ours = loss_and_grads(linear_cross_entropy, problem, made)
        x, weight, bias, targets, upstream = made
        with torch.no_grad():
            options = options_of(problem, bias, torch.float32)
            alone = linear_cross_entropy(x, weight, targets, **options)
    # What is added up: shares of at most about one, times rows of W and x, times what comes above.
    above = float(upstream.abs().max()) * (2 + 4 * problem.options.get("z_loss", 0.0) * 10)
    terms = [_rounded(problem), *(above * float(y.abs().max()) for y in (weight, x)), above]
    for label, a, b, c, size in zip(
        ("loss", "dx", "dW", "dbias"), ours, path, exact, terms, strict=False
    ):
        assert_error_at_most_twice(label, a, b, c, terms=size)
    assert_error_at_most_twice("loss alone", alone, path[0], exact[0], terms=terms[0])
    if not problem.options and problem.reduction == "none" and not problem.ignored:
        with forced(name):
            logprobs = linear_logprobs(x, weight, targets)
        assert_error_at_most_twice("log p", -logprobs, path[0], exact[0], terms=1.0)
    return ours

"""Cross-entropy of a linear layer, without ever holding the whole logits.

Legend: T rows, H width, V vocabulary. In a vision-language row most positions carry no loss: those
rows are dropped before the product, so they cost nothing. The rest is computed in row chunks, whose
logits become their own gradient in place (`kernels.cross_entropy.chunks`); where no gradient is
wanted, on a GPU, in one product that stores none (`kernels.cross_entropy.fused`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from .. import dispatch
from ..doors import refuse_triton
from ..reference import linear_cross_entropy_reference
from .ops import cross_entropy, logprobs

__all__ = ["linear_cross_entropy", "linear_logprobs"]


def linear_cross_entropy(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int | None = -100,
    softcap: float | None = None,
    z_loss: float = 0.0,
    label_smoothing: float = 0.0,
    class_weight: Tensor | None = None,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Return the cross-entropy of ``logits = x weightᵀ + bias`` against ``targets``.

    The loss of a row is torch's `cross_entropy` (smoothing and class weights included) plus
    ``z_loss * logsumexp(logits)²`` (PaLM, Chowdhery et al. 2022 §5).

    Args:
        x: ``[T, H]``, floating.
        weight: ``[V, H]``, same dtype; may be an embedding's.
        targets: int64 ``[T]``, in [0, V) or ``ignore_index``.
        bias: ``[V]``.
        ignore_index: rows with this target have loss 0 and cost nothing. ``None`` says that no
            row is ignored, which spares a GPU the look (and the wait) for them.
        softcap: logits become ``softcap * tanh(logits / softcap)``.
        z_loss: weight of the squared log-normaliser.
        label_smoothing: in [0, 1): share of the target spread evenly over the vocabulary.
        class_weight: float ``[V]``: weight of each class.
        reduction: ``none`` gives float32 ``[T]`` with 0 at ignored rows; ``sum`` adds them up;
            ``mean`` divides the sum by the total class weight of the kept targets (their number
            without ``class_weight``); with no row kept it is 0.

    Returns:
        float32 (float64 for float64 input): a scalar, or ``[T]``. Gradients reach x, weight and
        bias; the weight's is added up in float32. Gradients of gradients: a RuntimeError.

    A target that is neither in range nor ignored is an error on a CPU and a loss of NaN on a GPU.
    Beside inputs and results, training on a GPU takes at most a GiB where the float32 sum of the
    weight's gradient takes less than half of it, else that sum and half a GiB. Mean and sum are
    differentiated in the forward pass (Liger-Kernel, Hsu et al. 2024, arXiv 2410.10989). In a CUDA
    graph, which cannot wait, ignored rows are computed and left out. Autocast changes nothing.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    _check(x, weight, targets, bias=bias, class_weight=class_weight)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias: [{weight.shape[0]}] expected, got shape {tuple(bias.shape)}")
    if class_weight is not None and class_weight.shape != weight.shape[:1]:
        raise ValueError(
            f"class_weight: [{weight.shape[0]}] expected, got shape {tuple(class_weight.shape)}"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: mean, sum or none expected, got {reduction!r}")
    if softcap is not None and softcap <= 0:
        raise ValueError(f"softcap: more than 0 expected, got {softcap}")
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing: in [0, 1) expected, got {label_smoothing}")
    options: dict[str, Any] = {
        "bias": bias,
        "class_weight": class_weight,
        "ignore_index": ignore_index,
        "softcap": softcap,
        "z_loss": z_loss,
        "label_smoothing": label_smoothing,
        "reduction": reduction,
    }
    run = dispatch.choose("linear_cross_entropy", x, weight, targets, **options)
    return run(x, weight, targets, **options)


def linear_logprobs(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return ``log softmax(x weightᵀ)[targets]``, float32 ``[T]``, without gradient.

    On a GPU one product whose logits are never stored (cut-cross-entropy, Wijmans et al. 2024,
    arXiv 2411.09009), in fp16 and bf16 of aligned rows; else in chunks of rows.

    Args:
        x: ``[T, H]``, floating.
        weight: ``[V, H]``, same dtype.
        targets: int64 ``[T]``, in [0, V).

    Raises:
        ValueError: naming the argument that is wrong.
    """
    _check(x, weight, targets)
    return dispatch.choose("linear_logprobs", x)(x, weight, targets)


def _check(x: Tensor, weight: Tensor, targets: Tensor, **others: Tensor | None) -> None:
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(f"x: floating [T, H] expected, got {x.dtype} of shape {tuple(x.shape)}")
    if weight.dim() != 2 or weight.shape[1] != x.shape[1] or weight.shape[0] == 0:
        raise ValueError(f"weight: [V, {x.shape[1]}] expected, got shape {tuple(weight.shape)}")
    if weight.dtype != x.dtype:
        raise ValueError(f"weight: x's dtype {x.dtype} expected, got {weight.dtype}")
    if targets.dtype != torch.int64 or targets.shape != x.shape[:1]:
        raise ValueError(
            f"targets: int64 [{x.shape[0]}] expected, "
            f"got {targets.dtype} of shape {tuple(targets.shape)}"
        )
    for name, other in {"weight": weight, "targets": targets, **others}.items():
        if other is not None and other.device != x.device:
            raise ValueError(f"{name}: lies on {other.device}, x on {x.device}")


def _reference(x: Tensor, weight: Tensor, targets: Tensor, **options: Any) -> Tensor:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    for name in ("bias", "class_weight"):
        if options[name] is not None:
            options[name] = options[name].to(wide)
    return linear_cross_entropy_reference(x.to(wide), weight.to(wide), targets, **options)


def _reference_logprobs(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    options = {"bias": None, "class_weight": None, "ignore_index": None, "reduction": "none"}
    return -_reference(x.detach(), weight.detach(), targets, **options).float()


for _name, _triton in (("triton", True), ("chunked", False)):
    _here: dict[str, Any] = {}
    if _triton:
        _here = {"refuses": refuse_triton, "devices": ("cuda",)}
    dispatch.register(
        "linear_cross_entropy", _name, partial(cross_entropy, triton=_triton), **_here
    )
    dispatch.register("linear_logprobs", _name, partial(logprobs, triton=_triton), **_here)
dispatch.register("linear_cross_entropy", "reference", _reference, opt_in=True)
dispatch.register("linear_logprobs", "reference", _reference_logprobs, opt_in=True)

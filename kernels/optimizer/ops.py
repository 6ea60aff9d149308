"""AdamW as a function over lists of tensors: its checks, the eager implementation, the doors.

Eager: torch's own fused AdamW (on a CPU core, 6 million parameters in 74 tensors: 3 to 5 ms where
its loop takes 11 to 15 and its multi-tensor one 24 to 27), with clipping as
`torch.nn.utils.clip_grad_norm_` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw as torch_adamw

from .. import dispatch
from ..doors import is_traced, refuse_triton
from ..reference import adamw_reference
from .tables import Hyper, Tables, Tensors, keep_if_captured, laid_out_like, tables_of

__all__ = ["OP", "check_hyper", "fused_adamw", "run_tables", "run_triton", "tables_for"]

OP = "adamw"


def fused_adamw(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    exp_avgs: Sequence[Tensor],
    exp_avg_sqs: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: float | Tensor,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    max_norm: float | None = None,
    skip_nonfinite: bool = False,
    masters: Sequence[Tensor] | None = None,
) -> Tensor | None:
    """Take one step of AdamW with every tensor, in place (Loshchilov & Hutter 2019).

    On CUDA one launch for all tensors of the same dtypes and one more where the norm of all
    gradients is needed; nothing waits for the device. Moving averages and parameters are computed
    in float32 and rounded once.

    Args:
        params: float32, float16 or bfloat16, of any shapes, without gaps between their elements.
        grads: of params' shapes and dtypes; with ``masters`` also float32. Kernels leave them as
            they are; the eager implementation may scale them, as torch's clipping does.
        exp_avgs: first moments, of params' shapes, in params' dtypes, with ``masters`` float32.
        exp_avg_sqs: second moments, likewise.
        steps: float32, one element each, a tensor for each parameter: how many were taken.
        lr: learning rate; as a float32 tensor of one element on the device it may change between
            replays of a CUDA graph.
        betas: decay rates of the moments, in [0, 1).
        eps: added to the denominator, at least 0.
        weight_decay: decoupled: parameters shrink by ``lr * weight_decay`` of themselves.
        max_norm: scale gradients by ``max_norm / (norm + 1e-6)`` where that is below 1; ``None``:
            no clipping.
        skip_nonfinite: leave everything as it is, steps too, if the norm of the gradients is not
            finite (NaN or infinite gradients, or squares beyond float32's range).
        masters: float32, of params' shapes: what is updated; params get it rounded.

    Returns:
        The norm of all gradients before clipping, float32 without dimensions; ``None`` where
        neither ``max_norm`` nor ``skip_nonfinite`` asks for it.

    Raises:
        ValueError: naming the argument that is wrong.
    """
    count = len(params)
    given: list[Tensor | None] = [None] * count if masters is None else list(masters)
    tensors = Tensors(
        list(params), list(grads), list(exp_avgs), list(exp_avg_sqs), list(steps), given,
        [0] * count,
    )  # fmt: skip
    tensors.check()
    hyper = Hyper(lr, *betas, eps, weight_decay)
    check_hyper(hyper, max_norm)
    if not count:
        return None
    with torch.no_grad():
        run = dispatch.choose(OP, tensors.params[0])
        return run(tensors, [hyper], max_norm, skip_nonfinite)


def check_hyper(hyper: Hyper, max_norm: float | None) -> None:
    """Raise ValueError naming the setting that is out of range."""
    if isinstance(hyper.lr, Tensor):
        if hyper.lr.numel() != 1 or not hyper.lr.is_floating_point():
            raise ValueError(
                f"lr: a number or one floating element expected, got {hyper.lr.dtype} of shape "
                f"{tuple(hyper.lr.shape)}"
            )
    elif hyper.lr < 0.0:
        raise ValueError(f"lr: at least 0 expected, got {hyper.lr}")
    if not (0.0 <= hyper.beta1 < 1.0 and 0.0 <= hyper.beta2 < 1.0):
        raise ValueError(f"betas: in [0, 1) expected, got {(hyper.beta1, hyper.beta2)}")
    for name in ("eps", "weight_decay"):
        if getattr(hyper, name) < 0.0:
            raise ValueError(f"{name}: at least 0 expected, got {getattr(hyper, name)}")
    if max_norm is not None and not max_norm > 0.0:
        raise ValueError(f"max_norm: above 0 expected, got {max_norm}")


# Eager -------------------------------------------------------------------------------------------


def _norm(grads: Sequence[Tensor]) -> Tensor:
    """Return the norm of all of them; half precision is summed in float32."""
    wide = torch.float64 if grads[0].dtype == torch.float64 else torch.float32
    norms = [torch.linalg.vector_norm(g, dtype=wide) for g in grads]
    return torch.linalg.vector_norm(torch.stack(norms))


def _eager(
    tensors: Tensors, hypers: Sequence[Hyper], max_norm: float | None, skip: bool
) -> Tensor | None:
    """Torch's own. On CUDA ``skip`` waits for the device."""
    norm = None if max_norm is None and not skip else _norm(tensors.grads)
    if skip and norm is not None and not torch.isfinite(norm):
        return norm
    pairs = list(zip(tensors.params, tensors.masters, strict=True))
    mains = [p if w is None else w for p, w in pairs]
    # Widened before they are scaled: half precision would be rounded twice.
    grads = [g.to(main.dtype) for g, main in zip(tensors.grads, mains, strict=True)]
    if max_norm is not None and norm is not None:
        scale = torch.clamp(max_norm / (norm + 1e-6), max=1.0)
        if norm.is_cuda or scale != 1.0:  # on a CPU a look costs less than a pass
            torch._foreach_mul_(grads, scale)
    for number, hyper in enumerate(hypers):
        at = [i for i, group in enumerate(tensors.groups) if group == number]
        if at:
            _eager_group(tensors, [mains[i] for i in at], [grads[i] for i in at], at, hyper)
    narrow = [(p, w) for p, w in pairs if w is not None]
    if narrow:
        torch._foreach_copy_([p for p, _ in narrow], [w for _, w in narrow])
    return norm


def _eager_group(
    tensors: Tensors, params: list[Tensor], grads: list[Tensor], at: Sequence[int], hyper: Hyper
) -> None:
    moments = [tensors.exp_avgs[i] for i in at], [tensors.exp_avg_sqs[i] for i in at]
    on_gpu = params[0].is_cuda
    lr = hyper.lr
    if isinstance(lr, Tensor) and not lr.is_cuda:
        lr = float(lr)
    # In one pass over memory, which must lie in one piece. Otherwise what is faster there.
    fused = all(x.is_contiguous() for xs in (params, grads, *moments) for x in xs)
    torch_adamw(
        params, grads, *moments, [], [tensors.steps[i] for i in at], fused=fused,
        foreach=on_gpu and not fused, capturable=on_gpu and not fused, amsgrad=False,
        beta1=hyper.beta1, beta2=hyper.beta2, lr=lr, weight_decay=hyper.weight_decay,
        eps=hyper.eps, maximize=False,
    )  # fmt: skip


def _reference(
    tensors: Tensors, hypers: Sequence[Hyper], max_norm: float | None, skip: bool
) -> Tensor:
    if len(hypers) != 1:
        raise ValueError(f"groups: the reference has one, got {len(hypers)}")
    (hyper,) = hypers
    pairs = list(zip(tensors.params, tensors.masters, strict=True))
    mains = [p if w is None else w for p, w in pairs]
    norm = adamw_reference(
        mains, [g.to(p.dtype) for g, p in zip(tensors.grads, mains, strict=True)],
        tensors.exp_avgs, tensors.exp_avg_sqs, tensors.steps, lr=float(hyper.lr),
        betas=(hyper.beta1, hyper.beta2), eps=hyper.eps, weight_decay=hyper.weight_decay,
        max_norm=max_norm, skip_nonfinite=skip,
    )  # fmt: skip
    for p, w in pairs:
        if w is not None:
            p.copy_(w)
    return norm


# Triton ------------------------------------------------------------------------------------------


def tables_for(tensors: Tensors) -> tuple[Tables, list[Tensor]]:
    """Return tables, and gradients that must live until the launches are made."""
    for name, found in (("params", tensors.params), ("grads", tensors.grads)):
        for at, x in enumerate(found):
            if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
                raise ValueError(f"{name}[{at}]: kernels have no {x.dtype}")
    grads = laid_out_like(tensors.grads, tensors.params)
    tensors = Tensors(
        tensors.params, grads, tensors.exp_avgs, tensors.exp_avg_sqs, tensors.steps,
        tensors.masters, tensors.groups,
    )  # fmt: skip
    return tables_of(tensors), grads


def run_tables(
    tables: Tables, hypers: Sequence[Hyper], max_norm: float | None, skip: bool
) -> Tensor | None:
    """Launch the kernels on tables made before."""
    from . import adamw_triton

    device = tables.partials.device
    keep_if_captured(tables, device)
    rates: list[Tensor] | None = None
    if any(isinstance(hyper.lr, Tensor) and hyper.lr.device == device for hyper in hypers):
        rates = [_on_device(hyper.lr, device) for hyper in hypers]
    else:
        hypers = [hyper._replace(lr=float(hyper.lr)) for hyper in hypers]
    return adamw_triton.step(tables, hypers, rates, max_norm, skip)


def _on_device(lr: float | Tensor, device: torch.device) -> Tensor:
    """Return a learning rate as a float32 tensor; nothing waits, and a graph can hold it."""
    if isinstance(lr, Tensor) and lr.device == device:
        return lr.to(torch.float32)
    return torch.full((), float(lr), dtype=torch.float32, device=device)


@torch.library.custom_op(
    "babyvlm::adamw", mutates_args=("params", "exp_avgs", "exp_avg_sqs", "steps", "masters")
)
def adamw(
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    steps: list[Tensor],
    masters: list[Tensor],
    rate: Tensor | None,
    hyper: list[float],
    max_norm: float | None,
    skip: bool,
) -> Tensor:
    """See `fused_adamw`; ``hyper``: the fields of `Hyper`. Returns the norm or no elements."""
    lr, *others = hyper
    tensors = Tensors(
        params, grads, exp_avgs, exp_avg_sqs, steps, list(masters) or [None] * len(params),
        [0] * len(params),
    )  # fmt: skip
    with torch.no_grad():
        tables, grads = tables_for(tensors)
        norm = run_tables(tables, [Hyper(lr if rate is None else rate, *others)], max_norm, skip)
    return params[0].new_empty(0, dtype=torch.float32) if norm is None else norm


@adamw.register_fake
def _(
    params: list[Tensor], grads: list[Tensor], exp_avgs: list[Tensor], exp_avg_sqs: list[Tensor],
    steps: list[Tensor], masters: list[Tensor], rate: Tensor | None, hyper: list[float],
    max_norm: float | None, skip: bool,
) -> Tensor:  # fmt: skip
    shape = (0,) if max_norm is None and not skip else ()
    return params[0].new_empty(shape, dtype=torch.float32)


def run_triton(
    tensors: Tensors, hypers: Sequence[Hyper], max_norm: float | None, skip: bool
) -> Tensor | None:
    """Run the kernels."""
    if is_traced():
        return _traced(tensors, hypers, max_norm, skip)
    tables, grads = tables_for(tensors)
    norm = run_tables(tables, hypers, max_norm, skip)
    del grads  # not before the launches
    return norm


def _traced(
    tensors: Tensors, hypers: Sequence[Hyper], max_norm: float | None, skip: bool
) -> Tensor | None:
    (hyper,) = hypers
    rate = hyper.lr if isinstance(hyper.lr, Tensor) else None
    lr = 0.0 if isinstance(hyper.lr, Tensor) else hyper.lr
    norm = adamw(
        tensors.params, tensors.grads, tensors.exp_avgs, tensors.exp_avg_sqs, tensors.steps,
        [w for w in tensors.masters if w is not None], rate,
        [float(lr), hyper.beta1, hyper.beta2, hyper.eps, hyper.weight_decay], max_norm, skip,
    )  # fmt: skip
    return None if max_norm is None and not skip else norm


def _refuse(x: Any, *_: Any) -> str | None:
    return refuse_triton(x)


dispatch.register(OP, "triton", run_triton, refuses=_refuse, devices=("cuda",))
dispatch.register(OP, "eager", _eager)
dispatch.register(OP, "reference", _reference, opt_in=True)

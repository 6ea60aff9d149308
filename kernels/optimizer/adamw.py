"""AdamW as a `torch.optim.Optimizer`: the state, and what makes a step cheap for the host."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from operator import eq, is_
from typing import Any, overload

import torch
from torch import Tensor

from .. import dispatch
from .ops import OP, check_hyper, run_tables, run_triton, tables_for
from .tables import KEPT, Hyper, Tables, Tensors, stream_of

__all__ = ["AdamW"]

_WIDE = ("exp_avg", "exp_avg_sq", "master")
_HALF = (torch.float16, torch.bfloat16)
_SETTINGS = ("max_norm", "skip_nonfinite", "master_weights")
_REFUSED = ("amsgrad", "maximize", "differentiable")
"""Options of torch's AdamW that are not here; a state dict that has them set is refused."""


class AdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019) whose step is one launch on CUDA, with clipping two.

    Equal to `torch.optim.AdamW` after `torch.nn.utils.clip_grad_norm_`, and state dicts go either
    way. On a CPU torch's own fused implementation runs.

    Clipping has one owner: give ``max_norm`` here or clip elsewhere, not both. The norm is over
    this optimizer's parameters in this process: where ranks hold parts of a model (ZeRO), leave
    ``max_norm`` and ``skip_nonfinite`` to whoever knows all of them.

    In a CUDA graph: take a step before the capture, and give learning rates as float32 tensors on
    the device to change them between replays (numbers are captured as they are).

    Args:
        params: parameters or groups; each may have its own lr, betas, eps and weight_decay.
        lr, betas, eps, weight_decay: see `kernels.optimizer.fused_adamw`.
        max_norm: clip the global norm of gradients to this.
        skip_nonfinite: a step whose gradients' norm is not finite changes nothing.
        master_weights: update a float32 copy of each half-precision parameter (``master`` in its
            state) with float32 moments, and write both in one pass. Without it moments have the
            parameter's dtype, as torch's.

    Attributes:
        grad_norm: norm of the last step's gradients before clipping, a tensor on the device; None
            where neither ``max_norm`` nor ``skip_nonfinite`` asks for it.

    Raises:
        ValueError: naming the argument that is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        max_norm: float | None = None,
        skip_nonfinite: bool = False,
        master_weights: bool = False,
    ) -> None:
        self.max_norm, self.skip_nonfinite = max_norm, skip_nonfinite
        self.master_weights = master_weights
        self.grad_norm: Tensor | None = None
        self._known: OrderedDict[tuple[int, ...], _Known] = OrderedDict()
        check_hyper(Hyper(lr, *betas, eps, weight_decay), max_norm)
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see `torch.optim.Optimizer.add_param_group`.

        Raises:
            ValueError: a setting that is out of range.
        """
        super().add_param_group(param_group)
        check_hyper(_hyper(self.param_groups[-1]), None)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], Any]) -> Any: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step with every parameter that has a gradient; return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.grad_norm = self._step()
        return loss

    def _step(self) -> Tensor | None:
        params: list[Tensor] = []
        grads: list[Tensor] = []
        groups: list[int] = []
        for number, group in enumerate(self.param_groups):
            for p in group["params"]:
                grad = p.grad
                if grad is not None:
                    if grad.layout is not torch.strided:
                        raise ValueError(f"grad: a dense tensor expected, got {grad.layout}")
                    params.append(p)
                    grads.append(grad)
                    groups.append(number)
        if not params:
            return None
        hypers = [_hyper(group) for group in self.param_groups]
        run = dispatch.choose(OP, params[0])
        if run is not run_triton:
            tensors = self._tensors(params, grads, groups)
            return run(tensors, hypers, self.max_norm, self.skip_nonfinite)
        tables, alive = self._tables(params, grads, groups)
        norm = run_tables(tables, hypers, self.max_norm, self.skip_nonfinite)
        del alive  # copies of gradients, not before the launches
        return norm

    def _tables(
        self, params: list[Tensor], grads: list[Tensor], groups: list[int]
    ) -> tuple[Tables, list[Tensor]]:
        """Return the last step's tables if nothing has moved since, else others.

        Addresses say where parameters and gradients are, identity that the state was not replaced
        (compared as a whole: looking each parameter up costs more than all else).
        """
        places = tuple([x.data_ptr() for x in (*params, *grads)])
        stream = stream_of(params[0].device)
        known = self._known.get(places)
        if (
            known is not None
            and known.stream == stream
            and known.groups == groups
            and _are(known.state, self._all_state())
            and all(map(eq, known.strides, [g.stride() for g in grads]))
        ):
            return known.tables, []
        tensors = self._tensors(params, grads, groups)
        tensors.check()
        tables, alive = tables_for(tensors)
        if _are(alive, grads):  # none had to be copied
            strides = [g.stride() for g in grads]
            self._known[places] = _Known(groups, strides, self._all_state(), stream, tables)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return tables, alive

    def _all_state(self) -> list[Any]:
        return [x for state in self.state.values() for x in state.values()]

    def _tensors(self, params: list[Tensor], grads: list[Tensor], groups: list[int]) -> Tensors:
        states = [self._state(p) for p in params]
        return Tensors(
            params, grads, [s["exp_avg"] for s in states], [s["exp_avg_sq"] for s in states],
            [s["step"] for s in states], [s.get("master") for s in states], groups,
        )  # fmt: skip

    def _state(self, p: Tensor) -> dict[str, Any]:
        """Return the state of a parameter, made at its first step."""
        state = self.state[p]
        if not state:
            if not p.is_floating_point() or p.layout != torch.strided:
                raise ValueError(f"params: dense floating expected, got {p.dtype} {p.layout}")
            master = self.master_weights and p.dtype in _HALF
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.zeros_like(p, dtype=torch.float32 if master else p.dtype)
            if master:
                state["master"] = p.detach().float()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict, torch's AdamW's too.

        Torch casts what it loads to the parameter's dtype; masters and their moments are kept as
        they are. A half-precision parameter without a master gets one where there should be one.

        Raises:
            ValueError: it has options that this optimizer has not.
        """
        for group in state_dict["param_groups"]:
            for name in _REFUSED:
                if group.get(name):
                    raise ValueError(f"state_dict: {name} is not supported")
            if not group.get("decoupled_weight_decay", True) and group["weight_decay"]:
                raise ValueError("state_dict: weight decay that is not decoupled is not supported")
        super().load_state_dict(state_dict)
        numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for number, p in zip(numbers, params, strict=True):
            saved = state_dict["state"].get(number)
            if saved:
                self._restore(p, saved)
        self._known.clear()

    def __getstate__(self) -> dict[str, Any]:
        """What is copied and pickled: torch's, and our settings."""
        return super().__getstate__() | {name: getattr(self, name) for name in _SETTINGS}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take it back; nothing that was launched before is known."""
        self._known, self.grad_norm = OrderedDict(), None
        super().__setstate__(state)

    def _restore(self, p: Tensor, saved: dict[str, Any]) -> None:
        state = self.state[p]
        step = torch.as_tensor(state["step"], dtype=torch.float32, device=p.device)
        state["step"] = step.reshape(())
        if not (self.master_weights and p.dtype in _HALF):
            state.pop("master", None)
            return
        given = {"master": p.detach()} | saved
        for name in _WIDE:
            state[name] = given[name].to(p.device, torch.float32)


class _Known:
    """What the last step's tables were made of."""

    __slots__ = ("groups", "state", "stream", "strides", "tables")

    def __init__(
        self, groups: list[int], strides: list[Any], state: list[Tensor], stream: int,
        tables: Tables,
    ) -> None:  # fmt: skip
        self.groups, self.strides = groups, strides
        self.state, self.stream, self.tables = state, stream, tables


def _are(left: list[Any], right: list[Any]) -> bool:
    return len(left) == len(right) and all(map(is_, left, right))


def _hyper(group: dict[str, Any]) -> Hyper:
    beta1, beta2 = group["betas"]
    return Hyper(group["lr"], beta1, beta2, group["eps"], group["weight_decay"])

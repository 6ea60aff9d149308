"""Counting what a computation allocates, at any size: on fake tensors nothing is stored."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Allocations"]


class Allocations(TorchDispatchMode):
    """Bytes of the storages made while it is entered, as long as anything holds them.

    Counts what operations return, not what one takes and gives back inside (a library's
    workspace). Use it within a ``FakeTensorMode``; fakes of "cuda" need no GPU.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known = {x.untyped_storage()._cdata: 0 for x in given}
        """Those that were there before."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.addmm.dtype_out:  # has no fake in torch 2.11
            return kwargs["out"]
        result = func(*args, **kwargs)
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                self._add(x.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self.live -= self._known.pop(key)

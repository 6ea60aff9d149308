"""The transferred corpus: for every child frame a general picture with child-directed words."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataprep.transfer.stage import Options, Transferred, transfer

__all__ = ["Options", "Transferred", "transfer"]


def __getattr__(name: str) -> Any:
    # Imported on first use: SciPy and Matplotlib are not for ``python -m dataprep --help``.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.stage"), name)

"""The workbench: every op against its peers and its floor, ``python -m kernels.bench``.

Cases and peers are registries; `cases`, `peers` hold them, `measure` takes times, `correct` refuses
what is wrong, `roofline` and `counts` say what is possible, `results`, `tables`, `gates` and `plot`
what came out. A new op is a module that registers itself, named in `load_ops`.
"""

from __future__ import annotations

import importlib

__all__ = ["load_ops"]

_OPS = ("attention_cases", "attention_peers", "sdpa_peers", "interval_cases")


def load_ops() -> None:
    """Import the modules that register ops, cases and peers."""
    for name in _OPS:
        importlib.import_module(f"{__name__}.{name}")

"""Where each op says what of it can be tuned; nothing is imported before it is asked for."""

from __future__ import annotations

import importlib

from .tunable import Tunable

__all__ = ["PROVIDERS", "tunable"]

PROVIDERS = {
    "attention": ("kernels.tune.attention", "Attention"),
    "cross_entropy": ("kernels.cross_entropy.tunable", "CrossEntropy"),
    "pairs": ("kernels.pairs.tunable", "Pairs"),
    "norm": ("kernels.rows.tunable", "Norm"),
    "activations": ("kernels.rows.tunable", "Activations"),
    "rotary": ("kernels.rows.tunable", "Rotary"),
    "embedding": ("kernels.embedding.tunable", "Embedding"),
    "adamw": ("kernels.optimizer.tunable", "AdamW"),
    "augment": ("kernels.augment.tunable", "Augment"),
}
"""Op to a module and the name of its `Tunable` there."""


def tunable(op: str) -> Tunable:
    """Return what of an op can be tuned.

    Raises:
        KeyError: no such op.
    """
    module, name = PROVIDERS[op]
    return getattr(importlib.import_module(module), name)()

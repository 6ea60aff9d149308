"""Ops of small vision-language models: packed attention and losses that skip what nobody needs.

Each op is one public function with an eager reference beside it (`kernels.reference`);
`kernels.dispatch` says which implementation runs. Imports torch (and triton) only.
"""

from . import dispatch
from .attention import attention
from .collectives import gather_rows, resolve_group
from .contrastive import contrastive_loss
from .cross_entropy import linear_cross_entropy, linear_logprobs
from .intervals import Intervals, intervals

__all__ = [
    "Intervals",
    "attention",
    "contrastive_loss",
    "dispatch",
    "gather_rows",
    "intervals",
    "linear_cross_entropy",
    "linear_logprobs",
    "resolve_group",
]

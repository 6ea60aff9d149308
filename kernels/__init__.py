"""Ops of small vision-language models: packed attention and losses that skip what nobody needs.

Each op is one public function with an eager reference beside it (`kernels.reference`);
`kernels.dispatch` says which implementation runs. Imports torch (and triton) only.
"""

from . import dispatch
from .attention import attention
from .augment.public import Parameters, augment_images, sample_parameters
from .collectives import gather_rows, resolve_group
from .cross_entropy.public import linear_cross_entropy, linear_logprobs
from .embedding.public import add_embedding_grad, embedding
from .intervals import Intervals, intervals
from .optimizer import AdamW, fused_adamw
from .pairs.contrastive import contrastive_loss
from .pairs.sigmoid import sigmoid_loss
from .rows.activations import bias_gelu, swiglu
from .rows.norm import layer_norm, rms_norm
from .rows.rotary import rotary, rotary_angles

__all__ = [
    "AdamW",
    "Intervals",
    "Parameters",
    "add_embedding_grad",
    "attention",
    "augment_images",
    "bias_gelu",
    "contrastive_loss",
    "dispatch",
    "embedding",
    "fused_adamw",
    "gather_rows",
    "intervals",
    "layer_norm",
    "linear_cross_entropy",
    "linear_logprobs",
    "resolve_group",
    "rms_norm",
    "rotary",
    "rotary_angles",
    "sample_parameters",
    "sigmoid_loss",
    "swiglu",
]

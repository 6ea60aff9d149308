"""AdamW in one launch, with clipping and the skipping of bad gradients on the device."""

from .adamw import AdamW
from .ops import fused_adamw

__all__ = ["AdamW", "fused_adamw"]

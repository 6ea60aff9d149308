"""Second derivatives that nobody wrote are refused aloud, not taken for zero."""

from __future__ import annotations

import torch

__all__ = ["refuse_second"]


def refuse_second(op: str) -> None:
    """Raise RuntimeError in a backward pass that is to be differentiated again.

    Within a backward pass gradients are on just then. PyTorch's ``once_differentiable`` looks at
    the upstream gradient alone: under a plain loss that is the number 1, and gradients made from
    what the forward pass kept would count as constants.
    """
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{op}: no gradients of gradients (create_graph=True), except by "
            f"dispatch.set_backend({op!r}, 'reference')"
        )

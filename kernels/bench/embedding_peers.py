"""Who computes the gradient of an embedding table: ours, and torch in three ways."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..embedding.public import add_embedding_grad, embedding
from .attention_peers import forced
from .embedding_cases import OP, WordsInputs
from .peers import Peer, Run, anywhere, needs_gpu, needs_triton, register_peer

Grad = Callable[[Tensor, Tensor, WordsInputs, Tensor | None], Tensor]
"""From a gradient of rows, words, the problem and the gradient to add to (None: a new one)."""


def _run(grad: Grad, inputs: WordsInputs) -> Run:
    into = inputs.before.clone() if inputs.spec.tied else None
    upstream = inputs.upstream
    assert upstream is not None
    return Run(
        inputs,
        lambda: upstream,
        lambda up: grad(up, inputs.ids, inputs, into),
        lambda _, found: {"dweight": found},
    )


def _ours(name: str, inputs: WordsInputs) -> Run:
    """A new gradient through autograd, as a model has it."""
    if inputs.spec.tied:
        run = _run(lambda up, ids, _, into: add_embedding_grad(up, ids, _given(into)), inputs)
        run.around = partial(forced, "add_embedding_grad", name)
        return run
    (weight,) = inputs.leaves
    return Run(
        inputs,
        lambda: embedding(inputs.ids, weight),
        lambda out: torch.autograd.grad(out, weight, inputs.upstream)[0],
        lambda _, grad: {"dweight": grad},
        around=partial(forced, "embedding", name),
    )


def _given(into: Tensor | None) -> Tensor:
    assert into is not None
    return into


def _dense(up: Tensor, ids: Tensor, inputs: WordsInputs, into: Tensor | None) -> Tensor:
    grad = torch.ops.aten.embedding_dense_backward(up, ids, inputs.spec.words, -1, False)
    return grad if into is None else into.add_(grad)


def _index_add(up: Tensor, ids: Tensor, inputs: WordsInputs, into: Tensor | None) -> Tensor:
    out = torch.zeros_like(inputs.before) if into is None else into
    return out.index_add_(0, ids, up)


def _compiled(inputs: WordsInputs) -> Run:
    torch._dynamo.reset()
    (weight,) = inputs.leaves
    gather = torch.compile(F.embedding, dynamic=False)
    return Run(
        inputs,
        lambda: gather(inputs.ids, weight),
        lambda out: torch.autograd.grad(out, weight, inputs.upstream)[0],
        lambda _, grad: {"dweight": grad},
    )


register_peer(
    Peer(OP, "triton", "ours: sorted segments", needs_triton, partial(_ours, "triton"), ours=True)
)
register_peer(Peer(OP, "eager", "ours: torch's", anywhere, partial(_ours, "eager"), ours=True))
register_peer(Peer(OP, "torch", "embedding_dense_backward", anywhere, partial(_run, _dense)))
register_peer(
    Peer(OP, "index_add", "index_add_, atomic on a GPU", anywhere, partial(_run, _index_add))
)
register_peer(
    Peer(
        OP, "torch_compile", "the gather, compiled", needs_gpu, _compiled,
        lambda spec: "has no gradient to add to" if spec.tied else None, full_only=True,
    )
)  # fmt: skip

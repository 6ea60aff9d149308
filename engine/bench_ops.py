"""What our ops cost in a training step beside plain PyTorch's, on the device at hand.

The same model and batch twice, in turns: once as it is, once with losses and row ops replaced by
what anybody would write. The time is the process's, so that neighbours on the machine count less.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.models.decoder import Decoder
from engine.models.decoder_config import DecoderConfig
from kernels import contrastive_loss, intervals

__all__ = ["op_costs"]

WORDS = 11
"""Tokens with a loss after the picture of each document."""


def _layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, residual: Tensor | None = None,
    dropout: float = 0.0, eps: float = 1e-5,
) -> Any:  # fmt: skip
    if residual is None:
        return F.layer_norm(x, weight.shape, weight, bias, eps)
    summed = residual + F.dropout(x, dropout)
    return F.layer_norm(summed, weight.shape, weight, bias, eps), summed


def _rms_norm(
    x: Tensor, weight: Tensor, *, residual: Tensor | None = None, dropout: float = 0.0,
    eps: float = 1e-6,
) -> Any:  # fmt: skip
    if residual is None:
        return F.rms_norm(x, weight.shape, weight, eps)
    summed = residual + F.dropout(x, dropout)
    return F.rms_norm(summed, weight.shape, weight, eps), summed


def _bias_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


def _swiglu(x: Tensor) -> Tensor:
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


def _rotary(q: Tensor, _: None, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos[:, None], sin[:, None]
    left, right = q.chunk(2, dim=-1)
    return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1).to(q.dtype)


def _cross_entropy(x: Tensor, weight: Tensor, targets: Tensor, **_: Any) -> Tensor:
    return F.cross_entropy(F.linear(x, weight).float(), targets, reduction="sum")


def _plain() -> AbstractContextManager[Any]:
    """Return a context in which the decoder calls PyTorch's functions."""
    stack = ExitStack()
    block = {
        "layer_norm": _layer_norm, "rms_norm": _rms_norm, "bias_gelu": _bias_gelu,
        "swiglu": _swiglu, "rotary": _rotary,
    }  # fmt: skip
    for name, function in block.items():
        stack.enter_context(mock.patch(f"engine.models.block.{name}", function))
    stack.enter_context(mock.patch("engine.models.decoder.linear_cross_entropy", _cross_entropy))
    return stack


def _decoder_step(config: DecoderConfig, vocab: int, picture: int, tokens: int,
                  device: torch.device) -> Callable[[], None]:  # fmt: skip
    torch.manual_seed(0)
    decoder = Decoder(config, vocab).to(device)
    length = picture + WORDS
    count = tokens // length
    ends = torch.arange(count + 1, dtype=torch.int32) * length
    mask = intervals(ends, prefix_lens=torch.full((count,), picture, dtype=torch.int32))
    mask = mask.to(device)
    positions = torch.arange(length, device=device).repeat(count)
    x = torch.randn(count * length, config.width, device=device)
    rows = torch.arange(count * length, device=device)
    rows = rows[positions >= picture - 1][:-1]
    targets = torch.randint(vocab, rows.shape, device=device)

    def step() -> None:
        hidden = decoder(x, positions, mask)
        decoder.vocabulary(hidden=hidden.index_select(0, rows), targets=targets).backward()
        decoder.zero_grad(set_to_none=True)

    return step


def _contrastive_step(
    pairs: int, width: int, device: torch.device
) -> tuple[Callable[[], None], Callable[[], None]]:
    torch.manual_seed(0)
    left, right = (F.normalize(torch.randn(pairs, width, device=device), dim=-1) for _ in "ab")
    left.requires_grad_()
    right.requires_grad_()
    scale = torch.tensor(14.0, device=device, requires_grad=True)
    own = torch.arange(pairs, device=device)

    def ours() -> None:
        contrastive_loss(left, right, scale).backward()

    def plain() -> None:
        logits = scale * left @ right.T
        ((F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2).backward()

    return ours, plain


def _ratio(ours: Callable[[], None], plain: Callable[[], None], rounds: int) -> dict[str, float]:
    """Time of both in turns, in seconds (median), and the median ratio of neighbours."""
    taken: dict[str, list[float]] = {"ours": [], "plain": []}
    for turn in range(rounds + 2):
        both = [("ours", ours), ("plain", plain)]
        for name, step in both if turn % 2 else both[::-1]:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            clock = time.perf_counter if torch.cuda.is_available() else time.process_time
            began = clock()
            step()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if turn >= 2:
                taken[name].append(clock() - began)
    ratios = [a / b for a, b in zip(taken["ours"], taken["plain"], strict=True)]
    return {name: statistics.median(times) for name, times in taken.items()} | {
        "ours / plain": statistics.median(ratios)
    }


def op_costs(rounds: int = 21) -> dict[str, Any]:
    """Time of a decoder's step, and of the contrastive loss, ours and plain PyTorch's."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    small = DecoderConfig(
        kind="gpt2",
        layers=2,
        width=192,
        heads=6,
        inner=768,
        positions=64,
        dropout=0.1,
        attention_dropout=0.0,
        embed_dropout=0.1,
    )
    baby = DecoderConfig(preset="babygpt2", attention_dropout=0.0)
    llama = DecoderConfig(kind="llama", layers=4, width=256, heads=4, inner=704)
    steps = {
        "quickstart decoder, 704 tokens": (small, 900, 4, 704),
        "babygpt2, 2,048 tokens": (baby, 2350, 49, 2048),
        "4 llama blocks of 256, 2,048 tokens": (llama, 2350, 49, 2048),
        "babygpt2, 50,304 words, 1,024 tokens": (baby, 50_304, 49, 1024),
    }
    found: dict[str, Any] = {}
    for name, given in steps.items():
        step = _decoder_step(*given, device)

        def plain(step: Callable[[], None] = step) -> None:
            with _plain():
                step()

        found[name] = _ratio(step, plain, rounds)
    for pairs, width in ((128, 256), (512, 512)):
        both = _contrastive_step(pairs, width, device)
        found[f"contrastive loss, {pairs} pairs of {width}"] = _ratio(*both, 5 * rounds)
    return found

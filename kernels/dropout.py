"""The dropout mask of attention as a pure function of (seed, head, query row, key row).

Every implementation of attention, in every tile shape, on every device, forward and backward,
computes this one mask; nothing is stored and no generator has a state. A query row of a head gets
two keys; the row's mask is then a hash of the key row under them. All arithmetic is modulo 2³²;
the mixer is "lowbias32" (C. Wellons, hash prospector, 2018) and C = 2³² / golden ratio, odd:

    s0 = mix(low word of seed)                  s1 = mix(high word of seed ^ s0)
    r1 = mix(mix(s0 + i) ^ (s1 + h * C))        r2 = mix(r1 + s1)
    keep(j) = last_half_of_mix((first_half_of_mix(r1 ^ (j * C))) + r2) >= round(p * 2³²)

``i`` and ``j`` are rows of the packed row, ``h`` is a query head. Torch has few operations on
unsigned words, so words are int32: products and sums wrap alike, shifts right are masked, the last
comparison is made after flipping the sign bit.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["draw_keep", "keep", "key_words", "row_keys", "seed_tensor", "threshold"]

_SIGN = -(1 << 31)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


_C = _signed(0x9E3779B1)
_M1 = _signed(0x7FEB352D)
_M2 = _signed(0x846CA68B)


def seed_tensor(seed: int | Tensor | None, device: torch.device) -> Tensor:
    """Return the seed as an int64 tensor of one element on ``device``.

    Args:
        seed: an int in [-2⁶³, 2⁶³), an int64 tensor of one element, or None to draw one from
            torch's global generator of the device.
        device: where the queries lie.

    Raises:
        ValueError: ``seed`` is none of these.
    """
    if seed is None:
        return torch.empty(1, dtype=torch.int64, device=device).random_()
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise ValueError(
                "seed: an int64 tensor of one element expected, "
                f"got {seed.dtype} of shape {tuple(seed.shape)}"
            )
        return seed.detach().reshape(1).to(device)
    if not -(1 << 63) <= seed < 1 << 63:
        raise ValueError(f"seed: an integer of 64 bits expected, got {seed}")
    return torch.full((1,), seed, dtype=torch.int64, device=device)


def threshold(p: float) -> int:
    """Return the word below which a hash drops its weight: round(p · 2³²), at most 2³² - 1."""
    return min(round(p * (1 << 32)), (1 << 32) - 1)


def _xor_shifted(x: Tensor, bits: int) -> Tensor:
    """``x ^= x >> bits`` in place, the shift a logical one."""
    return x.bitwise_xor_((x >> bits).bitwise_and_((1 << (32 - bits)) - 1))


def _mix(x: Tensor) -> Tensor:
    """Mix int32 words in place."""
    _xor_shifted(x, 16).mul_(_M1)
    _xor_shifted(x, 15).mul_(_M2)
    return _xor_shifted(x, 16)


def row_keys(seed: int | Tensor, rows: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return the two keys of each query row and head, int32 ``[*rows.shape, heads]`` each.

    Args:
        seed: an int of 64 bits, or an int64 tensor of one element on ``rows``' device.
        rows: integer, rows of the packed row.
        heads: number of query heads.
    """
    low, high = seed_tensor(seed, rows.device).view(torch.int32).unbind()  # little-endian words
    s0 = _mix(low.clone())
    s1 = _mix(high ^ s0)
    head = torch.arange(heads, dtype=torch.int32, device=rows.device).mul_(_C).add_(s1)
    first = _mix(_mix(rows.to(torch.int32) + s0)[..., None] ^ head)
    return first, _mix(first + s1)


def key_words(rows: Tensor) -> Tensor:
    """Return what the hash needs of key rows, int32 of ``rows``' shape (integer)."""
    return rows.to(torch.int32) * _C


def draw_keep(
    first: Tensor, second: Tensor, words: Tensor, p: float, out: Tensor, scratch: Tensor
) -> Tensor:
    """Fill ``out`` with 1 where a weight stays and 0 where it is dropped, allocating nothing.

    Args:
        first, second: from `row_keys`.
        words: from `key_words`.
        p: probability of dropping.
        out, scratch: int32, contiguous, of the shape to which the three broadcast.
    """
    torch.bitwise_xor(first, words, out=out)
    _fold(out, 16, scratch)
    torch.add(second, out, alpha=_M1, out=out)
    _fold(out, 15, scratch).mul_(_M2)
    return _fold(out, 16, scratch).bitwise_xor_(_SIGN).ge_(threshold(p) + _SIGN)


def _fold(x: Tensor, bits: int, scratch: Tensor) -> Tensor:
    """`_xor_shifted` without an allocation."""
    torch.bitwise_right_shift(x, bits, out=scratch)
    return x.bitwise_xor_(scratch.bitwise_and_((1 << (32 - bits)) - 1))


def keep(keys: tuple[Tensor, Tensor], key_rows: Tensor, p: float) -> Tensor:
    """Return the mask, True = kept, bool ``[*keys, J]``.

    Args:
        keys: from `row_keys`.
        key_rows: integer ``[J]``, rows of the packed row.
        p: probability of dropping, in [0, 1).
    """
    first, second = keys
    shape = (*first.shape, key_rows.shape[0])
    out = torch.empty(shape, dtype=torch.int32, device=first.device)
    drawn = draw_keep(
        first[..., None], second[..., None], key_words(key_rows), p, out, torch.empty_like(out)
    )
    return drawn.bool()

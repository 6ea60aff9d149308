"""Random packed rows under every mask form, for property tests of what reads intervals."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st

FORMS = ("causal", "full", "prefix", "full_prefix", "window", "branches", "prefix_branches",
         "window_branches", "full_branches")  # fmt: skip


def cu_seqlens(lengths: list[int]) -> torch.Tensor:
    """Return int32 ``[D + 1]``."""
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


def by_hand(lengths: list[int], form: dict[str, Any]) -> torch.Tensor:
    """Return the mask entry by entry: bool ``[T, T]``, row = query."""
    ends = cu_seqlens(lengths).tolist()
    prefix = form.get("prefix_lens", torch.zeros(len(lengths))).tolist()
    parents = form.get("branches", -torch.ones(len(lengths), dtype=torch.int32)).tolist()
    mask = torch.zeros(ends[-1], ends[-1], dtype=torch.bool)
    for d, parent in enumerate(parents):
        for i in range(ends[d], ends[d + 1]):
            for j in range(ends[d], ends[d + 1]):
                seen = j <= i if form.get("causal", True) else True
                if "window" in form:
                    seen = seen and i - j < form["window"]
                mask[i, j] = seen or j - ends[d] < prefix[d]
            if parent >= 0:
                mask[i, ends[parent] : ends[parent + 1]] = True
    return mask


@st.composite
def forms(draw: st.DrawFn, lengths: list[int], name: str | None = None) -> dict[str, Any]:
    """Draw the keyword arguments of `kernels.intervals` for documents of these lengths."""
    name = draw(st.sampled_from(FORMS)) if name is None else name
    form: dict[str, Any] = {"causal": False} if name.startswith("full") else {}
    if "prefix" in name:
        prefix = [draw(st.integers(0, length)) for length in lengths]
        form["prefix_lens"] = torch.tensor(prefix, dtype=torch.int32)
    if "window" in name:
        form["window"] = draw(st.integers(1, max([2, *lengths]) + 1))
    if "branches" in name:
        parents: list[int] = []
        for _ in lengths:
            roots = [d for d, parent in enumerate(parents) if parent < 0]
            parents.append(draw(st.sampled_from([-1, *roots])))
        form["branches"] = torch.tensor(parents, dtype=torch.int32)
    return form


@st.composite
def packed(
    draw: st.DrawFn, max_length: int = 12, max_documents: int = 9
) -> tuple[list[int], dict[str, Any]]:
    """Draw documents (empty and one-token ones too) and a mask form over them."""
    lengths = draw(st.lists(st.integers(0, max_length), max_size=max_documents))
    return lengths, draw(forms(lengths))

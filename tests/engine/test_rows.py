"""The packed row against a plain per-document loop."""

from __future__ import annotations

import numpy as np
import pytest

from engine.rows import build_row, pair_documents, text_documents
from engine.tokens import TokenStore

UTTERANCES = [[5, 6, 3], [7, 3], [8, 9, 10, 3], [11, 3]]


def store() -> TokenStore:
    lengths = np.array([len(u) for u in UTTERANCES], np.int32)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return TokenStore(np.concatenate(UTTERANCES).astype(np.uint16), offsets, lengths)


def plain(documents: list[list[int]], prefix: int, head: list[int]) -> dict[str, list[int]]:
    """The same row, one token at a time."""
    out: dict[str, list[int]] = {k: [] for k in (
        "tokens", "positions", "cu_seqlens", "image_slots", "loss_rows", "targets")}
    out["cu_seqlens"].append(0)
    for words in documents:
        start = len(out["tokens"])
        sequence = [0] * prefix + head + words
        out["image_slots"] += range(start, start + prefix)
        for i, token in enumerate(sequence):
            out["positions"].append(i)
            out["tokens"].append(token)
            if i >= prefix + len(head) and i > 0:
                out["loss_rows"].append(start + i - 1)
                out["targets"].append(token)
        out["cu_seqlens"].append(len(out["tokens"]))
    return out


@pytest.mark.parametrize("chosen", [[2, 0, 3], [1], [0, 1, 2, 3]])
@pytest.mark.parametrize("form", ["pair", "text", "text+sos"])
def test_row_equals_the_plain_loop(chosen, form):
    documents = {
        "pair": lambda: pair_documents(store(), np.arange(4), 5),
        "text": lambda: text_documents(store(), None, 0),
        "text+sos": lambda: text_documents(store(), 2, 0),
    }[form]()
    row = build_row(documents, np.array(chosen), 0)
    expected = plain([UTTERANCES[i] for i in chosen], 5 if form == "pair" else 0,
                     [2] if form == "text+sos" else [])
    for name, values in expected.items():
        assert getattr(row, name).tolist() == values, name
    assert len(row.targets) == documents.targets[chosen].sum()
    assert row.prefix_lens.tolist() == [5 if form == "pair" else 0] * len(chosen)


def test_joined_documents_hold_consecutive_utterances_within_the_limit():
    documents = text_documents(store(), 2, 8)
    assert documents.lengths.tolist() == [6, 7]
    row = build_row(documents, np.array([0]), 0)
    assert row.tokens.tolist() == [2, 5, 6, 3, 7, 3]


def test_an_empty_share_is_an_empty_row():
    row = build_row(pair_documents(store(), np.arange(4), 5), np.array([], np.int64), 0)
    assert row.tokens.numel() == row.targets.numel() == 0 and row.cu_seqlens.tolist() == [0]


def test_an_empty_utterance_has_no_target():
    documents = text_documents(TokenStore(np.array([5, 6], np.uint16), np.array([0, 0, 2]),
                                          np.array([0, 2], np.int32)), None, 0)
    assert documents.targets.tolist() == [0, 1]
    assert build_row(documents, np.array([0, 1]), 0).targets.tolist() == [6]


def test_joining_shorter_than_an_utterance_is_refused():
    with pytest.raises(ValueError, match="join_tokens: 4 is shorter"):
        text_documents(store(), 2, 4)

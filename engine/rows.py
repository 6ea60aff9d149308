"""From samples to one flat packed row of tokens: documents back to back, no padding.

A generative document is ``P`` picture tokens followed by the utterance; a text document is the
utterance alone (or several joined). Everything is computed with whole arrays: building a row of
8,192 tokens takes about a millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from engine.models.row import Row
from engine.tokens import TokenStore


@dataclass(frozen=True)
class Documents:
    """The documents of one phase and split: ranges of the token store, and their pictures.

    Attributes:
        store: token store of the split.
        first, last: range of utterances (store rows) of each document, int64 [n].
        image_rows: row of each document's picture in the split's picture file, or None.
        num_image_tokens: picture tokens ``P`` that head each document; 0 for text.
        sos: id written before a text document, or None.
    """

    store: TokenStore
    first: np.ndarray
    last: np.ndarray
    image_rows: np.ndarray | None
    num_image_tokens: int
    sos: int | None

    @property
    def heads(self) -> int:
        """Positions before a document's first utterance token."""
        return self.num_image_tokens + (self.sos is not None)

    @property
    def text_lengths(self) -> np.ndarray:
        """Utterance tokens per document (``<eos>`` included where the tokeniser adds it)."""
        return self.store.offsets[self.last] - self.store.offsets[self.first]

    @property
    def lengths(self) -> np.ndarray:
        """Row positions per document, int64 [n]."""
        return self.text_lengths + self.heads

    @property
    def targets(self) -> np.ndarray:
        """Loss positions per document: every utterance token that something precedes."""
        return np.maximum(self.text_lengths - (self.heads == 0), 0)


def pair_documents(store: TokenStore, image_rows: np.ndarray, num_image_tokens: int) -> Documents:
    """One document per pair: the picture, then its utterance."""
    first = np.arange(len(store.offsets) - 1)
    return Documents(store, first, first + 1, image_rows, num_image_tokens, None)


def text_documents(store: TokenStore, sos: int | None, join_tokens: int) -> Documents:
    """Utterances alone, or consecutive ones joined up to ``join_tokens`` tokens each."""
    num = len(store.offsets) - 1
    if join_tokens == 0:
        first = np.arange(num)
        return Documents(store, first, first + 1, None, 0, sos)
    from engine.batches import cut_by_budget

    room = join_tokens - (sos is not None)
    lengths = np.diff(store.offsets)
    if num and int(lengths.max()) > room:
        raise ValueError(
            f"join_tokens: {join_tokens} is shorter than the longest utterance "
            f"({int(lengths.max())} tokens)"
        )
    bounds = cut_by_budget(lengths, room)
    return Documents(store, bounds[:-1], bounds[1:], None, 0, sos)


def build_row(documents: Documents, chosen: np.ndarray, pad_id: int) -> Row:
    """The packed row of the documents ``chosen`` (int64 [D]), in that order."""
    heads, prefix = documents.heads, documents.num_image_tokens
    text = documents.text_lengths[chosen]
    lengths = text + heads
    ends = np.cumsum(lengths)
    starts = ends - lengths
    total = int(ends[-1]) if len(ends) else 0

    # Position of every utterance token in the row, and of its source in the store.
    offset = _ramp(text)
    at = np.repeat(starts + heads, text) + offset
    source = np.repeat(documents.store.offsets[documents.first[chosen]], text) + offset
    tokens = np.full(total, pad_id, dtype=np.int64)
    tokens[at] = documents.store.tokens[source]
    if documents.sos is not None:
        tokens[starts + prefix] = documents.sos

    scored = at if heads else at[offset > 0]
    slots = np.repeat(starts, prefix) + np.tile(np.arange(prefix), len(chosen))
    bounds = np.concatenate([[0], ends]).astype(np.int32)
    return Row(
        tokens=torch.from_numpy(tokens),
        positions=torch.from_numpy(_ramp(lengths).astype(np.int32)),
        cu_seqlens=torch.from_numpy(bounds),
        prefix_lens=torch.full((len(chosen),), prefix, dtype=torch.int32),
        image_slots=torch.from_numpy(slots.astype(np.int64)),
        loss_rows=torch.from_numpy(scored - 1),
        targets=torch.from_numpy(tokens[scored]),
    )


@dataclass(frozen=True)
class RaggedTexts:
    """Utterances for the contrastive objective: words, and ``<sos>``/``<eos>`` where asked for.

    Attributes:
        store: token store of the split.
        stored_eos: the store's utterances end with ``<eos>``.
        sos, eos: ids to put around every utterance, or None to average the words alone.
    """

    store: TokenStore
    stored_eos: bool
    sos: int | None
    eos: int | None

    @property
    def lengths(self) -> np.ndarray:
        """Words per utterance, int64 [n]."""
        return self.store.lengths.astype(np.int64) - self.stored_eos

    def gather(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Token ids back to back (int64) and the start of each utterance (int64 [N])."""
        words = self.lengths[samples]
        head, tail = int(self.sos is not None), int(self.eos is not None)
        lengths = words + head + tail
        starts = np.cumsum(lengths) - lengths
        tokens = np.zeros(int(lengths.sum()), dtype=np.int64)
        offset = _ramp(words)
        source = np.repeat(self.store.offsets[samples], words) + offset
        tokens[np.repeat(starts + head, words) + offset] = self.store.tokens[source]
        if self.sos is not None:
            tokens[starts] = self.sos
        if self.eos is not None:
            tokens[starts + lengths - 1] = self.eos
        return tokens, starts


def _ramp(lengths: np.ndarray) -> np.ndarray:
    """``[3, 2]`` as ``[0, 1, 2, 0, 1]``, int64."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) - np.repeat(ends - lengths, lengths)

"""Likelihoods and sampling of a generative model.

Candidates of one picture share its prefix: the picture (and the prompt) is one document of the
packed row, every candidate a branch that sees it and itself. Nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.models.babyllava import BabyLLaVA
from engine.models.cache import KeyValueCache
from engine.models.row import Row
from engine.tokens import Tokenizer
from kernels import linear_logprobs

TOKEN_BUDGET = 16_384
"""Positions of a packed row while scoring, at most."""
FEWEST = 32
"""A shorter row is filled up with copies of its own questions: products of few rows take other
routines (measured on a CPU, picture-book model: 8e-6 of a text's log-likelihood), and a score would
depend on how questions are cut into batches."""


@dataclass(frozen=True)
class Record:
    """The likelihood of one candidate."""

    logprob_sum: float
    """Sum of the tokens' log-probabilities in nats."""
    num_tokens: int
    """Tokens scored (``<eos>`` included where asked for; never the prompt's)."""
    token_logprobs: list[float]
    """Log-probability of each token in nats."""


@dataclass(frozen=True)
class _Question:
    """One picture's candidates: the prefix's own tokens and each candidate's."""

    index: int
    candidates: list[list[int]]

    def size(self, prefix: int) -> int:
        # The last token of a candidate is only predicted, so it takes no position.
        return prefix + sum(max(len(c) - 1, 0) for c in self.candidates)


@torch.no_grad()
def score_candidates(
    model: BabyLLaVA,
    tokenizer: Tokenizer,
    features: Tensor | None,
    candidates: Sequence[Sequence[str]],
    *,
    prompt: str = "",
    score_eos: bool = False,
    token_budget: int = TOKEN_BUDGET,
) -> list[list[Record]]:
    """Score each picture's candidates.

    Args:
        model: in evaluation mode.
        tokenizer: its tokeniser. Prompt and candidates are encoded apart.
        features: ``[N, P, C]``; ``None``: no picture, the prefix is ``<sos>`` instead (the
            text-only prior), whether or not the model's own texts began with it.
        candidates: N lists of texts.
        prompt: comes after the picture and is not scored.
        score_eos: score ``<eos>`` after each candidate too.
        token_budget: positions of a packed row; one picture's candidates stay together.

    Returns:
        One record a candidate, in the order given.

    Raises:
        ValueError: the numbers of pictures and lists differ, or a text is too long.
    """
    if features is not None and features.shape[0] != len(candidates):
        raise ValueError(
            f"candidates: one list a picture expected ({features.shape[0]}), got {len(candidates)}"
        )
    pictures = 0 if features is None else features.shape[1]
    head = _head(tokenizer, prompt, pictures)
    prefix = pictures + len(head)
    flat = [text for texts in candidates for text in texts]
    encoded = iter(tokenizer.encode_batch(flat, eos=score_eos) if flat else [])
    tokens = [[next(encoded) for _ in texts] for texts in candidates]
    _check_lengths(tokens, candidates, prefix, model)
    # Candidates of one picture that are the same tokens (words unknown to the model) are scored
    # once: exactly equal, whatever their place in a row.
    questions = [
        _Question(index, [list(one) for one in dict.fromkeys(map(tuple, own))])
        for index, own in enumerate(tokens)
    ]
    scored: list[dict[tuple[int, ...], Record]] = [{} for _ in candidates]
    device = model.decoder.output_weight.device
    for batch in _batches(questions, prefix, token_budget):
        size = sum(question.size(prefix) for question in batch)
        batch = batch * -(-FEWEST // size)  # once, unless it is short
        row = _row(batch, head, pictures, tokenizer.pad_id).to(device)
        chosen = None
        if features is not None:
            chosen = features[[question.index for question in batch]].to(device)
        hidden = model.hidden(row, features=chosen).index_select(0, row.loss_rows)
        logprobs = linear_logprobs(hidden, model.decoder.output_weight, row.targets).tolist()
        at = 0
        for question in batch:
            for candidate in question.candidates:
                own = logprobs[at : at + len(candidate)]
                at += len(candidate)
                scored[question.index][tuple(candidate)] = Record(sum(own), len(own), own)
    return [
        [made[tuple(candidate)] for candidate in own]
        for made, own in zip(scored, tokens, strict=True)
    ]


@torch.no_grad()
def score_pair(
    model: BabyLLaVA,
    tokenizer: Tokenizer,
    features: Tensor | None,
    text: str,
    *,
    prompt: str = "",
    score_eos: bool = False,
) -> Record:
    """Score one candidate of one picture the plain way: what `score_candidates` is held against.

    One document of prefix and candidate, logits at every position, a softmax over the vocabulary:
    so evaluation harnesses score likelihoods, pair by pair.

    Args:
        model: in evaluation mode.
        tokenizer: its tokeniser.
        features: ``[1, P, C]``; ``None``: no picture, the prefix is ``<sos>`` instead.
        text: the candidate.
        prompt: comes after the picture and is not scored.
        score_eos: score ``<eos>`` after the candidate too.
    """
    pictures = 0 if features is None else features.shape[1]
    head = _head(tokenizer, prompt, pictures)
    prefix = pictures + len(head)
    candidate = tokenizer.encode(text, eos=score_eos)
    _check_lengths([[candidate]], [[text]], prefix, model)
    tokens = [tokenizer.pad_id] * pictures + head + candidate[:-1]
    row = Row(
        torch.tensor(tokens, dtype=torch.int64),
        torch.arange(len(tokens), dtype=torch.int32),
        torch.tensor([0, len(tokens)], dtype=torch.int32),
        torch.tensor([pictures], dtype=torch.int32),
        torch.arange(pictures),
        torch.empty(0, dtype=torch.int64),
        torch.empty(0, dtype=torch.int64),
    ).to(model.decoder.output_weight.device)
    if features is not None:
        features = features.to(row.tokens.device)
    hidden = model.hidden(row, features=features)
    logprobs = (hidden @ model.decoder.output_weight.T).float().log_softmax(dim=-1)  # [T, V]
    places = range(prefix - 1, prefix - 1 + len(candidate))
    own = [float(logprobs[place, token]) for place, token in zip(places, candidate, strict=True)]
    return Record(sum(own), len(own), own)


def _head(tokenizer: Tokenizer, prompt: str, pictures: int) -> list[int]:
    prompted = tokenizer.encode(prompt, eos=False) if prompt else []
    return prompted if pictures else [tokenizer.sos_id, *prompted]


def _check_lengths(
    candidates: Sequence[Sequence[list[int]]],
    texts: Sequence[Sequence[str]],
    prefix: int,
    model: BabyLLaVA,
) -> None:
    most = model.decoder.config.positions
    for own, said in zip(candidates, texts, strict=True):
        for text, tokens in zip(said, own, strict=True):
            if prefix + max(len(tokens) - 1, 0) > most:
                raise ValueError(
                    f"candidates: {text[:40]!r} after a prefix of {prefix} positions exceeds the "
                    f"model's {most}"
                )


def _batches(questions: list[_Question], prefix: int, budget: int) -> Iterator[list[_Question]]:
    batch: list[_Question] = []
    used = 0
    for question in questions:
        if not question.candidates:
            continue
        size = question.size(prefix)
        if batch and used + size > budget:
            yield batch
            batch, used = [], 0
        batch.append(question)
        used += size
    if batch:
        yield batch


def _row(batch: list[_Question], head: list[int], pictures: int, pad_id: int) -> Row:
    tokens: list[int] = []
    positions: list[int] = []
    bounds, prefixes, branches = [0], [], []
    slots: list[int] = []
    loss_rows: list[int] = []
    targets: list[int] = []
    prefix = pictures + len(head)
    for question in batch:
        parent, base = len(branches), len(tokens)
        slots += range(base, base + pictures)
        tokens += [pad_id] * pictures + head
        positions += range(prefix)
        bounds.append(len(tokens))
        prefixes.append(pictures)
        branches.append(-1)
        for candidate in question.candidates:
            begin = len(tokens)
            seen = candidate[:-1]
            tokens += seen
            positions += range(prefix, prefix + len(seen))
            bounds.append(len(tokens))
            prefixes.append(0)
            branches.append(parent)
            if candidate:
                # The prefix's last position predicts the first token of every candidate.
                loss_rows += [base + prefix - 1, *range(begin, begin + len(seen))]
                targets += candidate
    return Row(
        torch.tensor(tokens, dtype=torch.int64),
        torch.tensor(positions, dtype=torch.int32),
        torch.tensor(bounds, dtype=torch.int32),
        torch.tensor(prefixes, dtype=torch.int32),
        torch.tensor(slots, dtype=torch.int64),
        torch.tensor(loss_rows, dtype=torch.int64),
        torch.tensor(targets, dtype=torch.int64),
        torch.tensor(branches, dtype=torch.int32),
    )


@torch.no_grad()
def generate(
    model: BabyLLaVA,
    tokenizer: Tokenizer,
    features: Tensor | None,
    *,
    prompt: str = "",
    max_new_tokens: int = 25,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch: int = 64,
) -> list[str]:
    """Continue each picture with text, until ``<eos>`` or ``max_new_tokens``.

    Args:
        model: in evaluation mode.
        tokenizer: its tokeniser.
        features: ``[N, P, C]``; ``None``: one text from ``<sos>``.
        prompt: comes after the picture and is not part of what is returned.
        max_new_tokens: at most so many (published: 25).
        temperature: 0 takes the likeliest token (published), else logits are divided by it.
        top_p: sample among the likeliest tokens that hold this share of the probability (nucleus
            sampling, Holtzman et al. 2020).
        seed: of the sampling; a picture's text depends on it and its place, not on the batches.
        batch: pictures at once.

    Raises:
        ValueError: an argument is out of range or the text could outgrow the model's positions.
    """
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: at least 1 expected, got {max_new_tokens}")
    if temperature < 0:
        raise ValueError(f"temperature: at least 0 expected, got {temperature}")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p: in (0, 1] expected, got {top_p}")
    pictures = 0 if features is None else features.shape[1]
    head = _head(tokenizer, prompt, pictures)
    prefix, most = pictures + len(head), model.decoder.config.positions
    if prefix + max_new_tokens - 1 > most:
        raise ValueError(
            f"max_new_tokens: {max_new_tokens} after a prefix of {prefix} positions exceeds the "
            f"model's {most}"
        )
    total = 1 if features is None else features.shape[0]
    texts: list[str] = []
    for first in range(0, total, batch):
        count = min(batch, total - first)
        chosen = None if features is None else features[first : first + count]
        draws = None
        if temperature > 0:
            # One stream a picture, so that batching changes nothing.
            draws = np.stack(
                [
                    np.random.default_rng([seed, index]).random(max_new_tokens)
                    for index in range(first, first + count)
                ]
            )
        ids = _continue(
            model, tokenizer, chosen, count, head, max_new_tokens, temperature, top_p, draws
        )
        texts += [tokenizer.decode(_until(row, tokenizer.eos_id)) for row in ids]
    return texts


def _until(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _continue(
    model: BabyLLaVA,
    tokenizer: Tokenizer,
    features: Tensor | None,
    count: int,
    head: list[int],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    draws: np.ndarray | None,
) -> list[list[int]]:
    """Return the ids that follow ``count`` prefixes, ``<eos>`` and what comes after included."""
    weight = model.decoder.output_weight
    pictures = 0 if features is None else features.shape[1]
    questions = [_Question(index, []) for index in range(count)]
    row = _row(questions, head, pictures, tokenizer.pad_id).to(weight.device)
    inputs = model.inputs(row, features=None if features is None else features.to(weight.device))
    prefix = pictures + len(head)
    cache = KeyValueCache(model.decoder, count, prefix + max_new_tokens - 1)
    hidden = cache.prefill(inputs, row.positions, row.intervals(model.prefix_attention))
    # No document says these, so nothing taught the model not to (``<unk>`` it was taught).
    never = [i for i in {tokenizer.pad_id, tokenizer.sos_id} if i != tokenizer.unk_id]
    done = torch.zeros(count, dtype=torch.bool, device=weight.device)
    out: list[Tensor] = []
    for step in range(max_new_tokens):
        logits = (hidden @ weight[: tokenizer.vocab_size].T).float()
        logits[:, never] = float("-inf")
        if draws is None:
            chosen = logits.argmax(dim=-1)
        else:
            draw = torch.from_numpy(draws[:, step]).to(logits)
            chosen = _sample(logits / temperature, top_p, draw)
        out.append(chosen)
        done |= chosen == tokenizer.eos_id
        if step + 1 == max_new_tokens or bool(done.all()):
            break
        hidden = cache.step(chosen)
    return torch.stack(out, dim=1).tolist()


def _sample(logits: Tensor, top_p: float, draw: Tensor) -> Tensor:
    """Draw from ``[N, V]`` logits by inverting the sorted cumulative probabilities."""
    probabilities, order = logits.softmax(dim=-1).sort(dim=-1, descending=True, stable=True)
    cumulative = probabilities.cumsum(dim=-1)
    # A token stays when those before it hold less than top_p: the likeliest always does.
    kept = probabilities * (cumulative - probabilities < top_p)
    cumulative = kept.cumsum(dim=-1)
    place = (cumulative < draw[:, None] * cumulative[:, -1:]).sum(dim=-1, keepdim=True)
    place = place.clamp(max=kept.shape[1] - 1)
    return order.gather(1, place).squeeze(1)

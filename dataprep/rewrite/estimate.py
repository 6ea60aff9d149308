"""What a rewriting would cost, before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dataprep.llm.batch_files import line_of
from dataprep.llm.openai_batch import MAX_BYTES, MAX_REQUESTS
from dataprep.llm.request import Request
from dataprep.llm.store import RequestStore

_PER_MESSAGE, _PER_REQUEST = 8, 8


@dataclass
class Estimate:
    """Requests, tokens, and how the tokens were found.

    Attributes:
        rows: rows of the corpus.
        requests: different captions.
        known: of them, answered in the store.
        tokens_in: at most so many tokens are sent.
        tokens_out: at most so many come back (``max_tokens`` for each).
        how: one sentence: counted, or a bound.
        batch_files: input files of the Batch API.
        batch_bytes: size of them all.
    """

    rows: int = 0
    requests: int = 0
    known: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    how: str = ""
    batch_files: int = 0
    batch_bytes: int = 0

    def price(self, price_in: float, price_out: float) -> float:
        """Upper bound; prices are for a million tokens."""
        return (self.tokens_in * price_in + self.tokens_out * price_out) / 1e6

    def lines(self, price_in: float | None, price_out: float | None) -> list[str]:
        """As printed."""
        send = self.requests - self.known
        lines = [
            f"rows              {self.rows:>14,}",
            f"requests          {self.requests:>14,}  (one for each different caption)",
            f"  answered before {self.known:>14,}",
            f"  to send         {send:>14,}  ({self.batch_files} batch files, "
            f"{self.batch_bytes / 1e6:.1f} MB)",
            f"tokens in, at most  {self.tokens_in:>12,}  ({self.how})",
            f"tokens out, at most {self.tokens_out:>12,}  (max_tokens of every request)",
        ]
        if price_in is None or price_out is None:
            lines.append("price             give --price-in and --price-out (per million tokens)")
        else:
            lines.append(
                f"price, at most    {self.price(price_in, price_out):>14,.2f}  "
                f"(at {price_in:g} in, {price_out:g} out per million tokens)"
            )
        return lines


def token_counter(model: str) -> tuple[Callable[[str], int], str]:
    """A function from text to tokens and a sentence about it.

    With tiktoken and the model's encoding at hand it counts; otherwise it returns the UTF-8 bytes,
    which no byte-level tokeniser exceeds (real counts are about a quarter of it).
    """
    bound = "a bound: no byte-level tokeniser makes more tokens than UTF-8 bytes"
    try:
        import tiktoken  # pyright: ignore[reportMissingImports]
    except ImportError:
        return lambda text: len(text.encode("utf-8", "replace")), f"{bound}; tiktoken counts"
    try:
        encoding = tiktoken.encoding_for_model(model)
    except Exception as error:  # an unknown model, or its table cannot be downloaded
        why = " ".join(str(error).split())[:80]
        return lambda text: len(text.encode("utf-8", "replace")), f"{bound}; tiktoken: {why}"
    return (
        lambda text: len(encoding.encode(text, disallowed_special=())),
        f"counted with tiktoken's {encoding.name}, {_PER_MESSAGE} a message and {_PER_REQUEST} "
        "a request added",
    )


def estimate(
    requests: Iterable[Request], rows: int, store: RequestStore | None, model: str
) -> Estimate:
    """Count what would be sent; nothing is."""
    tokens, how = token_counter(model)
    found = Estimate(rows=rows, how=how)
    cached: dict[str, int] = {}  # texts that all requests share
    in_file_bytes = in_file = 0
    for request in requests:
        found.requests += 1
        if store is not None and request.key in store:
            found.known += 1
            continue
        shared = [str(m["content"]) for m in request.messages[:-1]]
        if request.schema is not None:
            shared.append(json.dumps(request.schema))
        for text in shared:
            if text not in cached:
                cached[text] = tokens(text)
            found.tokens_in += cached[text]
        found.tokens_in += tokens(str(request.messages[-1]["content"]))
        found.tokens_in += _PER_MESSAGE * len(request.messages) + _PER_REQUEST
        found.tokens_out += request.max_tokens
        size = len(line_of(request, "max_completion_tokens"))
        if in_file == 0 or in_file == MAX_REQUESTS or in_file_bytes + size > MAX_BYTES:
            found.batch_files += 1
            in_file = in_file_bytes = 0
        in_file, in_file_bytes = in_file + 1, in_file_bytes + size
        found.batch_bytes += size
    return found

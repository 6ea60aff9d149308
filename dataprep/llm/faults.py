"""What the local server does wrong, and when: the same for the same seed and requests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

TRANSIENT = ("rate_429", "error_500", "bad_body", "timeout")
LASTING = ("refusal", "filter", "length", "bad_content")


@dataclass(frozen=True)
class Faults:
    """Shares (0 to 1) of the requests that go wrong in each way, and delays in seconds.

    The first four happen to a request's first ``times`` attempts and then pass; the next four
    always happen to the same requests.
    """

    seed: int = 0
    times: int = 1
    rate_429: float = 0.0
    """HTTP 429 with ``Retry-After: retry_after_s``; not paid."""
    error_500: float = 0.0
    """HTTP 500 (in a batch: a line with that status); not paid."""
    bad_body: float = 0.0
    """HTTP 200 with half a JSON document, as a broken proxy sends; paid."""
    timeout: float = 0.0
    """The answer comes after ``timeout_s``; paid."""
    refusal: float = 0.0
    """``message.refusal`` is set; paid."""
    filter: float = 0.0
    """``finish_reason: content_filter``; paid."""
    length: float = 0.0
    """``finish_reason: length`` and half an answer; paid."""
    bad_content: float = 0.0
    """The answer's text is no JSON; paid."""
    retry_after_s: float = 0.05
    timeout_s: float = 5.0
    latency_s: float = 0.0
    """How long every answer takes."""
    batch_s: float = 0.0
    """How long a batch takes."""
    create_s: float = 0.0
    """How long the server thinks before it makes a batch."""
    expire: float = 0.0
    """Share of requests that their first batch does not get to before it expires; not paid."""
    batch_queue: int | None = None
    """Most requests in open batches; a batch above fails with ``token_limit_exceeded``."""
    per_second: float | None = None
    """Requests a second; above, HTTP 429. Told in ``x-ratelimit-`` headers."""
    ignores_schema: bool = False
    """Answers in prose whatever ``response_format`` says."""

    def _lot(self, kind: str, name: str) -> float:
        digest = hashlib.sha256(f"{self.seed}/{kind}/{name}".encode()).digest()
        return int.from_bytes(digest[:8]) / 2.0**64

    def _first_of(self, kinds: tuple[str, ...], name: str) -> str | None:
        return next((k for k in kinds if self._lot(k, name) < getattr(self, k)), None)

    def passing(self, name: str, attempt: int) -> str | None:
        """The fault that hits attempt 0, 1, ... of a request, if any."""
        return self._first_of(TRANSIENT, name) if attempt < self.times else None

    def lasting(self, name: str) -> str | None:
        """The fault that always hits a request, if any."""
        return self._first_of(LASTING, name)

    def expires(self, name: str, attempt: int) -> bool:
        """Whether a request's batch ends before it is its turn."""
        return attempt < self.times and self._lot("expire", name) < self.expire

"""What one exchange with a server came to: an answer, a failure that passes, or the end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataprep.llm.store import Answer

_FILTER_CODES = {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}


class BackendStop(OSError):
    """The server cannot go on (wrong key, no such model, gone); what was answered is kept."""


@dataclass(frozen=True)
class Outcome:
    """One request's exchange; exactly one of ``answer``, ``failure``, ``fatal`` is set.

    Attributes:
        key: the request's.
        answer: to be stored: it was paid for, or asking again cannot change it.
        failure: ``transport`` or ``rate`` (may be tried again), ``schema`` when the server
            rejected the request itself (free of charge, so it is not stored).
        fatal: one line; no request can succeed.
        text: what went wrong.
        unsure: attempts whose answer never came though the server may have charged for them.
    """

    key: str
    answer: Answer | None = None
    failure: str | None = None
    fatal: str | None = None
    text: str = ""
    unsure: int = 0


def parse_json(text: str) -> dict[str, Any] | None:
    """The object in ``text``; None when there is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def error_of(body: Mapping[str, Any] | None) -> tuple[str, str]:
    """Code (or type) and message of an error body, empty where it has none."""
    error = (body or {}).get("error")
    if isinstance(error, str):
        return "", error
    if not isinstance(error, Mapping):
        message = (body or {}).get("message")
        return "", message if isinstance(message, str) else ""
    code = error.get("code") or error.get("type") or ""
    return str(code), " ".join(str(error.get("message") or "").split())


def judge(key: str, origin: str, status: int, body: Mapping[str, Any] | None) -> Outcome:
    """Sort a server's response (HTTP status and JSON body, None when it was no JSON)."""
    if status == 200:
        return _answered(key, origin, body)
    code, message = error_of(body)
    said = f"HTTP {status} {code}".strip() + (f": {message[:200]}" if message else "")
    if status == 401:  # what the server says repeats parts of the key
        return Outcome(key, fatal=f"{origin}: the key in OPENAI_API_KEY was refused (HTTP 401)")
    if code == "insufficient_quota":
        return Outcome(key, fatal=f"{origin}: the account's quota is used up ({said})")
    if status in (403, 404):
        return Outcome(key, fatal=f"{origin}: {said}")
    if status == 429:
        return Outcome(key, failure="rate", text=said)
    if status in (408, 409) or status >= 500:
        return Outcome(key, failure="transport", text=said)
    if code in _FILTER_CODES:
        return Outcome(key, Answer(key, origin, "content_filter", message, None, {}, "", ""))
    return Outcome(key, failure="schema", text=f"the server rejected the request: {said}")


def _answered(key: str, origin: str, body: Mapping[str, Any] | None) -> Outcome:
    try:
        choice = (body or {})["choices"][0]
        message, finish = choice["message"], choice["finish_reason"]
        text, refusal = message.get("content") or "", message.get("refusal") or None
    except (KeyError, IndexError, TypeError, AttributeError):
        # The server may have charged for it: counted as unsure, and asked again.
        return Outcome(key, failure="transport", text="the response is no completion", unsure=1)
    body = body or {}
    usage = body.get("usage") or {}
    counts = {
        name: int(usage[name])
        for name in ("prompt_tokens", "completion_tokens")
        if isinstance(usage.get(name), int)
    }
    answer = Answer(
        key, origin, str(finish or ""), str(text), None if refusal is None else str(refusal),
        counts, str(body.get("model") or ""), str(body.get("id") or ""),
    )  # fmt: skip
    return Outcome(key, answer)

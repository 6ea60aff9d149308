"""The ``openai`` client as all backends use it: key from the environment, no retries of its own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dataprep.llm.outcome import BackendStop, parse_json
from dataprep.llm.request import Request, read_answer

if TYPE_CHECKING:
    from openai import OpenAI

KEY_VARIABLE = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"
FEATURE_TEST = "feature_test"
_WORD = "octarine"


def connect(base_url: str, *, timeout_s: float, needs_key: bool) -> OpenAI:
    """A client for ``base_url``. The key comes from ``OPENAI_API_KEY`` and is stored nowhere.

    Retries are switched off: a request that the client repeats by itself could be paid twice
    without our knowing. Raises ``ValueError`` when a key is needed and the variable is empty.
    """
    from openai import OpenAI

    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not key and needs_key:
        raise ValueError(f"{KEY_VARIABLE} is not set; {base_url} wants a key")
    if not key.isascii() or not key.isprintable():
        raise ValueError(f"{KEY_VARIABLE} holds characters that no key has; check how it was set")
    return OpenAI(
        api_key=key or "none", base_url=base_url, timeout=timeout_s, max_retries=0,
    )  # fmt: skip


def why(error: BaseException) -> str:
    """An error of the client in a few words, on one line."""
    cause = error.__cause__ or error.__context__
    text = str(error)
    if cause is not None and str(cause) and str(cause) not in text:
        text = f"{text.rstrip('.')} ({cause})"
    text = " ".join(text.split())[:200] or type(error).__name__
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return text.replace(key, "[key]") if key else text


def feature_test(client: OpenAI, model: str, tokens_name: str) -> bool:
    """Ask for an answer that only a server which enforces the schema gives.

    Returns whether it came; False after an error that passes (overload, a lost connection).
    Raises ``BackendStop`` with one line when the server ignores or rejects
    ``response_format: json_schema``.
    """
    from openai import APIError, APIStatusError

    schema = {
        "type": "object",
        "properties": {"colour": {"type": "string", "enum": [_WORD]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    request = Request(
        model, ({"role": "user", "content": "Name the colour of grass."},), schema,
        max_tokens=32, template=FEATURE_TEST,
    )  # fmt: skip
    where = str(client.base_url)
    advice = "start the server with structured output, or pass --schema unenforced"
    try:
        raw = client.chat.completions.with_raw_response.create(
            **request.body(tokens_name=tokens_name)
        )
        body = parse_json(raw.text) or {}
        choice: dict[str, Any] = body["choices"][0]
        text = choice["message"].get("content") or ""
    except APIStatusError as error:
        if error.status_code == 401:
            raise BackendStop(
                f"{where}: the key in {KEY_VARIABLE} was refused (HTTP 401)"
            ) from None
        if error.status_code in (400, 422):
            raise BackendStop(
                f"{where}: model {model} takes no response_format json_schema "
                f"(HTTP {error.status_code}: {why(error)}); {advice}"
            ) from None
        if error.status_code == 404:
            raise BackendStop(f"{where}: no model {model} there ({why(error)})") from None
        return False
    except (APIError, KeyError, IndexError, TypeError, AttributeError):
        return False
    record = {"finish": choice.get("finish_reason"), "text": text}
    if read_answer(request, record).value is None:
        raise BackendStop(
            f"{where}: the server ignores response_format json_schema (asked for the word "
            f"{_WORD!r}, got {text[:60]!r}); {advice}"
        )
    return True

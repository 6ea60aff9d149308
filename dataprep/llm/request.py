"""A question to a language model, its name (a hash of all that decides the answer), its answer."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from jsonschema import Draft202012Validator, SchemaError

ENDPOINT = "/v1/chat/completions"
FAILURES = ("transport", "rate", "refusal", "length", "schema", "filter")
"""Why a request has no value; the first two pass, so only they are tried again."""
TRANSIENT = ("transport", "rate")
_MAGIC = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no spaces, UTF-8: the one form that is hashed."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def image_type(data: bytes) -> str:
    """Media type by the first bytes; ``ValueError`` when it is no JPEG, PNG or WebP."""
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    raise ValueError(f"image of {len(data)} bytes is none of JPEG, PNG, WebP")


@dataclass(frozen=True)
class Request:
    """One chat completion.

    Two requests with the same :attr:`key` are the same question: it is paid once, however many
    rows ask it. The key is the SHA-256 of the canonical JSON of the endpoint and everything below;
    pictures enter by the SHA-256 of their bytes. The server's address is not part of it.

    Attributes:
        model: name of the model as the server knows it; prefer a dated snapshot.
        messages: ``{"role": ..., "content": text}`` in order.
        schema: JSON schema (draft 2020-12) that the answer must fulfil; None asks for plain text,
            which arrives as ``{"text": ...}``.
        max_tokens: an answer that does not fit is a failure of kind ``length``.
        temperature: None leaves it to the server (some models accept only their own).
        seed: passed on where given; makes equal answers likely, not certain.
        template: name of the prompt's template (a-z, A-Z, 0-9, ``_``, ``-``; up to 64): sent as
            the schema's name.
        images: encoded pictures, appended to the last message.
    """

    model: str
    messages: Sequence[Mapping[str, str]]
    schema: Mapping[str, Any] | None = None
    max_tokens: int = 256
    temperature: float | None = 0.0
    seed: int | None = None
    template: str = ""
    images: Sequence[bytes] = field(default=(), repr=False)

    @cached_property
    def key(self) -> str:
        """SHA-256, 64 hexadecimal digits."""
        identity = {
            "endpoint": ENDPOINT,
            "model": self.model,
            "messages": [dict(message) for message in self.messages],
            "schema": self.schema,
            "template": self.template,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "images": [hashlib.sha256(image).hexdigest() for image in self.images],
        }
        return hashlib.sha256(canonical(identity)).hexdigest()

    def body(self, *, structured: bool = True, tokens_name: str = "max_tokens") -> dict[str, Any]:
        """The JSON body as it is sent.

        Args:
            structured: let the server enforce the schema (it is checked here in any case).
            tokens_name: what the server calls the limit (``max_completion_tokens`` at OpenAI).
        """
        messages: list[dict[str, Any]] = [dict(message) for message in self.messages]
        if self.images:
            parts: list[dict[str, Any]] = [{"type": "text", "text": messages[-1]["content"]}]
            for image in self.images:
                coded = base64.b64encode(image).decode("ascii")
                url = f"data:{image_type(image)};base64,{coded}"
                parts.append({"type": "image_url", "image_url": {"url": url}})
            messages[-1]["content"] = parts
        body: dict[str, Any] = {
            "model": self.model, "messages": messages, tokens_name: self.max_tokens,
        }  # fmt: skip
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if self.seed is not None:
            body["seed"] = self.seed
        if self.schema is not None and structured:
            named = {"name": self.template or "answer", "strict": True, "schema": self.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": named}
        return body


@dataclass(frozen=True)
class Reply:
    """What became of a request.

    Attributes:
        key: the request's.
        value: the answer, which fulfils the schema; None after a failure.
        failure: None or one of :data:`FAILURES`.
        text: the answer as it came, or what went wrong.
        usage: ``prompt_tokens``, ``completion_tokens`` as the server counted them.
        model: the snapshot that the server says it used; empty when it says nothing.
    """

    key: str
    value: dict[str, Any] | None
    failure: str | None
    text: str
    usage: dict[str, int] = field(default_factory=dict)
    model: str = ""


_VALIDATORS: dict[bytes, Draft202012Validator] = {}


def validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    """A validator of the schema; ``ValueError`` when it is no JSON schema."""
    name = canonical(schema)
    if name not in _VALIDATORS:
        try:
            Draft202012Validator.check_schema(dict(schema))
        except SchemaError as error:
            raise ValueError(f"not a JSON schema: {error.message}") from None
        _VALIDATORS[name] = Draft202012Validator(dict(schema))
    return _VALIDATORS[name]


def read_answer(request: Request, record: Mapping[str, Any]) -> Reply:
    """Judge a stored answer (``finish``, ``text``, ``refusal``, ``usage``, ``model``).

    The answer is stored as it came and judged whenever it is read, so a stricter check never
    costs a second request.
    """
    text, usage = record.get("text") or "", dict(record.get("usage") or {})
    model = record.get("model") or ""

    def failed(kind: str, why: str) -> Reply:
        return Reply(request.key, None, kind, why, usage, model)

    if record.get("refusal"):
        return failed("refusal", str(record["refusal"]))
    if record.get("finish") == "content_filter":
        return failed("filter", text or "the server's content filter stopped it")
    if record.get("finish") == "length":
        return failed("length", text or f"no answer within {request.max_tokens} tokens")
    if request.schema is None:
        if not text:
            return failed("schema", "the answer is empty")
        return Reply(request.key, {"text": text}, None, text, usage, model)
    try:
        value = json.loads(text)
    except ValueError:
        return failed("schema", f"not JSON: {text[:200]}")
    problem = next(iter(validator(request.schema).iter_errors(value)), None)
    if problem is not None or not isinstance(value, dict):
        why = problem.message if problem else "not an object"
        return failed("schema", f"{why[:200]}: {text[:200]}")
    return Reply(request.key, value, None, text, usage, model)

"""What the local server knows: files, batches, limits, and who paid how often for what."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dataprep.llm.connection import FEATURE_TEST
from dataprep.llm.faults import Faults
from dataprep.llm.request import canonical

Rule = Callable[[Mapping[str, Any]], Mapping[str, Any] | str]
"""From a request's body to its answer (an object where a schema is asked for)."""
MAX_REQUESTS, MAX_BYTES = 50_000, 200_000_000


def error_body(message: str, code: str | None, kind: str = "invalid_request_error") -> dict:
    """An error as OpenAI writes it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def template_of(body: Mapping[str, Any]) -> str:
    """Name of the request's schema; empty where it asks for plain text."""
    shape = body.get("response_format") or {}
    return str((shape.get("json_schema") or {}).get("name", ""))


def _feature(body: Mapping[str, Any]) -> Mapping[str, Any]:
    schema = body["response_format"]["json_schema"]["schema"]
    return {name: each["enum"][0] for name, each in schema["properties"].items()}


@dataclass
class Batch:
    """A batch at the server; results are fixed when it is made and shown when it has ended."""

    id: str
    file: str
    metadata: dict[str, str]
    made_at: float
    ends_at: float
    end: str
    total: int
    done: int
    output: str | None = None
    errors: str | None = None
    failure: tuple[str, str] | None = None


@dataclass
class ServerState:
    """Everything that outlives a connection. Methods lock by themselves.

    Attributes:
        rules: answers by template (the schema's name; ``""`` for plain text).
        faults: what goes wrong.
        paid: how often each request was answered at the client's cost, by the hash of its body.
        calls: how often each route was called.
    """

    rules: Mapping[str, Rule]
    faults: Faults = field(default_factory=Faults)
    paid: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    _attempts: Counter[str] = field(default_factory=Counter)
    _made: int = 0
    _tokens: float = 0.0
    _tokens_at: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def attempt(self, kind: str, name: str) -> int:
        """0 at the first call for a request, then 1, 2, ..."""
        with self._lock:
            self._attempts[f"{kind}/{name}"] += 1
            return self._attempts[f"{kind}/{name}"] - 1

    def called(self, route: str) -> None:
        """Count a call."""
        with self._lock:
            self.calls[route] += 1

    def limit(self) -> tuple[bool, dict[str, str]]:
        """Whether one more request is within the limit, and the headers that tell the state."""
        rate = self.faults.per_second
        if rate is None:
            return True, {}
        with self._lock:
            now = time.monotonic()
            full = max(rate, 1.0)
            if self._tokens_at == 0.0:
                self._tokens = full
            self._tokens = min(full, self._tokens + (now - self._tokens_at) * rate)
            self._tokens_at = now
            fits = self._tokens >= 1
            if fits:
                self._tokens -= 1
            reset_ms = (full - self._tokens) / rate * 1000
            return fits, {
                "x-ratelimit-limit-requests": str(int(full)),
                "x-ratelimit-remaining-requests": str(int(self._tokens)),
                "x-ratelimit-reset-requests": f"{reset_ms:.0f}ms",
            }

    # ---- answers

    @staticmethod
    def name_of(body: Mapping[str, Any]) -> str:
        """Hash of a request's body."""
        return hashlib.sha256(canonical(body)).hexdigest()

    def complete(self, body: Mapping[str, Any]) -> tuple[int, dict]:
        """HTTP status and body of a completion. What is answered with 200 is paid."""
        template, name = template_of(body), self.name_of(body)
        rule = _feature if template == FEATURE_TEST else self.rules.get(template)
        if rule is None:
            known = ", ".join(sorted(self.rules)) or "none"
            return 400, error_body(f"no rule for schema {template!r}; known: {known}", None)
        try:
            value = rule(body)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            return 400, error_body(f"the rule cannot read the request: {error!r}", None)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        finish, refusal = "stop", None
        fault = None if template == FEATURE_TEST else self.faults.lasting(name)
        if self.faults.ignores_schema:
            text = "It is green, of course."
        elif fault == "refusal":
            text, refusal = "", "I'm sorry, I can't help with that."
        elif fault == "filter":
            text, finish = "", "content_filter"
        elif fault == "length":
            text, finish = text[: len(text) // 2], "length"
        elif fault == "bad_content":
            text = "Sure! " + text[: len(text) // 2]
        with self._lock:
            if template != FEATURE_TEST:
                self.paid[name] += 1
        prompt = sum(len(str(message.get("content", ""))) for message in body["messages"]) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": len(text) // 4 + 1}
        return 200, {
            "id": f"chatcmpl-{name[:24]}",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": finish,
                    "logprobs": None,
                    "message": {
                        "role": "assistant",
                        "content": None if refusal else text,
                        "refusal": refusal,
                    },
                }
            ],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }

    # ---- files and batches

    def add_file(self, name: str, data: bytes) -> str:
        """Keep a file; its id."""
        with self._lock:
            self._made += 1
            identity = f"file-{self._made:06d}"
            self.files[identity] = (name, data)
            return identity

    def make_batch(self, file: str, metadata: Mapping[str, str]) -> Batch | None:
        """Make a batch and fix its results; None when its input file is not there (any more)."""
        time.sleep(self.faults.create_s)
        with self._lock:
            if file not in self.files:
                return None
            self._made += 1
            now = time.time()
            lines = [line for line in self.files[file][1].splitlines() if line.strip()]
            batch = Batch(
                f"batch_{self._made:06d}", file, dict(metadata), now, now + self.faults.batch_s,
                "completed", len(lines), 0,
            )  # fmt: skip
            open_now = sum(b.total for b in self.batches.values() if now < b.ends_at)
            queue = self.faults.batch_queue
            self.batches[batch.id] = batch
            if len(lines) > MAX_REQUESTS or len(self.files[file][1]) > MAX_BYTES:
                batch.failure = ("invalid_batch_size", "the file has too many lines or bytes")
            elif queue is not None and open_now + len(lines) > queue:
                batch.failure = ("token_limit_exceeded", "Enqueued token limit reached")
            if batch.failure:
                batch.end, batch.ends_at = "failed", now
            else:
                self._run_batch(batch, [json.loads(line) for line in lines])
            return batch

    def _run_batch(self, batch: Batch, lines: list[dict[str, Any]]) -> None:
        good, bad = [], []
        for number, line in enumerate(lines):
            name = self.name_of(line["body"])
            answer = {"id": f"batch_req_{batch.id}_{number}", "custom_id": line["custom_id"]}
            attempt = self.attempt("batch", name)
            if self.faults.expires(name, attempt):
                batch.end = "expired"
                said = {"code": "batch_expired", "message": "This request could not be executed"}
                bad.append({**answer, "response": None, "error": said})
                continue
            if self.faults.passing(name, attempt) == "error_500":
                status, body = 500, error_body("internal error", None, "server_error")
            else:
                status, body = self.complete(line["body"])
            response = {"status_code": status, "request_id": answer["id"], "body": body}
            (good if status == 200 else bad).append(
                {**answer, "response": response, "error": None}
            )
        batch.done = len(good)
        for found, attribute in ((good, "output"), (bad, "errors")):
            if found:
                data = "".join(json.dumps(line) + "\n" for line in found).encode()
                setattr(batch, attribute, self.add_file(f"{batch.id}_{attribute}.jsonl", data))

    def show(self, batch: Batch) -> dict[str, Any]:
        """A batch as the API shows it now."""
        ended = time.time() >= batch.ends_at
        failure = batch.failure
        errors = failure and {
            "object": "list",
            "data": [{"code": failure[0], "message": failure[1], "param": None, "line": None}],
        }
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "input_file_id": batch.file,
            "created_at": int(batch.made_at),
            "metadata": batch.metadata,
            "status": batch.end if ended else "in_progress",
            "errors": errors,
            "output_file_id": batch.output if ended else None,
            "error_file_id": batch.errors if ended else None,
            "request_counts": {
                "total": batch.total,
                "completed": batch.done if ended else 0,
                "failed": batch.total - batch.done if ended else 0,
            },
        }

    def list_batches(self, limit: int, after: str | None) -> dict[str, Any]:
        """A page of batches, newest first."""
        with self._lock:
            names = sorted(self.batches, reverse=True)
            start = names.index(after) + 1 if after in names else 0
            page = [self.show(self.batches[name]) for name in names[start : start + limit]]
            more = start + limit < len(names)
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {}
        return {"object": "list", "data": page, "has_more": more, **ends}

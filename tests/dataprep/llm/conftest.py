"""Requests that a trivial rule answers, and the local server that has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dataprep.llm import Request, RequestStore

SCHEMA = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"],
          "additionalProperties": False}


@pytest.fixture
def rules() -> dict:
    return {"echo": lambda body: {"word": body["messages"][-1]["content"]}}


@pytest.fixture
def ask():
    def some(count: int, start: int = 0) -> list[Request]:
        return [Request("m", ({"role": "user", "content": f"word {n}"},), SCHEMA, template="echo",
                        max_tokens=40) for n in range(start, start + count)]
    return some


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RequestStore]:
    with RequestStore(tmp_path / "store") as store:
        yield store


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

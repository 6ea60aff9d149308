"""Backends by the names that the command line takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataprep.llm.answering import Backend
from dataprep.llm.connection import OPENAI_URL
from dataprep.llm.openai_batch import OpenAIBatch
from dataprep.llm.openai_sync import OpenAISync
from dataprep.llm.replay import Replay
from dataprep.llm.server import LocalServer, Rule
from dataprep.llm.store import RequestStore

NAMES = (
    "openai-batch (half the price, within a day), openai (one by one), URL of any compatible "
    "server such as http://127.0.0.1:8000/v1, batch+URL (a compatible server's Batch API), replay "
    "(send nothing: all answers are in the store), replay:DIR (copy answers from another store), "
    "stand-in (a server inside this process with fixed rules, no language model)"
)


def check_spec(spec: str) -> None:
    """``ValueError`` when ``spec`` names no backend."""
    if spec not in ("openai-batch", "openai", "replay", "stand-in") and not spec.startswith(
        ("http://", "https://", "batch+http://", "batch+https://", "replay:")
    ):
        raise ValueError(f"--backend {spec!r}; accepted: {NAMES}")


@contextmanager
def open_backend(
    spec: str,
    *,
    concurrency: int = 16,
    enforced: bool = True,
    forget_lost: bool = False,
    rules: dict[str, Rule] | None = None,
) -> Iterator[Backend]:
    """The backend that ``spec`` names (see :data:`NAMES`).

    Args:
        spec: name or address.
        concurrency: requests under way at a time, where they go one by one.
        enforced: have the server enforce schemas.
        forget_lost: see ``OpenAIBatch``.
        rules: what the stand-in answers, by template.

    Raises:
        ValueError: no such backend, or a key that it needs is not in the environment.
    """
    check_spec(spec)
    if spec == "openai-batch":
        yield OpenAIBatch(OPENAI_URL, forget_lost=forget_lost)
    elif spec == "openai":
        yield OpenAISync(OPENAI_URL, concurrency=concurrency, enforced=enforced)
    elif spec.startswith(("http://", "https://")):
        yield OpenAISync(spec, concurrency=concurrency, enforced=enforced)
    elif spec.startswith(("batch+http://", "batch+https://")):
        yield OpenAIBatch(spec.removeprefix("batch+"), forget_lost=forget_lost)
    elif spec == "replay":
        yield Replay()
    elif spec.startswith("replay:"):
        folder = Path(spec.removeprefix("replay:"))
        if not (folder / "store.json").is_file():
            raise ValueError(f"--backend {spec}: no request store there (no store.json)")
        with RequestStore(folder) as recorded:
            yield Replay(recorded)
    else:
        with LocalServer(rules or {}) as server:
            backend = OpenAISync(server.base_url, concurrency=concurrency)
            backend.name = backend.origin = "stand-in"
            yield backend

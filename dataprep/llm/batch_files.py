"""Batch files: one JSON line a request going out, one a result coming back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from dataprep.llm.request import ENDPOINT, Request


def line_of(request: Request, tokens_name: str) -> bytes:
    """A request as a line of a batch file; its key is the ``custom_id``."""
    line = {
        "custom_id": request.key,
        "method": "POST",
        "url": ENDPOINT,
        "body": request.body(tokens_name=tokens_name),
    }
    return json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def write_part(
    path: Path, requests: Iterator[Request], max_requests: int, max_bytes: int, *, tokens_name: str
) -> tuple[list[str], Iterator[Request]]:
    """Write as many requests to ``path`` as one file may hold.

    Returns their keys and the requests that are left. Raises ``ValueError`` when a single request
    is too large for a file, ``OSError`` when the disk does not take it.
    """
    keys: list[str] = []
    size = 0
    try:
        with path.open("wb") as file:
            for request in requests:
                line = line_of(request, tokens_name)
                if len(line) > max_bytes:
                    raise ValueError(
                        f"request {request.key}: {len(line)} bytes; a batch file takes {max_bytes}"
                    )
                if size + len(line) > max_bytes:
                    return keys, chain([request], requests)
                file.write(line)
                keys.append(request.key)
                size += len(line)
                if len(keys) == max_requests:
                    break
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror})") from error
    return keys, requests


def read_lines(text: str) -> list[dict[str, Any]] | None:
    """The objects of a JSON-lines text; None when a line is not whole."""
    lines = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            return None
        if not isinstance(value, dict):
            return None
        lines.append(value)
    return lines

"""The request store: every answer that was paid for, and what is under way, safe from kills.

    store.json      format, a random name (batches at the server carry it), when it was made
    segments/       the truth: an append-only journal in JSON lines (see ``segments``)
    index.sqlite    where each answer lies; made anew from the segments when it is not right
    lock            held by the one process that uses the store

A line counts once it is flushed to the device. The journal knows six kinds of lines: ``reply`` (an
answer as it came), ``sent`` and ``unsent`` (requests under way one by one), and ``part``,
``uploaded``, ``batch``, ``closed`` (requests under way as a batch: first the intention, then what
the server called the file and the batch, then the end).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any

from dataprep.files import write_whole
from dataprep.llm.index import Index, Part
from dataprep.llm.request import Reply, Request, read_answer
from dataprep.llm.segments import SEGMENT_BYTES, Place, Segments

FORMAT = 1
_RESERVE_BYTES = 8 * 2**20


@dataclass(frozen=True)
class Answer:
    """An answer as the server gave it, ready to be stored (see ``request.read_answer``)."""

    key: str
    origin: str
    finish: str
    text: str
    refusal: str | None
    usage: dict[str, int]
    model: str
    id: str

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Answer:
        """The answer in a journal line."""
        return cls(**{each.name: record[each.name] for each in fields(cls)})


class RequestStore:
    """A folder of answered requests; made when it is not there. A context manager.

    Args:
        path: the folder.
        segment_bytes: size from which a new segment is begun.

    Attributes: ``path``; ``id``, its random name; ``created_s``, Unix time; ``interrupted``, keys
    that an earlier process had under way one by one when it ended (the server may have charged
    for them); ``dropped_bytes``, length of a torn last line that was cut off.

    Raises:
        ValueError: the folder holds something else, or a journal line is damaged.
        OSError: another process uses the store, or the disk does not take it.
    """

    def __init__(self, path: str | os.PathLike[str], *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path}: a file; accepted: the folder of a request store")
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = self._take_lock()
        try:
            about = self._read_about()
            self.id: str = about["id"]
            self.created_s: int = about["created_s"]
            self._segments = Segments(self.path / "segments", segment_bytes)
            self.dropped_bytes = self._segments.dropped_bytes
            self._index = Index(self.path / "index.sqlite", self.id, self._segments)
        except BaseException:
            os.close(self._lock)
            raise
        self.interrupted: list[str] = self._index.sent()

    def _take_lock(self) -> int:
        handle = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(handle, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(handle)
            raise OSError(f"{self.path}: another process (id {owner}) uses this store") from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        return handle

    def _read_about(self) -> dict[str, Any]:
        file = self.path / "store.json"
        if not file.exists():
            if (self.path / "segments").exists():
                raise ValueError(f"{file}: missing, but there are segments; restore it")
            about = {"format": FORMAT, "id": secrets.token_hex(8), "created_s": int(time.time())}
            write_whole(file, json.dumps(about) + "\n", "store.partial")
            return about
        try:
            about = json.loads(file.read_text("utf-8"))
            found = (about["format"], isinstance(about["id"], str), int(about["created_s"]))
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file}: does not describe a request store") from None
        if found[:2] != (FORMAT, True):
            raise ValueError(f"{file}: format {about['format']}; accepted: {FORMAT}")
        return about

    # ---- answers

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._index.place(key) is not None

    def __len__(self) -> int:
        return self._index.count()

    def record(self, key: str) -> dict[str, Any] | None:
        """The stored answer as it came; None when there is none."""
        place = self._index.place(key)
        if place is None:
            return None
        record = self._segments.read(place)
        if record.get("kind") != "reply" or record["key"] != key:
            raise ValueError(
                f"{self.path}/index.sqlite: does not fit the segments; delete it (it is made anew)"
            )
        return record

    def reply(self, request: Request) -> Reply | None:
        """The judged answer of a request; None when there is none."""
        record = self.record(request.key)
        return None if record is None else read_answer(request, record)

    def add(self, answers: Sequence[Answer]) -> None:
        """Store answers: once this returns they are on the device."""
        self._write([{"kind": "reply", **asdict(answer)} for answer in answers])

    def origins(self) -> dict[str, int]:
        """How many answers came from each server."""
        return self._index.origins()

    # ---- under way one by one

    def sending(self, keys: Sequence[str]) -> None:
        """Note that requests are about to be sent (before they are)."""
        self._write([{"kind": "sent", "keys": list(keys)}], sync=False)

    def not_answered(self, keys: Sequence[str]) -> None:
        """Note that requests ended without an answer that could be stored."""
        self._write([{"kind": "unsent", "keys": list(keys)}], sync=False)

    # ---- under way as batches

    def begin_part(self, keys: Sequence[str]) -> str:
        """Note, before anything is sent, that a batch of these requests will be; its name."""
        name = f"{self._index.next_part():06d}"
        self._write([{"kind": "part", "part": name, "keys": list(keys)}])
        return name

    def part_uploaded(self, part: str, file: str) -> None:
        """Note the server's name of the part's input file."""
        self._write([{"kind": "uploaded", "part": part, "file": file}])

    def part_batch(self, part: str, batch: str) -> None:
        """Note the server's name of the part's batch."""
        self._write([{"kind": "batch", "part": part, "batch": batch}])

    def close_part(self, part: str, why: str) -> None:
        """Note that nothing more is to come of a part; unanswered requests are free again."""
        self._write([{"kind": "closed", "part": part, "why": why}])

    def open_parts(self) -> list[Part]:
        """The parts under way, oldest first."""
        return self._index.open_parts()

    def part_keys(self, part: str) -> list[str]:
        """Keys of a part under way, in the order in which they were sent."""
        return self._index.part_keys(part)

    def in_open_part(self, key: str) -> bool:
        """Whether a request is under way as part of a batch."""
        return self._index.in_open_part(key)

    # ---- the rest

    def _write(self, records: list[dict[str, Any]], *, sync: bool = True) -> None:
        if records:
            places = self._segments.append(records, sync=sync)
            self._index.apply(zip(places, records, strict=True))

    def check_space(self, more_bytes: int = 0) -> None:
        """``OSError`` when the disk has no room for answers: better before they are paid for."""
        status = os.statvfs(self.path)
        free = status.f_bavail * status.f_frsize
        if free < _RESERVE_BYTES + more_bytes:
            raise OSError(
                f"{self.path}: the disk is nearly full ({free / 2**20:.1f} MiB free); nothing "
                f"more was sent, {len(self)} answers are kept"
            )

    def journal(self) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Every line of the journal, oldest first."""
        for number in self._segments.numbers():
            yield from self._segments.scan(number)

    def close(self) -> None:
        """Flush and let go of the store."""
        if self._lock >= 0:
            try:
                self._index.close()
                self._segments.close()
            finally:
                os.close(self._lock)
                self._lock = -1

    def __enter__(self) -> RequestStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

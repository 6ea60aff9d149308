"""Answers recorded earlier, in another store: a run repeated without a server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from dataprep.llm.outcome import Outcome
from dataprep.llm.request import Request
from dataprep.llm.store import Answer, RequestStore

if TYPE_CHECKING:
    from dataprep.llm.answering import Journal


class Replay:
    """Copies answers out of a recorded store; with None it only checks that none is missing."""

    def __init__(self, recorded: RequestStore | None = None) -> None:
        self._recorded = recorded
        self.name = "replay"
        self.origin = "replay" if recorded is None else str(recorded.path)

    def run(self, requests: Iterable[Request], journal: Journal) -> None:
        """See ``answering.Backend``. ``ValueError`` when answers are missing (after copying)."""
        found: list[Outcome] = []
        absent: list[str] = []
        total = 0
        for request in requests:
            total += 1
            record = None if self._recorded is None else self._recorded.record(request.key)
            if record is None:
                absent.append(request.key)
                continue
            found.append(Outcome(request.key, Answer.of(record)))
            if len(found) >= 1000:
                journal.received(found)
                found = []
        journal.received(found)
        if absent:
            where = journal.store.path if self._recorded is None else self._recorded.path
            raise ValueError(
                f"{where}: holds no answer to {len(absent)} of {total} requests still open "
                f"(first: {absent[0]})"
            )

"""Getting requests answered: those that the store lacks are sent, the rest are read from it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tqdm import tqdm

from dataprep.llm.outcome import Outcome
from dataprep.llm.request import Reply, Request, validator
from dataprep.llm.store import RequestStore


class Backend(Protocol):
    """Something that answers requests."""

    name: str
    """As the command line calls it."""
    origin: str
    """The server's address, or what stands for it; stored beside every answer."""

    def run(self, requests: Iterable[Request], journal: Journal) -> None:
        """Send what is to be sent and hand every outcome to the journal.

        ``requests`` may be iterated several times; each time it yields the requests that are
        neither answered nor part of a batch under way. Raises ``OSError`` with one line when it
        cannot go on; what was answered until then has been handed over.
        """
        ...


@dataclass
class Summary:
    """What a call of :func:`fill` did.

    Attributes:
        asked: different requests that were wanted.
        known: of them, answered before.
        answered: of them, answered now.
        failed: key -> (failure, text) of those that have no stored answer.
        unsure: answers that never came though the server may have charged for them: requests
            under way when an earlier run ended, time-outs, lost connections.
        usage: tokens of the answers that came now, as the server counted them.
    """

    asked: int = 0
    known: int = 0
    answered: int = 0
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    unsure: int = 0
    usage: Counter[str] = field(default_factory=Counter)


class Journal:
    """What a backend sees of the store: it hands over outcomes, which are stored and counted."""

    def __init__(
        self,
        store: RequestStore,
        summary: Summary,
        bar: tqdm,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.store, self.summary = store, summary
        self._bar, self._say = bar, say

    def say(self, text: str) -> None:
        """A line above the progress bar."""
        if self._say is not None:
            self._say(text)
        else:
            self._bar.write(text, file=sys.stderr)

    def waiting(self, text: str) -> None:
        """What the server is doing, behind the progress bar."""
        self._bar.set_postfix_str(text)

    def received(self, outcomes: Sequence[Outcome]) -> None:
        """Store the answers (they are on the device when this returns) and count everything."""
        answers = [outcome.answer for outcome in outcomes if outcome.answer is not None]
        self.store.add(answers)
        failed = [outcome for outcome in outcomes if outcome.failure or outcome.fatal]
        if failed:
            self.store.not_answered([outcome.key for outcome in failed])
        for answer in answers:
            self.summary.failed.pop(answer.key, None)
            self.summary.usage.update(answer.usage)
        for outcome in failed:
            self.summary.failed[outcome.key] = (outcome.failure or "transport", outcome.text)
        self.summary.unsure += sum(outcome.unsure for outcome in outcomes)
        self.summary.answered += len(answers)
        self._bar.update(len(answers))
        if self.summary.failed:
            self._bar.set_postfix(failed=len(self.summary.failed), refresh=False)


class _Unanswered:
    """The requests that are neither answered nor under way, each once; iterable again and again."""

    def __init__(self, requests: Iterable[Request], store: RequestStore) -> None:
        self._requests, self._store = requests, store

    def __iter__(self) -> Iterator[Request]:
        seen: set[bytes] = set()
        for request in self._requests:
            name = bytes.fromhex(request.key)
            if name in seen:
                continue
            seen.add(name)
            if request.key not in self._store and not self._store.in_open_part(request.key):
                yield request


def count(requests: Iterable[Request], store: RequestStore) -> tuple[int, int]:
    """How many different requests there are and how many of them the store answers.

    Raises ``ValueError`` when a schema is none.
    """
    seen: set[bytes] = set()
    schema = None
    known = 0
    for request in requests:
        if request.schema is not None and request.schema is not schema:
            schema = request.schema
            validator(schema)
        name = bytes.fromhex(request.key)
        if name not in seen:
            seen.add(name)
            known += request.key in store
    return len(seen), known


def fill(
    requests: Iterable[Request],
    store: RequestStore,
    backend: Backend,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Summary:
    """Send the requests that the store has no answer for, and store what comes back.

    Args:
        requests: may be lazy, but must give the same requests each time it is iterated.
        store: where answers are kept.
        backend: who answers.
        progress: show a bar with rate and time left.
        say: receives lines about what happened; standard error by default.

    Raises:
        ValueError: a schema is none.
        OSError: the server, the key or the disk stops the work, in one line; every answer that
            came before is stored, and calling again goes on from there.
    """
    summary = Summary()
    summary.asked, summary.known = count(requests, store)
    with tqdm(
        total=summary.asked, initial=summary.known, unit="request", disable=not progress,
        desc=backend.name, file=sys.stderr, smoothing=0.05,
    ) as bar:  # fmt: skip
        journal = Journal(store, summary, bar, say)
        if store.interrupted:
            journal.say(
                f"{len(store.interrupted)} requests were under way when an earlier run ended: "
                "the server may have charged for them; they are sent again"
            )
            summary.unsure += len(store.interrupted)
            store.not_answered(store.interrupted)
            store.interrupted = []
        if summary.known < summary.asked or store.open_parts():
            store.check_space()
            backend.run(_Unanswered(requests, store), journal)
    waiting = sum(part.requests for part in store.open_parts())
    if waiting:
        raise OSError(
            f"{store.path}: {waiting} requests are under way as batches and {backend.name} cannot "
            "collect them: run once more with the backend that sent them"
        )
    return summary


def answer(
    requests: Sequence[Request], store: RequestStore, backend: Backend, progress: bool = True
) -> dict[str, Reply]:
    """Reply of each request by its key; only unanswered ones are sent (see :func:`fill`).

    Failures that pass (``transport``, ``rate``) and requests that the server rejected are not
    stored: the next call sends them again. The others are answers, and stay.
    """
    summary = fill(requests, store, backend, progress)
    replies: dict[str, Reply] = {}
    for request in requests:
        if request.key in replies:
            continue
        reply = store.reply(request)
        if reply is None:
            failure, text = summary.failed.get(request.key, ("transport", "no answer came"))
            reply = Reply(request.key, None, failure, text)
        replies[request.key] = reply
    return replies

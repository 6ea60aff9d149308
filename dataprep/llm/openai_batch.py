"""The Batch API: files of requests, answered within a day at half the price, each paid once.

Before anything is sent the store notes which requests a batch will hold; then the name of the
uploaded file, then the name of the batch. A kill leaves at most one step unknown, and the next
run finds out at the server, whose list of batches shows our store's and part's name as metadata.
Where the list does not show a batch that may still be on its way, its input file is deleted
first: a batch whose file is gone cannot start, so the requests can be sent again without risk.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dataprep.llm.batch_files import read_lines, write_part
from dataprep.llm.connection import OPENAI_URL, connect, why
from dataprep.llm.index import Part
from dataprep.llm.outcome import BackendStop, Outcome, error_of, judge, parse_json
from dataprep.llm.pace import backoff_s, retry_after_s
from dataprep.llm.request import ENDPOINT, Request

if TYPE_CHECKING:
    from openai.types import Batch

    from dataprep.llm.answering import Journal

T = TypeVar("T")
MAX_REQUESTS = 50_000
MAX_BYTES = 200_000_000
_ENDED = ("completed", "expired", "cancelled", "failed")
_STORED_AT_ONCE = 1000


class OpenAIBatch:
    """Sends files of requests, waits for them, collects them; see the module.

    Args:
        base_url: OpenAI's by default; the key in ``OPENAI_API_KEY`` is sent there.
        max_requests, max_bytes: of one file.
        attempts: rounds without any new answer after which open requests are given up.
        poll_s: longest time between two looks at the batches.
        patience_s: stop when the server has not answered for so long.
        settle_s: how long a batch may take to appear in the server's list.
        forget_lost: send the requests of batches again that the server does not know (any more).
        timeout_s: for one call; uploads of large files need minutes.
    """

    def __init__(
        self,
        base_url: str = OPENAI_URL,
        *,
        max_requests: int = MAX_REQUESTS,
        max_bytes: int = MAX_BYTES,
        attempts: int = 5,
        poll_s: float = 30.0,
        patience_s: float = 180.0,
        settle_s: float = 5.0,
        first_wait_s: float = 1.0,
        forget_lost: bool = False,
        timeout_s: float = 600.0,
    ) -> None:
        self._is_openai = base_url.rstrip("/") == OPENAI_URL
        self._client = connect(base_url, timeout_s=timeout_s, needs_key=self._is_openai)
        self.name, self.origin = "batch", base_url.rstrip("/")
        self._max_requests, self._max_bytes = max_requests, max_bytes
        self._attempts, self._poll_s, self._patience_s = attempts, poll_s, patience_s
        self._settle_s, self._first_wait_s = settle_s, first_wait_s
        self._forget_lost = forget_lost
        self._tokens_name = "max_completion_tokens" if self._is_openai else "max_tokens"
        self._rng = random.Random(0)
        self._fenced: set[str] = set()  # parts whose batch, if it comes yet, finds no input

    def run(self, requests: Iterable[Request], journal: Journal) -> None:
        """See ``answering.Backend``."""
        for part in journal.store.open_parts():
            if part.batch is None:
                self._find_out(part, journal)
        idle_rounds = 0
        while idle_rounds < self._attempts:
            before = journal.summary.answered
            self._submit(requests, journal)
            if not journal.store.open_parts():
                return
            self._collect_all(journal)
            idle_rounds = 0 if journal.summary.answered > before else idle_rounds + 1
            if journal.summary.failed:
                time.sleep(backoff_s(idle_rounds, self._first_wait_s, 60.0, self._rng))

    # ---- calls

    def _call(self, what: str, function: Callable[[], T]) -> T:
        """Call until it works; ``BackendStop`` on what cannot pass or takes too long."""
        from openai import APIConnectionError, APIStatusError

        started, attempt = time.monotonic(), 0
        while True:
            asked_s = None
            try:
                return function()
            except APIStatusError as error:
                outcome = judge(
                    "", self.origin, error.status_code, parse_json(error.response.text)
                )
                if outcome.failure not in ("transport", "rate"):
                    said = outcome.fatal or f"{self.origin}: {what}: {outcome.text}"
                    raise BackendStop(said) from error
                text, asked_s = outcome.text, retry_after_s(error.response.headers)
            except APIConnectionError as error:
                text = why(error)
            spent_s = time.monotonic() - started
            if spent_s > self._patience_s:
                raise BackendStop(
                    f"{self.origin}: {what}: no success for {spent_s:.0f} s ({text})"
                )
            wait_s = backoff_s(attempt, self._first_wait_s, 60.0, self._rng)
            time.sleep(max(wait_s, min(asked_s or 0.0, 300.0)))
            attempt += 1

    # ---- sending

    def _submit(self, requests: Iterable[Request], journal: Journal) -> None:
        """Send every free request; those that the server rejected in this run stay behind."""
        free = self._free(requests, journal)
        path = journal.store.path / "upload.jsonl"
        try:
            while True:
                journal.store.check_space()
                keys, free = write_part(
                    path, free, self._max_requests, self._max_bytes,
                    tokens_name=self._tokens_name,
                )  # fmt: skip
                if not keys:
                    return
                self._send(path, keys, journal)
        finally:
            path.unlink(missing_ok=True)

    def _free(self, requests: Iterable[Request], journal: Journal) -> Iterator[Request]:
        for request in requests:
            if journal.summary.failed.get(request.key, ("",))[0] != "schema":
                yield request

    def _send(self, path: Path, keys: list[str], journal: Journal) -> None:
        store = journal.store
        part = store.begin_part(keys)
        name = f"{store.id}-{part}.jsonl"

        def upload() -> str:
            with path.open("rb") as file:
                return self._client.files.create(file=(name, file), purpose="batch").id

        file_id = self._call("upload of a batch file", upload)
        store.part_uploaded(part, file_id)
        self._create(Part(part, file_id, None, len(keys)), journal)

    def _create(self, part: Part, journal: Journal) -> None:
        """Make the batch. When its answer is lost, find out before anything is sent again."""
        from openai import APIConnectionError, APIStatusError

        attempt = 0
        while True:
            try:
                batch = self._client.batches.create(
                    completion_window="24h",
                    endpoint=ENDPOINT,
                    input_file_id=part.file or "",
                    metadata={"store": journal.store.id, "part": part.name},
                )
            except APIConnectionError:
                self._find_out(part, journal)
                return
            except APIStatusError as error:
                outcome = judge(
                    "", self.origin, error.status_code, parse_json(error.response.text)
                )
                if outcome.failure == "transport":
                    self._find_out(part, journal)
                    return
                if outcome.failure != "rate" or attempt >= self._attempts:
                    journal.store.close_part(part.name, "refused")
                    said = outcome.fatal or f"{self.origin}: making a batch: {outcome.text}"
                    raise BackendStop(said) from error
                wait_s = backoff_s(attempt, self._first_wait_s, 60.0, self._rng)
                asked_s = retry_after_s(error.response.headers) or 0.0
                time.sleep(max(wait_s, min(asked_s, 300.0)))
                attempt += 1
            else:
                journal.store.part_batch(part.name, batch.id)
                return

    # ---- after a kill or a lost answer

    def _find_out(self, part: Part, journal: Journal) -> None:
        """Adopt the part's batch if the server has it; else make sure that it never will."""
        from openai import NotFoundError

        if part.file is None:  # the batch is asked for only after the file's name is noted
            journal.store.close_part(part.name, "not sent")
            return
        batch = self._find(part, journal)
        if batch is None:
            file = part.file

            def delete() -> None:
                try:
                    self._client.files.delete(file)
                except NotFoundError:
                    return

            self._call("deleting a batch file", delete)
            self._fenced.add(part.name)
            time.sleep(self._settle_s)
            batch = self._find(part, journal)
        if batch is None:
            journal.store.close_part(part.name, "not made")
        else:
            journal.say(f"batch {batch} of an earlier attempt was found; it is collected")
            journal.store.part_batch(part.name, batch)

    def _find(self, part: Part, journal: Journal) -> str | None:
        store = journal.store

        def look() -> str | None:
            for batch in self._client.batches.list(limit=100):
                if batch.created_at < store.created_s - 3600:
                    return None
                named = batch.metadata or {}
                if (named.get("store"), named.get("part")) == (store.id, part.name):
                    return batch.id
            return None

        return self._call("listing batches", look)

    # ---- collecting

    def _collect_all(self, journal: Journal) -> None:
        """Wait until no part is under way."""
        wait_s = min(1.0, self._poll_s)
        while parts := journal.store.open_parts():
            done = ended = 0
            for part in parts:
                batch = self._look(part, journal)
                if batch is None:
                    ended += 1
                elif batch.status in _ENDED:
                    self._collect(part, batch, journal)
                    ended += 1
                elif batch.request_counts is not None:
                    done += batch.request_counts.completed
            if ended:
                continue
            total = sum(part.requests for part in parts)
            journal.waiting(f"{len(parts)} batches, {done}/{total} done there")
            time.sleep(wait_s)
            wait_s = min(wait_s * 1.5, self._poll_s)

    def _look(self, part: Part, journal: Journal) -> Batch | None:
        from openai import NotFoundError

        assert part.batch is not None

        def retrieve() -> Batch | None:
            try:
                return self._client.batches.retrieve(part.batch or "")
            except NotFoundError:
                return None

        batch = self._call("looking at a batch", retrieve)
        if batch is None:
            self._lose(part, f"batch {part.batch}", part.requests, journal)
            journal.store.close_part(part.name, "lost")
        return batch

    def _lose(self, part: Part, what: str, requests: int, journal: Journal) -> None:
        """Give up what the server does not know, where that was asked for; else stop."""
        if not self._forget_lost:
            raise BackendStop(
                f"{self.origin}: {what} ({requests} requests, maybe paid) is not known to this "
                "server and key; use those it was sent with, or --forget-lost to send its "
                "requests again"
            )
        journal.say(f"{what} is given up: {requests} requests maybe paid")
        journal.summary.unsure += requests

    def _collect(self, part: Part, batch: Batch, journal: Journal) -> None:
        """Store what an ended batch brought, then close its part."""
        wanted = set(journal.store.part_keys(part.name))
        stop: str | None = None
        paid = batch.request_counts.completed if batch.request_counts else 0
        for file, at_least in ((batch.output_file_id, paid), (batch.error_file_id, 0)):
            if file is None:
                continue
            outcomes: list[Outcome] = []
            lines = self._download(file, at_least)
            if lines is None:
                self._lose(part, f"result file {file}", max(at_least, 1), journal)
            for line in lines or ():
                key = line.get("custom_id")
                if key not in wanted:
                    continue
                wanted.discard(key)
                if key in journal.store:  # stored before a kill
                    continue
                outcome = self._judge_line(str(key), line)
                stop = stop or outcome.fatal
                outcomes.append(outcome)
                if len(outcomes) >= _STORED_AT_ONCE:
                    journal.received(outcomes)
                    outcomes = []
            journal.received(outcomes)
        if batch.status == "failed":
            stop = stop or self._failed(part, batch, wanted, journal)
        elif wanted:
            text = f"the batch ended as {batch.status} without it"
            journal.received([Outcome(k, failure="transport", text=text) for k in sorted(wanted)])
        journal.store.close_part(part.name, batch.status)
        if stop:
            raise BackendStop(stop)

    def _failed(
        self, part: Part, batch: Batch, keys: set[str], journal: Journal
    ) -> str | None:
        """A batch that never ran: the reason to stop, or None when trying again may help."""
        errors = (batch.errors.data if batch.errors else None) or []
        code = (errors[0].code if errors else None) or "unknown reason"
        message = (errors[0].message if errors else None) or ""
        text = f"batch {batch.id} failed: {code} {message}".strip()
        fenced = part.name in self._fenced
        if fenced or code in ("token_limit_exceeded", "rate_limit_exceeded"):
            journal.received([Outcome(key, failure="rate", text=text) for key in sorted(keys)])
            return None
        line = f" (line {errors[0].line})" if errors and errors[0].line is not None else ""
        return f"{self.origin}: {text}{line}"

    def _download(self, file: str, at_least: int) -> list[dict] | None:
        """The lines of a result file (None: there is no such file); fetched again when cut."""
        from openai import NotFoundError

        def fetch() -> str | None:
            try:
                return self._client.files.content(file).text
            except NotFoundError:
                return None

        lines: list[dict] | None = None
        for attempt in range(self._attempts):
            text = self._call("fetching results", fetch)
            if text is None:
                return None
            lines = read_lines(text)
            if lines is not None and len(lines) >= at_least:
                return lines
            time.sleep(backoff_s(attempt, self._first_wait_s, 60.0, self._rng))
        wrong = "is not JSON lines" if lines is None else f"has {len(lines)} of {at_least} lines"
        raise BackendStop(f"{self.origin}: result file {file} {wrong}; nothing is lost, run again")

    def _judge_line(self, key: str, line: dict) -> Outcome:
        response = line.get("response")
        if isinstance(response, dict):
            body = response.get("body")
            if isinstance(body, str):
                body = parse_json(body)
            return judge(key, self.origin, int(response.get("status_code") or 0), body)
        code, message = error_of(line)
        said = f"{code} {message}".strip() or json.dumps(line)
        return Outcome(key, failure="transport", text=said)

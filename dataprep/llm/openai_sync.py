"""One request at a time over many connections: OpenAI, or any server that speaks its protocol."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from dataprep.llm.connection import OPENAI_URL, connect, feature_test, why
from dataprep.llm.outcome import BackendStop, Outcome, judge, parse_json
from dataprep.llm.pace import Pace, backoff_s, retry_after_s
from dataprep.llm.request import Request

if TYPE_CHECKING:
    from dataprep.llm.answering import Journal

_REJECTED_AT_FIRST = 20


class OpenAISync:
    """Asks one by one, ``concurrency`` at a time, no faster than the server's headers allow.

    Args:
        base_url: for example ``http://127.0.0.1:8000/v1`` (vLLM, llama.cpp, ...). The key in
            ``OPENAI_API_KEY`` is sent there; servers other than OpenAI's need none.
        concurrency: requests under way at a time; at most these are paid twice after a kill.
        attempts: of each request, when failures pass (429, 5xx, time-out, lost connection).
        timeout_s: for one attempt.
        patience_s: stop when no attempt of any request has succeeded for so long.
        first_patience_s: the same before the first success: a wrong address shows soon.
        first_wait_s, longest_wait_s: of the back-off; a longer ``Retry-After`` ends the attempts.
        enforced: have the server enforce the schema, and test at the start that it does.
        drain_s: how long to wait for what is under way when the work is stopped.
    """

    def __init__(
        self,
        base_url: str = OPENAI_URL,
        *,
        concurrency: int = 16,
        attempts: int = 8,
        timeout_s: float = 60.0,
        patience_s: float = 180.0,
        first_patience_s: float = 15.0,
        first_wait_s: float = 1.0,
        longest_wait_s: float = 60.0,
        enforced: bool = True,
        drain_s: float = 10.0,
    ) -> None:
        if concurrency < 1 or attempts < 1:
            raise ValueError(f"concurrency {concurrency}, attempts {attempts}: accepted: 1 or more")
        self._is_openai = base_url.rstrip("/") == OPENAI_URL
        self._client = connect(base_url, timeout_s=timeout_s, needs_key=self._is_openai)
        self.name = "openai" if self._is_openai else "compatible"
        self.origin = base_url.rstrip("/")
        self.concurrency, self._attempts = concurrency, attempts
        self._patience_s, self._first_patience_s = patience_s, first_patience_s
        self._first_wait_s, self._longest_wait_s = first_wait_s, longest_wait_s
        self._enforced, self._drain_s = enforced, drain_s
        self._tokens_name = "max_completion_tokens" if self._is_openai else "max_tokens"
        self._pace = Pace()
        self._stop = threading.Event()
        self._succeeded = False
        self._good_at = time.monotonic()

    # ---- one request, in a worker's thread

    def _attempt(self, request: Request) -> tuple[Outcome, float | None]:
        """One exchange; its outcome and what ``Retry-After`` asked for."""
        from openai import APIConnectionError, APIStatusError, APITimeoutError

        body = request.body(structured=self._enforced, tokens_name=self._tokens_name)
        key = request.key
        try:
            raw = self._client.chat.completions.with_raw_response.create(**body)
        except APIStatusError as error:
            self._pace.heard(error.response.headers)
            answer = judge(key, self.origin, error.status_code, parse_json(error.response.text))
            return answer, retry_after_s(error.response.headers)
        except APITimeoutError:
            return Outcome(key, failure="transport", text="no answer in time", unsure=1), None
        except APIConnectionError as error:
            # Refused before anything was sent: surely not charged. Lost later: who knows.
            refused = "refused" in why(error).lower()
            return Outcome(key, failure="transport", text=why(error), unsure=not refused), None
        self._pace.heard(raw.headers)
        return judge(key, self.origin, raw.status_code, parse_json(raw.text)), None

    def _ask(self, request: Request, rng: random.Random) -> Outcome:
        """Attempts until one counts, within what patience and the stop signal allow."""
        unsure = 0
        expected_tokens = sum(len(m["content"]) for m in request.messages) / 4 + request.max_tokens
        outcome = Outcome(request.key, failure="transport", text="stopped before it was sent")
        for attempt in range(self._attempts):
            while (wait := self._pace.reserve(expected_tokens)) > 0:
                if self._stop.wait(min(wait, 1.0)):
                    return outcome
            if self._stop.is_set():
                return outcome
            outcome, asked_s = self._attempt(request)
            unsure += outcome.unsure
            if outcome.answer is not None:
                self._succeeded, self._good_at = True, time.monotonic()
            if outcome.failure not in ("transport", "rate"):
                break
            silent_s = time.monotonic() - self._good_at
            patience_s = self._patience_s if self._succeeded else self._first_patience_s
            if outcome.failure == "transport" and silent_s > patience_s:
                outcome = Outcome(
                    request.key,
                    fatal=f"{self.origin}: no answer for {silent_s:.0f} s ({outcome.text})",
                )
                break
            wait = backoff_s(attempt, self._first_wait_s, self._longest_wait_s, rng)
            if asked_s is not None:
                if asked_s > 5 * self._longest_wait_s:
                    break
                wait = max(wait, asked_s)
            if outcome.failure == "rate":  # the others wait as long as the server asks
                self._pace.hold(wait if asked_s is None else asked_s)
            if attempt + 1 < self._attempts and self._stop.wait(wait):
                break
        return Outcome(
            outcome.key, outcome.answer, outcome.failure, outcome.fatal, outcome.text, unsure
        )

    def _work(
        self, seed: int, todo: queue.SimpleQueue[Request | None],
        done: queue.SimpleQueue[Outcome],
    ) -> None:  # fmt: skip
        rng = random.Random(seed)
        while (request := todo.get()) is not None:
            try:
                outcome = self._ask(request, rng)
            except Exception as error:  # a bug or a lack of memory: told, not lost in a thread
                outcome = Outcome(request.key, fatal=f"{self.origin}: {why(error)}", unsure=1)
            done.put(outcome)

    # ---- all requests, in the caller's thread

    def run(self, requests: Iterable[Request], journal: Journal) -> None:
        """See ``answering.Backend``."""
        pending = iter(requests)
        first = next(pending, None)
        if first is None:
            return
        test = self._enforced and first.schema is not None and not self._is_openai
        tested = not test or self._test_features(first.model)
        self._send_all(first, pending, journal)
        if not tested and not self._test_features(first.model):
            journal.say(f"{self.origin}: whether it enforces schemas could not be found out")

    def _send_all(self, first: Request, pending: Iterator[Request], journal: Journal) -> None:
        self._stop.clear()
        self._good_at, self._succeeded = time.monotonic(), False
        todo: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        workers = [
            threading.Thread(target=self._work, args=(n, todo, done), daemon=True)
            for n in range(self.concurrency)
        ]
        for worker in workers:
            worker.start()
        under_way = 0
        checked = rejected = 0
        waiting = [first]
        try:
            while True:
                waiting += islice(pending, self.concurrency - under_way - len(waiting))
                if waiting:
                    journal.store.check_space()
                    journal.store.sending([request.key for request in waiting])
                    for request in waiting:
                        todo.put(request)
                    under_way += len(waiting)
                    waiting = []
                if not under_way:
                    return
                outcomes = _drain(done)
                under_way -= len(outcomes)
                journal.received(outcomes)
                for outcome in outcomes:
                    if outcome.fatal:
                        raise BackendStop(outcome.fatal)
                    checked += 1
                    rejected += outcome.failure == "schema"
                    if rejected == checked >= _REJECTED_AT_FIRST:
                        raise BackendStop(f"{self.origin}: {outcome.text}")
        except (OSError, KeyboardInterrupt):
            self._stop.set()
            with suppress(OSError):  # a full disk: said once is enough
                self._finish(under_way, done, journal)
            raise
        finally:
            self._stop.set()
            for _ in workers:
                todo.put(None)

    def _finish(
        self, under_way: int, done: queue.SimpleQueue[Outcome], journal: Journal
    ) -> None:
        """Store what still comes in: it is paid for."""
        end = time.monotonic() + self._drain_s
        while under_way and (left_s := end - time.monotonic()) > 0:
            try:
                outcomes = [done.get(timeout=left_s)]
            except queue.Empty:
                return
            under_way -= 1
            journal.received(outcomes)

    def _test_features(self, model: str) -> bool:
        for attempt in range(3):
            if feature_test(self._client, model, self._tokens_name):
                return True
            time.sleep(min(self._first_wait_s * 2**attempt, 5.0))
        return False


def _drain(done: queue.SimpleQueue[Outcome]) -> list[Outcome]:
    """All outcomes there are; waits for the first. One flush to the device serves them all."""
    outcomes = [done.get()]
    while True:
        try:
            outcomes.append(done.get_nowait())
        except queue.Empty:
            return outcomes

"""One by one through the real client: every failure as stated, nothing paid twice."""

from __future__ import annotations

import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from dataprep.llm import FAILURES, RequestStore, answer, fill
from dataprep.llm.openai_sync import OpenAISync
from dataprep.llm.server import Faults, LocalServer


def quick(url: str, **options) -> OpenAISync:
    return OpenAISync(url, **{"first_wait_s": 0.02, "concurrency": 8} | options)


def test_all_are_answered_once_and_never_again(rules, ask, store) -> None:
    requests = ask(30)
    with LocalServer(rules) as server:
        replies = answer(requests + requests, store, quick(server.base_url), progress=False)
        assert {r.key: r.value for r in replies.values()} == {
            q.key: {"word": f"word {n}"} for n, q in enumerate(requests)}
        assert set(server.state.paid.values()) == {1}
        more = answer(ask(31), store, quick(server.base_url), progress=False)
        assert len(more) == len(server.state.paid) == sum(server.state.paid.values()) == 31
    # nobody is asked when all is known
    assert len(answer(requests, store, quick(server.base_url), progress=False)) == 30


@pytest.mark.parametrize(("fault", "pays_again"), [
    ("rate_429", False), ("error_500", False), ("bad_body", True), ("timeout", True)])
def test_what_passes_is_tried_again(fault, pays_again, rules, ask, store) -> None:
    with LocalServer(rules, Faults(**{fault: 0.4}, times=2, timeout_s=0.6)) as server:
        backend = quick(server.base_url, timeout_s=0.3)
        summary = fill(ask(20), store, backend, progress=False)
        paid = server.state.paid
    assert (summary.answered, summary.failed) == (20, {})
    extra = sum(paid.values()) - 20
    assert (extra > 0) == pays_again
    # each answer that was charged for and never came is counted
    assert summary.unsure == extra


@pytest.mark.parametrize(("fault", "failure"), [
    ("refusal", "refusal"), ("filter", "filter"), ("length", "length"), ("bad_content", "schema")])
def test_what_stays_is_classified_and_not_asked_again(fault, failure, rules, ask, store) -> None:
    with LocalServer(rules, Faults(**{fault: 0.3})) as server:
        for _ in range(2):
            replies = answer(ask(20), store, quick(server.base_url), progress=False)
            kinds = Counter(reply.failure for reply in replies.values())
            assert set(kinds) == {None, failure}
            assert failure in FAILURES
            assert all((r.value is None) == (r.failure is not None) for r in replies.values())
            assert (sum(server.state.paid.values()), len(store)) == (20, 20)


def test_after_all_attempts_the_next_run_asks_again(rules, ask, store) -> None:
    with LocalServer(rules, Faults(rate_429=0.3, times=2)) as server:
        replies = answer(ask(20), store, quick(server.base_url, attempts=2), progress=False)
        left = [reply for reply in replies.values() if reply.failure]
        assert {reply.failure for reply in left} == {"rate"}
        assert "429" in left[0].text
        assert len(store) == 20 - len(left) < 20
        again = answer(ask(20), store, quick(server.base_url, attempts=2), progress=False)
        assert not any(reply.failure for reply in again.values())
        assert set(server.state.paid.values()) == {1}


def test_the_servers_limit_is_followed(rules, ask, store) -> None:
    with LocalServer(rules, Faults(per_second=50)) as server:
        started = time.monotonic()
        fill(ask(120), store, quick(server.base_url), progress=False)
        took_s = time.monotonic() - started
        refused = server.state.calls["POST /chat"] - 121  # and the feature test
    assert took_s > 1.2  # 50 at once, then 50 a second
    assert refused < 12  # without the headers, most of the 70 above the burst would be


def test_a_wrong_key_is_one_line_without_the_key(rules, ask, store, monkeypatch, capfd) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-wrong-secret")
    with LocalServer(rules, key="sk-right") as server, pytest.raises(
            OSError, match="the key in OPENAI_API_KEY was refused") as caught:
        fill(ask(3), store, quick(server.base_url), progress=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    with LocalServer(rules, key="sk-right") as server:
        fill(ask(3), store, quick(server.base_url), progress=True)
    assert "\n" not in str(caught.value)
    texts = [str(caught.value), *capfd.readouterr()]
    texts += [p.read_bytes().decode("latin1") for p in store.path.rglob("*") if p.is_file()]
    for text in texts:
        assert "sk-wrong" not in text
        assert "sk-right" not in text


def test_openai_wants_a_key_before_anything_is_sent(monkeypatch) -> None:
    with pytest.raises(ValueError, match="OPENAI_API_KEY is not set"):
        OpenAISync()
    monkeypatch.setenv("OPENAI_API_KEY", "sk\nx")
    with pytest.raises(ValueError, match="holds characters that no key has"):
        OpenAISync()
    with pytest.raises(ValueError, match="concurrency 0"):
        OpenAISync("http://127.0.0.1:9/v1", concurrency=0)


def test_no_server_is_one_line_soon(ask, store) -> None:
    backend = quick("http://127.0.0.1:9/v1", first_patience_s=0.3)
    with pytest.raises(OSError, match=r"127.0.0.1:9/v1: no answer for \d s .*refused") as caught:
        fill(ask(3), store, backend, progress=False)
    assert "\n" not in str(caught.value)


def test_a_server_that_dies_loses_nothing_and_work_goes_on_after(rules, ask, store) -> None:
    with LocalServer(rules, Faults(latency_s=0.02)) as server:
        killer = threading.Timer(0.4, server.close)
        killer.start()
        backend = quick(server.base_url, patience_s=0.3, first_patience_s=0.3, drain_s=1.0)
        with pytest.raises(OSError, match="no answer for"):
            fill(ask(2000), store, backend, progress=False)
        killer.join()
        kept = len(store)
        assert 0 < kept < 2000
        assert sum(server.state.paid.values()) <= kept + 8
        server.close = lambda: None
    with LocalServer(rules, state=server.state) as revived:
        fill(ask(kept + 20), store, quick(revived.base_url), progress=False)
        assert sum(revived.state.paid.values()) <= kept + 20 + 8


def test_a_full_disk_stops_the_work_and_keeps_the_rest(rules, ask, store, monkeypatch) -> None:
    add, limit = RequestStore.add, 10

    def full(self, answers) -> None:
        if answers and len(self) >= limit:
            raise OSError(f"{self.path}: cannot be written (No space left on device)")
        add(self, answers)

    monkeypatch.setattr(RequestStore, "add", full)
    with LocalServer(rules) as server:
        with pytest.raises(OSError, match="No space left"):
            fill(ask(200), store, quick(server.base_url, drain_s=0.5), progress=False)
        kept = len(store)
        assert limit <= kept <= sum(server.state.paid.values()) <= kept + 8
        monkeypatch.setattr(RequestStore, "add", add)
        fill(ask(200), store, quick(server.base_url), progress=False)
        assert (len(store), len(server.state.paid)) == (200, 200)


def test_a_server_that_ignores_schemas_is_found_out(rules, ask, store) -> None:
    with LocalServer(rules, Faults(ignores_schema=True)) as server:
        with pytest.raises(OSError, match="ignores response_format json_schema.*unenforced"):
            fill(ask(3), store, quick(server.base_url), progress=False)
        assert not server.state.paid
        loose = quick(server.base_url, enforced=False)
        # without response_format this server has no rule for the request at all
        assert fill(ask(3), store, loose, progress=False).failed
    assert len(store) == 0


def test_requests_that_are_rejected_stop_the_work(rules, ask, store) -> None:
    from dataclasses import replace

    unknown = [replace(request, template="nobody") for request in ask(100)]
    with LocalServer(rules) as server:
        with pytest.raises(OSError, match="rejected the request: HTTP 400.*no rule"):
            fill(unknown, store, quick(server.base_url, concurrency=4), progress=False)
        assert server.state.calls["POST /chat"] < 40
        # a few among many do not
        replies = answer(ask(50) + unknown[:5], store, quick(server.base_url), progress=False)
    assert Counter(reply.failure for reply in replies.values()) == {None: 50, "schema": 5}
    assert len(store) == 50


def test_an_interrupted_run_is_told(rules, ask, tmp_path: Path) -> None:
    requests = ask(4)
    with RequestStore(tmp_path / "s") as store:
        store.sending([request.key for request in requests[:3]])
    lines: list[str] = []
    with LocalServer(rules) as server, RequestStore(tmp_path / "s") as store:
        summary = fill(requests, store, quick(server.base_url), progress=False, say=lines.append)
        assert summary.unsure == 3
    assert lines[0].startswith("3 requests were under way")
    with RequestStore(tmp_path / "s") as store:
        assert store.interrupted == []


def test_ctrl_c_stores_what_is_under_way(rules, ask, store, monkeypatch) -> None:
    from dataprep.llm.answering import Journal

    received = Journal.received

    def once(self, outcomes) -> None:
        received(self, outcomes)
        monkeypatch.setattr(Journal, "received", received)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "received", once)
    with LocalServer(rules, Faults(latency_s=0.05)) as server:
        with pytest.raises(KeyboardInterrupt):
            fill(ask(100), store, quick(server.base_url), progress=False)
        assert len(store) == sum(server.state.paid.values()) == 8


def test_without_enforcement_answers_are_checked_here(ask, store) -> None:
    prose = {"": lambda body: '{"word": "x"}' if "1" in body["messages"][-1]["content"] else "x"}
    with LocalServer(prose) as server:
        replies = answer(ask(3), store, quick(server.base_url, enforced=False), progress=False)
    assert [reply.failure for reply in replies.values()] == ["schema", None, "schema"]

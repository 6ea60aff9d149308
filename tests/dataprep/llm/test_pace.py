"""Token buckets, durations, back-off."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from dataprep.llm.pace import Pace, backoff_s, retry_after_s, seconds


@pytest.mark.parametrize(("text", "value"), [
    ("6m0s", 360.0), ("20ms", 0.02), ("1s", 1.0), ("1.5", 1.5), ("1h2m3.5s", 3723.5), ("", None),
    ("soon", None), ("5 s", None), ("1d", 86400.0)])
def test_durations(text: str, value: float | None) -> None:
    assert seconds(text) == value


def headers(left: int, reset: str, what: str = "requests", limit: int = 60) -> dict[str, str]:
    return {f"x-ratelimit-limit-{what}": str(limit), f"x-ratelimit-remaining-{what}": str(left),
            f"x-ratelimit-reset-{what}": reset}


def test_the_bucket_follows_the_headers() -> None:
    now = [100.0]
    pace = Pace(clock=lambda: now[0])
    assert pace.reserve(1e9) == 0  # nothing is known yet
    pace.heard({})
    assert pace.reserve(1) == 0
    pace.heard(headers(2, "58s"))  # one a second
    assert [pace.reserve(1) for _ in range(3)] == [0, 0, pytest.approx(1.0)]
    now[0] += 1.01
    assert pace.reserve(1) == 0
    assert pace.reserve(1) == pytest.approx(0.99)
    # an answer to an earlier request does not give back what was taken since
    pace.heard(headers(2, "58s"))
    assert pace.reserve(1) > 0
    now[0] += 1000
    assert sum(pace.reserve(1) == 0 for _ in range(100)) == 60  # no more than the limit


def test_tokens_are_limited_too() -> None:
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    pace.heard(headers(1000, "30s", "tokens", 4000))  # 100 a second
    assert pace.reserve(600) == 0
    assert pace.reserve(600) == pytest.approx(2.0)
    now[0] = 2.0
    assert pace.reserve(600) == 0
    now[0] = 1e6
    assert pace.reserve(9000) == 0  # more than ever fits: waits for a full bucket only
    assert pace.reserve(1) > 0


def test_a_hold_stops_everybody() -> None:
    now = [0.0]
    pace = Pace(clock=lambda: now[0])
    pace.hold(2.0)
    pace.hold(1.0)
    assert pace.reserve(1) == 2.0
    now[0] = 2.0
    assert pace.reserve(1) == 0


def test_back_off_doubles_within_bounds() -> None:
    rng = random.Random(0)
    for attempt in range(60):
        whole = min(60.0, 2.0**attempt)
        assert whole / 2 <= backoff_s(attempt, 1.0, 60.0, rng) <= whole
    assert len({backoff_s(3, 1.0, 60.0, rng) for _ in range(9)}) == 9


def test_retry_after() -> None:
    assert retry_after_s({}) is None
    assert retry_after_s({"retry-after": "7"}) == 7
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    assert retry_after_s({"retry-after": "whenever"}) is None
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 < (retry_after_s({"retry-after": date}) or 0) <= 30
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0

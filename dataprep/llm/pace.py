"""How fast to ask: token buckets that follow the server's rate-limit headers, and back-off."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float | None:
    """``"6m0s"``, ``"20ms"``, ``"1.5"`` in seconds; None when it is no duration."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


class Bucket:
    """What is left of one limit; refills at the rate that the server's headers imply."""

    def __init__(self) -> None:
        self.limit: float | None = None
        self.left = 0.0
        self.per_second = 0.0
        self._at = 0.0

    def heard(self, now: float, limit: float, left: float, reset_s: float) -> None:
        """Take over the server's view. Requests under way that it has not seen stay deducted."""
        mine = self.level(now)
        self.left = left if self.limit is None else min(left, max(mine, 0.0) if left else 0.0)
        if reset_s > 0 and limit > left:
            self.per_second = (limit - left) / reset_s
        elif not self.per_second:
            self.per_second = limit / 60
        self.limit, self._at = limit, now

    def level(self, now: float) -> float:
        """What is left at a time; infinite before the first header."""
        if self.limit is None:
            return float("inf")
        return min(self.limit, self.left + (now - self._at) * self.per_second)

    def wait(self, now: float, amount: float) -> float:
        """Seconds until ``amount`` is there (an amount above the limit waits for a full bucket)."""
        if self.limit is None:
            return 0.0
        short = min(amount, self.limit) - self.level(now)
        return 0.0 if short <= 0 else short / self.per_second

    def take(self, now: float, amount: float) -> None:
        """Deduct."""
        if self.limit is not None:
            self.left, self._at = self.level(now) - amount, now


class Pace:
    """Shared by all connections to one server. Times are seconds of ``clock``."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._held_until = 0.0
        self.requests, self.tokens = Bucket(), Bucket()

    def heard(self, headers: Mapping[str, str]) -> None:
        """Learn from ``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``."""
        with self._lock:
            for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
                try:
                    limit = float(headers[f"x-ratelimit-limit-{name}"])
                    left = float(headers[f"x-ratelimit-remaining-{name}"])
                except (KeyError, ValueError):
                    continue
                reset_s = seconds(headers.get(f"x-ratelimit-reset-{name}", "0s"))
                if limit > 0:
                    bucket.heard(self._clock(), limit, left, reset_s or 0.0)

    def hold(self, for_s: float) -> None:
        """Nobody sends for ``for_s`` seconds (after a 429)."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + for_s)

    def reserve(self, tokens: float) -> float:
        """Take a place for one request; returns 0, or how long to wait before asking again."""
        with self._lock:
            now = self._clock()
            wait = max(
                self._held_until - now, self.requests.wait(now, 1), self.tokens.wait(now, tokens)
            )
            if wait > 0:
                return wait
            self.requests.take(now, 1)
            self.tokens.take(now, tokens)
            return 0.0


def backoff_s(attempt: int, first_s: float, longest_s: float, rng: random.Random) -> float:
    """Exponential back-off with jitter: between half of and the whole ``first_s * 2**attempt``."""
    whole = min(longest_s, first_s * 2.0 ** min(attempt, 40))
    return whole * (0.5 + 0.5 * rng.random())


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """What ``retry-after-ms`` or ``retry-after`` (seconds or a date) ask for; None if nothing."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if name not in headers:
            continue
        try:
            wait = float(headers[name]) * scale
        except ValueError:
            try:
                wait = parsedate_to_datetime(headers[name]).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        if math.isfinite(wait):
            return max(0.0, wait)
    return None

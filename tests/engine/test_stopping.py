"""One wish to end, however often it arrives; a later second one ends at once."""

from __future__ import annotations

import os
import signal

import pytest

from engine import stopping
from engine.stopping import Stop, StopConfig


@pytest.fixture
def stop(tmp_path):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield Stop(StopConfig(), tmp_path)
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def exits(monkeypatch):
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_ctrl_c_and_the_launchers_copy_of_it_are_one_wish(stop, exits):
    assert not stop.wanted()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    assert stop.wanted() and stop.reason == "SIGINT" and exits == []


def test_a_signal_after_another_reason_is_not_yet_a_second_one(stop, exits):
    stop.request("the launcher died")
    signal.raise_signal(signal.SIGTERM)
    assert stop.reason == "the launcher died" and exits == []


def test_a_later_second_signal_ends_at_once(stop, exits, monkeypatch):
    signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(stopping, "AGAIN_S", -1.0)
    signal.raise_signal(signal.SIGUSR2)
    assert exits == []
    signal.raise_signal(signal.SIGTERM)
    assert exits == [128 + signal.SIGTERM]


def test_a_stop_file_and_a_time_budget(stop, tmp_path):
    (tmp_path / "STOP").touch()
    assert stop.wanted() and "STOP exists" in str(stop.reason)
    stop.forget_file()
    assert not (tmp_path / "STOP").exists()
    limited = Stop(StopConfig(max_time_s=1e-9), tmp_path)
    assert limited.wanted() and "time budget" in str(limited.reason)

"""Launchers that die while a rank starts, at moments that no kill of a real one can aim at."""

from __future__ import annotations

from typing import Any

import psutil
import pytest

from engine import launcher

INNER = ["python", "-u", "-m", "deepspeed.launcher.launch", "--world_info=x"]
OUTER = ["python", "/bin/deepspeed", "engine/train.py"]


class Process:
    """As much of psutil's as the watch asks."""

    def __init__(self, words: list[str], parent: int) -> None:
        self.words, self.parent, self.here = words, parent, True

    def cmdline(self) -> list[str]:
        if not self.here:
            raise psutil.NoSuchProcess(0)
        return self.words

    def ppid(self) -> int:
        return self.parent

    def is_running(self) -> bool:
        return self.here

    def status(self) -> str:
        return psutil.STATUS_SLEEPING


class Left(Exception):
    pass


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts the watch below these processes, nearest first."""
    def go(*above: Process) -> None:
        class Own:
            def parents(self) -> list[Process]:
                return list(above)

        real = psutil.Process
        monkeypatch.setattr(psutil, "Process", lambda *pid: real(*pid) if pid else Own())
        launcher.watch_start()

    def leave(why: str) -> None:
        raise Left(why)

    monkeypatch.setattr(launcher, "leave", leave)
    monkeypatch.setattr(launcher, "_chain", [])
    monkeypatch.setattr(launcher, "_above", None)
    monkeypatch.setattr(launcher.threading, "Thread", lambda **_: type("T", (), {
        "start": lambda self: None})())
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("CROSS_RANK", "0")
    return go


def test_either_launcher_that_dies_later_is_noticed(start: Any) -> None:
    for dying in (0, 1):
        chain = [Process(INNER, 50), Process(OUTER, 40)]
        start(*chain, Process(["bash"], 1))
        assert launcher.launched()
        chain[dying].here = False
        assert not launcher.launched()


def test_a_shell_above_may_end(start: Any) -> None:
    chain = [Process(INNER, 50), Process(OUTER, 40)]
    start(*chain, Process(["bash"], 1))
    chain[1].parent = 1  # the terminal was closed, nohup keeps the rest
    assert launcher.launched()


def test_an_outer_one_that_had_died_before(start: Any) -> None:
    with pytest.raises(Left):
        start(Process(INNER, 1))
    with pytest.raises(Left):
        start()


def test_an_outer_one_that_is_just_dying_has_no_command_line_any_more(start: Any) -> None:
    inner = Process(INNER, psutil.Process().ppid())
    start(inner, Process([], 40), Process(["bash"], 1))
    assert launcher.launched()
    inner.parent = 1  # handed to init a moment later
    assert not launcher.launched()


def test_a_process_without_launcher_watches_nothing(
        start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK")
    start()
    assert launcher.launched()

"""metrics.jsonl is cut back to the resumed step, whatever a killed launch left in it."""

from __future__ import annotations

import json
import logging
import sys

import pytest

from engine.metrics import LogConfig, Metrics, set_up_logging, window_line

PLAIN = LogConfig(tensorboard=False)


def lines(run_dir) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def write(run_dir, resumed_step: int, *steps: int) -> None:
    metrics = Metrics(run_dir, PLAIN, resumed_step)
    for step in steps:
        metrics.write(step, "joint", {"loss": step / 3})
    metrics.close()


def test_lines_after_the_resumed_step_are_removed_and_written_once(tmp_path):
    write(tmp_path, 0, 2, 4, 6)
    write(tmp_path, 4, 6, 8)
    assert lines(tmp_path) == [{"step": s, "phase": "joint", "loss": s / 3} for s in (2, 4, 6, 8)]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.mark.parametrize("torn", ['{"step": 3, "phase": "jo', '{"step": 3', "{", "\x00\x00", "{}"])
def test_a_torn_last_line_is_removed_and_nothing_is_glued_to_it(tmp_path, torn):
    write(tmp_path, 0, 1, 2)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    write(tmp_path, 3, 4)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 4]


def test_a_run_that_starts_anew_starts_with_an_empty_file(tmp_path):
    write(tmp_path, 0, 1, 2)
    write(tmp_path, 0)
    assert lines(tmp_path) == []


def test_every_line_is_on_disk_as_soon_as_it_is_written(tmp_path):
    metrics = Metrics(tmp_path, PLAIN, 0)
    metrics.write(1, "joint", {"loss": 0.5, "tokens": 7})
    assert lines(tmp_path) == [{"step": 1, "phase": "joint", "loss": 0.5, "tokens": 7}]
    metrics.close()


def test_tensorboard_gets_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    metrics = Metrics(tmp_path, LogConfig(), 0)
    metrics.write(5, "joint", {"loss": 0.5, "note": "text"})
    metrics.close()
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("joint/loss")] == [(5, 0.5)]
    assert board.Tags()["scalars"] == ["joint/loss"]


def test_the_window_line_shows_what_is_known():
    values = {"loss": 1.25, "lr": 3e-4, "grad_norm": 0.5, "data_wait": 0.02, "eta_s": 3725.0}
    line = window_line("joint", 20, 100, values)
    assert "loss 1.2500" in line and "20/100" in line and "eta 1:02:05" in line
    assert "mfu" not in line and "img/s" not in line and "tok/s" not in line
    line = window_line("joint", 20, 100,
                       values | {"mfu": 0.42, "images_per_s": 1234.0, "tokens_per_s": 9.0})
    assert "mfu 42.0%" in line and "1,234 img/s" in line and "9 tok/s" in line


class ClosedPipe:
    """What stdout is once ``| head`` has gone."""

    def write(self, _text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


def test_a_log_line_into_a_closed_pipe_does_not_end_the_run(monkeypatch):
    logger = logging.getLogger("babyvlm")
    before = (logger.handlers[:], logger.level, logger.propagate)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    try:
        set_up_logging(main=True)
        monkeypatch.setattr(sys, "stdout", ClosedPipe())
        logger.info("a line")
    finally:
        logger.handlers[:], logger.level, logger.propagate = before

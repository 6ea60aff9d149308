"""The dispatcher: order, forcing, strictness, one log line."""

from __future__ import annotations

import logging

import pytest
import torch

import kernels
from kernels import dispatch


@pytest.fixture
def op(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(dispatch, "_registry", {})
    monkeypatch.setattr(dispatch, "_logged", set())
    monkeypatch.setattr(dispatch, "_forced", {})
    dispatch.register("double", "plain", lambda x: 2 * x)
    dispatch.register(
        "double",
        "fast",
        lambda x: x + x,
        first=True,
        refuses=lambda x: None if x.dtype == torch.float32 else "float32 only",
    )
    return "double"


def test_chooses_by_dtype_and_says_so_once(op: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="babyvlm"):
        for _ in range(3):
            assert dispatch.choose(op, torch.ones(1))(1) == 2
            dispatch.choose(op, torch.ones(1, dtype=torch.float64))
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "double on cpu float32: fast",
        "double on cpu float64: plain (fast: float32 only)",
    ]


def test_strict_refuses(op: str) -> None:
    dispatch.set_strict(True)
    try:
        with pytest.raises(RuntimeError, match="float32 only"):
            dispatch.choose(op, torch.ones(1, dtype=torch.float64))
    finally:
        dispatch.set_strict(False)


def test_forced(op: str) -> None:
    dispatch.set_backend(op, "plain")
    assert dispatch.describe() == {"double": ["plain"]}
    dispatch.set_backend(op, None)
    assert dispatch.describe() == {"double": ["fast", "plain"]}
    with pytest.raises(ValueError, match="one of double"):
        dispatch.set_backend("triple", "plain")


def test_every_loss_has_a_reference_to_choose() -> None:
    x, targets = torch.randn(5, 4), torch.arange(5)
    calls = {
        "linear_cross_entropy": lambda: kernels.linear_cross_entropy(
            x, torch.ones(6, 4).cumsum(0), targets
        ),
        "contrastive_loss": lambda: kernels.contrastive_loss(x, x.flip(0), 2.0),
    }
    for op, call in calls.items():
        usual = call()
        dispatch.set_backend(op, "reference")
        try:
            torch.testing.assert_close(call(), usual)
        finally:
            dispatch.set_backend(op, None)

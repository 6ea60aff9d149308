"""The dispatcher: order, devices, opt-in, forcing, strictness, one log line."""

from __future__ import annotations

import logging
from collections.abc import Iterator

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
    dispatch.register("double", "slow", lambda x: 4 * x / 2, first=True, opt_in=True)
    return "double"


@pytest.fixture
def strict() -> Iterator[None]:
    dispatch.set_strict(True)
    yield
    dispatch.set_strict(False)


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


def test_strict_refuses(op: str, strict: None) -> None:
    dispatch.choose(op, torch.ones(1))
    with pytest.raises(RuntimeError, match="float32 only"):
        dispatch.choose(op, torch.ones(1, dtype=torch.float64))


def test_forced(op: str) -> None:
    dispatch.set_backend(op, "plain")
    assert dispatch.describe() == {"double": ["plain"]}
    dispatch.set_backend(op, None)
    assert dispatch.describe() == {"double": ["fast", "plain", "slow (on request)"]}
    with pytest.raises(ValueError, match="one of double"):
        dispatch.set_backend("triple", "plain")
    with pytest.raises(ValueError, match="one of slow, fast, plain, got 'none'"):
        dispatch.set_backend("double", "none")


def test_forced_one_that_refuses_is_an_error_and_not_another_one(op: str) -> None:
    dispatch.set_backend(op, "fast")
    with pytest.raises(RuntimeError, match="double on cpu float64: fast: float32 only$"):
        dispatch.choose(op, torch.ones(1, dtype=torch.float64))


def test_opt_in_runs_only_when_named(op: str) -> None:
    assert type(dispatch.choose(op, torch.ones(1))(1)) is int
    dispatch.set_backend(op, "slow")
    assert type(dispatch.choose(op, torch.ones(1))(1)) is float


def test_refuses_sees_the_whole_call(op: str) -> None:
    def refuses(x: torch.Tensor, y: int, *, z: int) -> str | None:
        return None if y == z else f"{y} is not {z}"

    dispatch.register("both", "first", lambda *_, **__: "first", refuses=refuses)
    dispatch.register("both", "second", lambda *_, **__: "second")
    assert dispatch.choose("both", torch.ones(1), 3, z=3)() == "first"
    assert dispatch.choose("both", torch.ones(1), 3, z=4)() == "second"


def test_device_decides_who_is_preferred(op: str, strict: None) -> None:
    # "meta" stands in for a GPU: strict passes over what is meant for other devices.
    dispatch.register(op, "there", lambda x: "there", first=True, devices=("meta",))
    assert dispatch.choose(op, torch.ones(1))(1) == 2
    assert dispatch.choose(op, torch.ones(1, device="meta"))(1) == "there"
    dispatch.set_backend(op, "there")
    assert dispatch.choose(op, torch.ones(1))(1) == "there"


def test_strict_refuses_the_preferred_one_of_that_device(op: str, strict: None) -> None:
    dispatch.register(
        op, "there", lambda x: x, first=True, devices=("meta",), refuses=lambda x: "not today"
    )
    with pytest.raises(RuntimeError, match="double on meta float32: there: not today$"):
        dispatch.choose(op, torch.ones(1, device="meta"))
    dispatch.choose(op, torch.ones(1))


def test_nobody_for_a_device(op: str) -> None:
    dispatch.register("single", "there", lambda x: x, devices=("meta",))
    with pytest.raises(RuntimeError, match="single on cpu float32: no implementation"):
        dispatch.choose("single", torch.ones(1))


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

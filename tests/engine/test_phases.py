"""Phases that make no sense are refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from engine.phases import PARTS, PhaseConfig


def phase(**values: Any) -> PhaseConfig:
    return PhaseConfig.model_validate({"name": "p", **values})


@pytest.mark.parametrize("objective", sorted(PARTS))
def test_every_part_of_an_objective_can_train(objective):
    parts = list(PARTS[objective])
    assert phase(objective=objective, train=parts).train == parts


@pytest.mark.parametrize(("objective", "train", "message"), [
    ("language", ["connector"], r"train: \['connector'\] in a language phase; accepted: decoder"),
    ("generative", ["words"], r"\['words'\] .*accepted: vision, connector, decoder"),
    ("contrastive", ["vision", "decoder"], r"\['decoder'\] .*accepted: vision, projection, words"),
    ("generative", [], "train: empty in a generative phase"),
    ("generative", ["decoder", "decoder"], "names a part twice"),
])
def test_a_bad_train_list_is_refused(objective, train, message):
    with pytest.raises(ValidationError, match=message):
        phase(objective=objective, train=train)


def test_a_rate_for_a_part_that_does_not_train_is_refused():
    phase(objective="generative", train=["decoder"], optim={"lr_scale": {"decoder": 0.1}})
    with pytest.raises(ValidationError, match=r"lr_scale: \['decodr'\] .*accepted: decoder"):
        phase(objective="generative", train=["decoder"], optim={"lr_scale": {"decodr": 0.1}})


def test_a_contrastive_step_is_not_accumulated():
    with pytest.raises(ValidationError, match="contrasts all its pairs at once; accepted: 1"):
        phase(objective="contrastive", train=["words"], accumulate=2)


@pytest.mark.parametrize("values", [
    {"name": "Joint"}, {"name": "a/b"}, {"name": ""}, {"epochs": 0}, {"tokens_per_step": 0},
    {"pairs_per_step": 1}, {"max_steps": 0}, {"objective": "other"}, {"keep": "first"},
])
def test_values_out_of_range_are_refused(values):
    with pytest.raises(ValidationError):
        phase(**{"objective": "language", "train": ["decoder"], **values})

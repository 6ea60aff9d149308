"""Whole runs through the command line: phases, exports, resumption, ranks, ZeRO stages."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.launch import error_line, launch, metrics, weights
from support.shapes import tiny_config, write_config, write_shapes

from engine.assemble import assemble
from engine.batches import Plan
from engine.config import load_config
from engine.feed import Micro, produce
from engine.optim import learning_rate, parameter_groups
from engine.weights import load_earlier

PHASES = ["vision", "language", "connector", "joint"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("corpus") / "shapes")


@pytest.fixture(scope="module")
def one_rank(corpus, tmp_path_factory):
    """A finished run of all phases without dropout, one rank, every step logged."""
    root = tmp_path_factory.mktemp("one")
    config = write_config(root / "run.yaml", without_dropout(root / "run", corpus))
    done = launch(config)
    return config, root / "run", done.stdout


def without_dropout(run_dir, corpus, **changes):
    tree = tiny_config(run_dir, corpus, **changes)
    tree["model"]["decoder"] |= {"dropout": 0.0, "embed_dropout": 0.0}
    # InfoNCE at temperature 0.07 on unit-variance words is steep: at the usual rate rounding
    # grows tenfold a step, whoever computes it.
    tree["phases"][0]["optim"]["lr"] = 1e-4
    tree["log"]["every"] = 1
    return tree


def test_all_phases_run_and_export_models_that_know_the_training_set(one_rank, corpus):
    _, run_dir, output = one_rank
    for phase in PHASES:
        assert (run_dir / "phases" / f"{phase}.json").exists(), output
    losses = [json.loads(x) for x in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for phase in PHASES:
        curve = [x["loss"] for x in losses if x["phase"] == phase and "loss" in x]
        if phase != "vision":  # Its rate is too low here to learn in six steps (see below).
            assert np.mean(curve[-3:]) < np.mean(curve[:3]), phase
        assert any("validation_loss" in x for x in losses if x["phase"] == phase), phase
    card = (run_dir / "generative" / "model" / "README.md").read_text()
    assert "shapes" in card and "joint" in card and "CC0-1.0" in card
    assert set(weights(run_dir)) == {"contrastive", "generative"}
    assert not list(run_dir.rglob(".tmp-*"))


def test_the_tower_is_the_same_in_both_models(one_rank):
    _, run_dir, _ = one_rank
    a, b = (load_file(run_dir / kind / "model" / "model.safetensors")
            for kind in ("contrastive", "generative"))
    shared = [k for k in a if k.startswith("vision.")]
    assert shared and all(torch.equal(a[k], b[k]) for k in shared)


def test_a_language_phase_takes_the_tower_along_and_does_without(one_rank, tmp_path):
    config, run_dir, _ = one_rank
    assembly = assemble(load_config(config))
    language = next(p for p in assembly.config.phases if p.name == "language")
    trained = load_file(run_dir / "contrastive" / "model" / "model.safetensors")
    for where, same in ((run_dir, True), (tmp_path, False)):
        parts = assembly.build("generative").parts()
        load_earlier(parts, assembly, language, where)
        for name, tensor in parts["vision"].state_dict().items():
            if name.endswith("weight") and tensor.ndim == 4:
                assert torch.equal(tensor, trained[f"vision.{name}"]) == same, name
    joint = assembly.config.phases[-1]
    with pytest.raises(ValueError, match="phase joint: its part '.*' comes from phase '.*'"):
        load_earlier(assembly.build("generative").parts(), assembly, joint, tmp_path)


def test_a_finished_run_is_left_as_it_is(one_rank):
    config, run_dir, _ = one_rank
    before = weights(run_dir)
    done = launch(config, "--resume", "auto")
    assert done.stdout.count(": done") == 4
    assert weights(run_dir) == before
    assert "holds a run already" in error_line(launch(config, ok=False))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "optimizer"), [(1, "torch"), (2, "torch"), (3, "torch"), (1, "kernels")]
)
def test_two_ranks_give_the_losses_of_one(stage, optimizer, corpus, one_rank, tmp_path):
    """Tolerance 5e-4 relative over all phases: sums are taken in another order."""
    tree = without_dropout(tmp_path / "run", corpus)
    tree["zero"]["stage"] = stage
    for phase in tree["phases"]:
        phase["optim"]["implementation"] = optimizer
    launch(write_config(tmp_path / "run.yaml", tree), ranks=2)
    expected, found = metrics(one_rank[1]), metrics(tmp_path / "run")
    assert expected.keys() == found.keys()
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=5e-4), (stage, step)


@pytest.mark.slow
def test_our_optimizer_goes_on_where_it_was(corpus, tmp_path):
    """ZeRO's flat partition, stage 2, stopped after each of two steps; and what it refuses."""

    def run(name, **changes):
        tree = without_dropout(tmp_path / name, corpus, **changes)
        tree["phases"] = tree["phases"][1:2]
        tree["phases"][0] |= {"max_steps": 4}
        tree["phases"][0]["optim"]["implementation"] = "kernels"
        tree["zero"]["stage"] = 2
        return write_config(tmp_path / f"{name}.yaml", tree)

    launch(run("whole"))
    for _ in range(2):
        launch(run("parts", stop={"max_time_s": 1e-3}), "--resume", "auto")
    assert 0 < len(metrics(tmp_path / "parts")) < 4
    launch(run("parts"), "--resume", "auto")
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole")
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")

    tree = tiny_config(tmp_path / "no", corpus)
    tree["zero"]["stage"] = 3
    tree["phases"][0]["optim"]["implementation"] = "kernels"
    done = launch(write_config(tmp_path / "no.yaml", tree), ok=False)
    assert done.returncode == 2
    assert "optim.implementation: kernels does not work with zero.stage 3" in done.stderr


def test_losses_equal_a_plain_fp32_adamw_loop(one_rank):
    """The language phase again, without DeepSpeed, loader thread or packing over ranks."""
    path, run_dir, _ = one_rank
    config = load_config(path)
    assembly = assemble(config)
    phase = config.phases[1]
    model = assembly.build("generative")
    plan: Plan = assembly.plan(phase, model.vision)
    maker = assembly.maker(phase, "train", plan, model.vision, None, rank=0, size=1)
    groups = parameter_groups(model.parts(), phase.train, phase.optim)
    optimizer = torch.optim.AdamW(groups, betas=phase.optim.betas, eps=phase.optim.eps)
    first = min(s for s, p in metrics(run_dir, "phase").items() if p == "language")
    logged = metrics(run_dir)
    model.train()
    for batch in produce(maker, None, 0, plan.num_steps):
        micro: Micro = batch.micros[0]
        loss = model(micro.row, scale=1 / batch.num_targets)
        assert logged[first + batch.step] == pytest.approx(loss.item(), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        trained = [p for g in groups for p in g["params"]]
        torch.nn.utils.clip_grad_norm_(trained, phase.optim.clip)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(phase.optim, batch.step, plan.num_steps)
        optimizer.step()
    assert plan.num_steps >= 5


@pytest.mark.slow
def test_accumulation_gives_the_losses_of_one_big_row(corpus, one_rank, tmp_path):
    tree = without_dropout(tmp_path / "run", corpus)
    for phase in tree["phases"][1:]:
        phase["accumulate"] = 4
    launch(write_config(tmp_path / "run.yaml", tree))
    expected, found = metrics(one_rank[1]), metrics(tmp_path / "run")
    assert expected.keys() == found.keys()
    for step, loss in expected.items():
        assert found[step] == pytest.approx(loss, rel=2e-4), step


@pytest.mark.slow
def test_bf16_hands_frozen_weights_on_unrounded(corpus, tmp_path):
    tree = tiny_config(tmp_path / "run", corpus, zero={"precision": "bf16", "stage": 1})
    done = launch(write_config(tmp_path / "run.yaml", tree))
    assert "vision: fp32, since BatchNorm" in done.stdout
    curve = list(metrics(tmp_path / "run").values())[:3]
    assert curve[2] < curve[0], "the vision phase learns at its usual rate"
    a, b = (load_file(tmp_path / "run" / kind / "model" / "model.safetensors")
            for kind in ("contrastive", "generative"))
    assert all(torch.equal(a[k], b[k]) for k in a if k.startswith("vision."))
    # Masters, not the bf16 weights that computed.
    trained = next(v for k, v in b.items() if k.startswith("decoder.") and v.ndim == 2)
    assert not torch.equal(trained, trained.bfloat16().float())

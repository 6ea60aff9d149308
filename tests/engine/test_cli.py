"""What a user can ask for without training: dry run, configuration, environment, benchmark."""

from __future__ import annotations

import json

import yaml
from support.launch import launch
from support.shapes import tiny_config, write_config, write_shapes

from engine import bench
from engine.config import parse_config
from engine.dry_run import dry_run
from engine.env import report


def test_dry_run_prints_shapes_counts_memory_and_steps(tmp_path):
    corpus = write_shapes(tmp_path / "shapes", train=2, val=1)
    tree = tiny_config(tmp_path / "run", corpus)
    text = dry_run(parse_config(tree, where="test"))
    for expected in ("vision: contrastive", "decoder 21,728", "pictures [3, 32, 32] -> [1, 16]",
                     "memory per rank", "feature store: ", "total: "):
        assert expected in text, text
    assert not (tmp_path / "run").exists()


def test_plain_python_prints_the_resolved_configuration(tmp_path):
    config = write_config(tmp_path / "run.yaml", tiny_config(tmp_path / "run", tmp_path / "none"))
    printed = launch(config, "--print-config", "--set", "phases.joint.optim.lr=1e-4").stdout
    tree = yaml.safe_load(printed)
    assert tree["phases"][3]["optim"]["lr"] == 1e-4
    assert tree["zero"]["reduce_bucket_size"] == 500_000_000
    assert parse_config(tree, where="printed").phases[3].name == "joint"


def test_env_names_versions_devices_and_ops():
    text = report()
    for expected in ("torch ", "deepspeed ", "attention", "loader", "gpu"):
        assert expected in text


def test_packed_rows_beat_padding_and_reach_99_percent():
    shares = bench.packing_shares(bench.caption_lengths(20_000))
    assert shares["packed row of 8,192"] >= 0.99
    assert shares["packed row of 8,192"] > shares["batches of 64 of like lengths"]
    assert 0.6 < shares["pad to the longest of a batch of 64"] < 0.8


def test_benchmark_of_the_store_runs_no_tower_with_it(tmp_path):
    out = tmp_path / "bench.json"
    assert bench.main(["--only", "store", "--tower", "resnet10t", "--size", "32",
                       "--store-pictures", "24", "--tokens", "256", "--out", str(out)]) == 0
    times = json.loads(out.read_text())["store"]
    for phase in ("connector", "joint"):
        assert times[phase]["feature store: tower forwards"] == 0
        assert times[phase]["tower in the loop: tower forwards"] > 0
        assert times[phase]["decoder alone"] > 0

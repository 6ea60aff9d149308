"""Bad input: one clear line, a non-zero exit code, nothing half-written."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess

import pytest
from support.launch import error_line, launch
from support.shapes import tiny_config, write_config, write_shapes

from engine.beton import BetonReader


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp("corpus") / "shapes")


def failing(tmp_path, corpus, *args, change=None):
    tree = tiny_config(tmp_path / "run", corpus)
    if change is not None:
        change(tree)
    line = error_line(launch(write_config(tmp_path / "run.yaml", tree), *args, ok=False))
    assert not list((tmp_path / "run").rglob("*.tmp*")) if (tmp_path / "run").exists() else True
    return line


def test_unknown_key_names_the_nearest_one(tmp_path, corpus):
    line = failing(tmp_path, corpus, "--set", "phases.joint.optim.learning_rate=1")
    assert "phases.joint.optim.learning_rate: unknown key" in line and "accepted: betas" in line
    line = failing(tmp_path, corpus, "--set", "modle.image_size=3")
    assert "did you mean 'model'?" in line


def test_wrong_value_names_key_and_value(tmp_path, corpus):
    line = failing(tmp_path, corpus, "--set", "zero.stage=7")
    assert "zero.stage" in line and "7" in line


def test_stage_zero_with_bf16_is_refused_with_the_reason(tmp_path, corpus):
    line = failing(tmp_path, corpus, "--set", "zero.stage=0", "--set", "zero.precision=bf16")
    assert "no fp32 master weights" in line


def test_missing_corpus_names_it(tmp_path):
    line = failing(tmp_path, tmp_path / "nowhere")
    assert "nowhere" in line and "dataprep" in line


def test_truncated_jpeg_names_the_sample(tmp_path, corpus):
    broken = tmp_path / "shapes"
    shutil.copytree(corpus, broken)
    reader = BetonReader(broken / "train.beton")
    jpeg = bytes(reader.stored(5))
    path = broken / "train.beton"
    data = path.read_bytes()
    at = data.index(jpeg)
    half = len(jpeg) // 2
    path.write_bytes(data[: at + half] + bytes(len(jpeg) - half) + data[at + len(jpeg) :])
    line = failing(tmp_path, broken)
    assert "train.beton" in line and "image 5" in line and "ball-red-train-5" in line


def test_beton_of_another_corpus_is_noticed(tmp_path, corpus):
    broken = tmp_path / "shapes"
    shutil.copytree(corpus, broken)
    shutil.copy(corpus / "val.beton", broken / "train.beton")
    line = failing(tmp_path, broken)
    assert "train.beton" in line and "images" in line


@pytest.mark.slow
def test_checkpoint_of_another_model_is_refused(tmp_path, corpus):
    tree = tiny_config(tmp_path / "run", corpus)
    config = write_config(tmp_path / "run.yaml", tree)
    launch(config, "--phase", "language")
    other = copy.deepcopy(tree)
    other["model"]["decoder"]["width"] = 64
    line = error_line(launch(write_config(config, other), "--resume", "auto", ok=False))
    assert "model.decoder.width" in line
    # Also when only the weights are asked for.
    other["run_dir"] = str(tmp_path / "other")
    start = str(tmp_path / "run" / "generative" / "model")
    line = error_line(launch(write_config(config, other), "--phase", "language", "--init-from",
                             start, ok=False))
    assert "shape" in line and start in line


@pytest.mark.slow
def test_no_space_left_names_size_and_place(tmp_path, corpus):
    """On a file system of 1 MB where one can be mounted; through the reserve elsewhere."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True
    ).returncode == 0
    try:
        reserve = 0 if mounted else 10**18
        saving = {"every": 3, "reserve_bytes": reserve}
        tree = tiny_config(small / "run", corpus, checkpoints=saving)
        line = error_line(launch(write_config(tmp_path / "run.yaml", tree), ok=False))
        assert "no space left" in line and "step-" in line and "free" in line
        assert not list((small / "run" / "checkpoints").iterdir())
    finally:
        if mounted:
            subprocess.run(["umount", str(small)], check=True)


@pytest.mark.slow
def test_a_feature_store_that_does_not_fit_says_its_size(tmp_path, corpus):
    tree = tiny_config(tmp_path / "run", corpus)
    tree["phases"] = tree["phases"][2:3]
    line = error_line(launch(
        write_config(tmp_path / "run.yaml", tree), "--set", f"features.reserve_bytes={10**18}",
        ok=False,
    ))
    assert "feature store (7.7 kB" in line and "features.store=off" in line


def test_two_runs_in_one_directory_are_refused(tmp_path):
    from engine.guard import RunLock

    lock = RunLock(tmp_path / "run")
    with pytest.raises(ValueError, match=f"process {os.getpid()}"):
        RunLock(tmp_path / "run", wait_s=0.1)
    lock.release()
    RunLock(tmp_path / "run", wait_s=0.1).release()

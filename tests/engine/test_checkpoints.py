"""Checkpoints without DeepSpeed: whole or absent, verified, rotated, found again."""

from __future__ import annotations

import errno
import logging

import pytest
import torch

from engine.checkpoints import (
    CheckpointConfig,
    Checkpoints,
    Progress,
    list_checkpoints,
    read_manifest,
    verify,
)
from engine.zero import World

WORLD = World(0, 1, torch.device("cpu"), None)


class Shards:
    """Stands in for a phase under DeepSpeed: writes a file, or fails half-way."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def save(self, directory):
        (directory / "shards").mkdir()
        (directory / "shards" / "a.pt").write_bytes(bytes(range(200)))
        if self.error is not None:
            raise self.error


def progress(step: int, **changes) -> Progress:
    return Progress("joint", step, step, 1, **changes)


def opened(run_dir, digest="d", **settings) -> Checkpoints:
    config = CheckpointConfig.model_validate({"reserve_bytes": 0, **settings})
    return Checkpoints(run_dir, config, WORLD, digest)


def save(checkpoints: Checkpoints, step: int, error: Exception | None = None, export=None,
         **changes):
    shards: object = Shards(error)
    return checkpoints.save(shards, progress(step, **changes),  # type: ignore[arg-type]
                            estimate=0, export=export)


def steps(checkpoints: Checkpoints) -> list[int]:
    return sorted(int(p.name[5:]) for p in checkpoints.root.iterdir())


def damage(path):
    file = path / "shards" / "a.pt"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)


def test_what_is_saved_is_found_with_its_progress(tmp_path):
    checkpoints = opened(tmp_path)
    assert checkpoints.newest() is None
    path = save(checkpoints, 3, best=0.1 + 0.2, window={"loss": 1 / 3})
    assert opened(tmp_path).newest() == (path, progress(3, best=0.1 + 0.2, window={"loss": 1 / 3}))
    assert verify(path)["files"]["shards/a.pt"]["size"] == 200


def test_verify_notices_a_changed_byte_a_short_and_a_missing_file(tmp_path):
    path = save(opened(tmp_path), 1)
    damage(path)
    with pytest.raises(ValueError, match=r"step-0000001: damaged: shards/a\.pt has another hash"):
        verify(path)
    (path / "shards" / "a.pt").write_bytes(b"short")
    with pytest.raises(ValueError, match="missing or has another size"):
        verify(path)
    (path / "shards" / "a.pt").unlink()
    with pytest.raises(ValueError, match="missing or has another size"):
        verify(path)
    (path / "manifest.json").write_text('{"format": 1, ')
    with pytest.raises(ValueError, match="not a checkpoint"):
        read_manifest(path)


def test_newest_passes_over_damaged_ones_and_says_so(tmp_path, caplog, monkeypatch):
    checkpoints = opened(tmp_path, keep_last=3)
    paths = [save(checkpoints, step) for step in (1, 2, 3)]
    damage(paths[2])
    (paths[1] / "manifest.json").unlink()
    monkeypatch.setattr(logging.getLogger("babyvlm"), "propagate", True)
    found = checkpoints.newest()
    assert found is not None and found[0] == paths[0]
    assert "step-0000003: damaged" in caplog.text and "going back" in caplog.text


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    save(opened(tmp_path, "a" * 20), 1)
    with pytest.raises(ValueError, match=r"another model \(digest aaaaaaaaaaaa, .*bbbbbbbbbbbb"):
        opened(tmp_path, "b" * 20).newest()


def test_rotation_keeps_the_newest_the_best_and_every_nth(tmp_path):
    checkpoints = opened(tmp_path, keep_last=2, keep_every=4)
    for step in range(1, 11):
        save(checkpoints, step, best_step=3 if step >= 3 else None)
    assert steps(checkpoints) == [3, 4, 8, 9, 10]
    save(checkpoints, 11, best_step=11)
    assert steps(checkpoints) == [4, 8, 10, 11]


def test_rotation_never_prefers_a_damaged_later_one(tmp_path):
    checkpoints = opened(tmp_path, keep_last=1)
    save(checkpoints, 2)
    config = CheckpointConfig(keep_last=2, reserve_bytes=0)
    checkpoints.config = config
    damage(save(checkpoints, 9))
    checkpoints.config = CheckpointConfig(keep_last=1, reserve_bytes=0)
    found = checkpoints.newest()
    assert found is not None and found[1].step == 2
    save(checkpoints, 4)  # Resumed from 2: what followed the damaged past is run again.
    assert steps(checkpoints) == [4]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints = opened(tmp_path)
    damage(save(checkpoints, 5))
    verify(save(checkpoints, 5))
    assert steps(checkpoints) == [5]


@pytest.mark.parametrize("error", [
    OSError(errno.ENOSPC, "No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
])
def test_a_save_that_fails_is_one_clear_line_and_leaves_nothing(tmp_path, error):
    checkpoints = opened(tmp_path)
    save(checkpoints, 1)
    with pytest.raises(ValueError, match="step-0000002: could not be saved: "):
        save(checkpoints, 2, error)
    assert steps(checkpoints) == [1]


def test_other_errors_pass_and_leave_nothing(tmp_path):
    checkpoints = opened(tmp_path)
    with pytest.raises(RuntimeError, match="^shapes"):
        save(checkpoints, 2, RuntimeError("shapes"))
    assert steps(checkpoints) == []


def test_a_full_disk_is_noticed_before_the_save(tmp_path):
    checkpoints = opened(tmp_path, reserve_bytes=10**18)
    with pytest.raises(ValueError, match="no space left for checkpoint step-0000001: .* needed"):
        save(checkpoints, 1)
    assert steps(checkpoints) == []


def test_leftovers_of_killed_saves_and_deletions_go_at_the_next_start(tmp_path):
    checkpoints = opened(tmp_path)
    save(checkpoints, 1)
    for name in (".tmp-step-0000002", ".old-step-0000000"):
        (checkpoints.root / name / "shards").mkdir(parents=True)
    assert [info.step for info in list_checkpoints(tmp_path)] == [1]
    assert steps(opened(tmp_path)) == [1]


def test_the_list_names_kept_models_in_order_of_steps(tmp_path):
    checkpoints = opened(tmp_path, keep_every=2, keep_last=1)
    save(checkpoints, 2, export=lambda directory: directory.mkdir(), words_seen=7)
    save(checkpoints, 10_000_003, pairs_seen=9)
    first, second = list_checkpoints(tmp_path)
    assert (first.step, first.phase, first.kind, first.words_seen) == (2, "joint", "generative", 7)
    assert first.model == first.path / "model"
    assert (second.step, second.model, second.pairs_seen) == (10_000_003, None, 9)
    with pytest.raises(ValueError, match="no run directory"):
        list_checkpoints(tmp_path / "checkpoints")

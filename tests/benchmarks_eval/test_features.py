"""The feature store: towers run once, whatever is killed, changed or damaged in between."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks_eval.features import FeatureStore, file_hashes

NAMES = ["images/red0.png", "images/blue1.png", "images/green0.png"]


def store(folder: Path | None, book: Path, tower: str = "t") -> FeatureStore:
    return FeatureStore(folder, tower, file_hashes(book, NAMES))


def test_a_second_checkpoint_runs_no_tower(book: Path, tmp_path: Path,
                                           fake: Callable[..., Any]) -> None:
    first, second, third = (fake("generative") for _ in range(3))
    made = store(tmp_path, book).get(first, book, NAMES)
    again = store(tmp_path, book).get(second, book, NAMES[::-1])
    assert (made == again[::-1]).all() and made.dtype == again.dtype
    assert len(first.seen) == 3 and second.seen == []
    changed = store(tmp_path, book, "another tower")
    changed.get(third, book, NAMES)
    assert len(third.seen) == 3 and changed.read_pictures == 0


def test_a_batch_is_read_whole_or_made_whole(book: Path, tmp_path: Path,
                                             fake: Callable[..., Any]) -> None:
    handle = fake("generative")
    store(tmp_path, book).get(handle, book, NAMES[:1])
    store(tmp_path, book).get(handle, book, NAMES)
    assert len(handle.seen) == 1 + 3  # the same pictures together, as in the run that was killed


def test_pictures_are_known_by_their_bytes(book: Path, tmp_path: Path,
                                           fake: Callable[..., Any]) -> None:
    handle = fake("generative")
    store(tmp_path, book).get(handle, book, NAMES)
    (book / NAMES[0]).write_bytes((book / NAMES[2]).read_bytes())
    features = store(tmp_path, book).get(handle, book, NAMES)
    assert len(handle.seen) == 3 and (features[0] == features[2]).all()
    (book / NAMES[0]).write_bytes((book / "images/pink0.png").read_bytes())
    store(tmp_path, book).get(handle, book, NAMES)
    assert len(handle.seen) == 6


@pytest.mark.parametrize("damage", ["cut", "empty", "header"])
def test_damage_is_seen_and_mended(book: Path, tmp_path: Path, fake: Callable[..., Any],
                                   damage: str, caplog: pytest.LogCaptureFixture) -> None:
    handle = fake("generative")
    whole = store(tmp_path, book).get(handle, book, NAMES)
    (shard,) = tmp_path.glob("*/*.shard")
    data = shard.read_bytes()
    shard.write_bytes({"cut": data[:-1], "empty": b"", "header": b"{" + data}[damage])
    again = store(tmp_path, book).get(handle, book, NAMES)
    assert (again == whole).all() and len(handle.seen) == 6
    assert "damaged" in caplog.text
    assert (store(tmp_path, book).get(handle, book, NAMES) == whole).all()
    assert len(handle.seen) == 6


def test_what_a_killed_process_leaves_is_ignored(book: Path, tmp_path: Path,
                                                 fake: Callable[..., Any]) -> None:
    handle = fake("generative")
    store(tmp_path, book).get(handle, book, NAMES)
    (shard,) = tmp_path.glob("*/*.shard")
    shard.rename(shard.with_name(f".{shard.stem}.part"))
    store(tmp_path, book).get(handle, book, NAMES)
    assert len(handle.seen) == 6


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
def test_tensors_come_back_as_they_were(book: Path, tmp_path: Path, kind: str) -> None:
    import torch

    class Handle:
        calls = 0

        def image_features(self, images: list[Path]) -> torch.Tensor:
            self.calls += 1
            return torch.randn(len(images), 2, 5).to(getattr(torch, kind))

    handle = Handle()
    made = store(tmp_path, book).get(handle, book, NAMES)
    again = store(tmp_path, book).get(handle, book, NAMES)
    assert handle.calls == 1 and again.dtype == made.dtype and torch.equal(made, again)


def test_models_that_take_the_pictures_themselves_keep_nothing(book: Path, tmp_path: Path) -> None:
    class Handle:
        def image_features(self, images: list[Path]) -> list[Path]:
            return images

    assert store(tmp_path, book).get(Handle(), book, NAMES) == [book / name for name in NAMES]
    assert not list(tmp_path.glob("*/*.shard"))


def test_a_full_disk_is_said_once_and_harms_nothing(book: Path, tmp_path: Path,
                                                    fake: Callable[..., Any],
                                                    caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    handle = fake("generative")
    kept = store(tmp_path / "file", book)
    for _ in range(2):
        assert np.isfinite(kept.get(handle, book, NAMES)).all()
    assert len(handle.seen) == 6 and caplog.text.count("features are not kept") == 1


def test_a_missing_picture_is_named(book: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.png: cannot be read"):
        file_hashes(book, ["nowhere.png"])

"""The feature store against the tower itself, its resumption, views and limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.shapes import SIDE, write_shapes

from engine.augment import AugmentConfig, augment, normalise
from engine.corpus_read import read_corpus
from engine.features import FeatureConfig, Views, open_stores, store_bytes
from engine.images import DataConfig, open_images
from engine.models.vision import VisionConfig, VisionTower
from engine.zero import World

DATA = DataConfig(loader="torch")


class Setting:
    """A corpus, a frozen tower and a way to open the stores of it."""

    def __init__(self, root):
        self.root = root
        self.corpus = read_corpus(write_shapes(root / "shapes", train=3, val=1))
        torch.manual_seed(0)
        args = {"layers": [1, 1, 1, 1], "channels": [8, 8, 16, 16]}
        config = VisionConfig.model_validate({"name": "resnet", "args": args})
        self.tower = VisionTower(config, SIDE)
        self.tower.freeze()
        self.calls = 0
        self.tower.register_forward_hook(self._count)

    def _count(self, *_):
        self.calls += 1

    def open(self, splits, **settings):
        return open_stores(
            self.corpus, splits, self.tower, config=FeatureConfig(batch=8, **settings), data=DATA,
            image_size=SIDE, directory=self.root / "features",
            world=World(0, 1, torch.device("cpu"), None),
        )

    def pictures(self, split):
        with open_images(self.corpus, split, size=SIDE, config=DATA) as images:
            num = len(self.corpus.images(split))
            return next(iter(images.stream(np.arange(num), [num])))


@pytest.fixture
def setting(tmp_path):
    return Setting(tmp_path)


@pytest.mark.parametrize("location", ["disk", "ram"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_stored_features_are_the_towers(setting, location, dtype, tolerance):
    store = setting.open({"train": Views()}, location=location, dtype=dtype)["train"]
    tower = setting.tower
    expected = tower(normalise(setting.pictures("train"), tower.mean, tower.std))
    rows = np.array([30, 2, 2, 17])
    torch.testing.assert_close(
        store.read(rows).float(), expected[rows], rtol=tolerance, atol=tolerance
    )


def test_the_second_opening_runs_no_tower(setting):
    setting.open({"train": Views(), "val": Views()})
    assert setting.calls > 0
    setting.calls = 0
    setting.open({"train": Views(), "val": Views()})
    assert setting.calls == 0


def test_another_tower_gets_another_store(setting):
    before = setting.open({"train": Views()})["train"].read(np.arange(3))
    with torch.no_grad():
        next(setting.tower.parameters()).add_(0.1)
    after = setting.open({"train": Views()})["train"].read(np.arange(3))
    assert not torch.equal(before, after)


def test_a_killed_computation_goes_on_where_it_was(setting, monkeypatch):
    whole = setting.open({"train": Views()})["train"].read(np.arange(36))
    batches = setting.calls
    other = Setting(setting.root / "other")
    handle = other.tower.register_forward_hook(lambda *_: stop() if other.calls == 3 else None)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.open({"train": Views()})
    handle.remove()
    other.calls = 0
    again = other.open({"train": Views()})["train"].read(np.arange(36))
    assert other.calls == batches - 2
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


def test_views_take_turns_and_are_the_augmented_pictures(setting):
    config = AugmentConfig(rotate=20, brightness=0.3)
    store = setting.open({"train": Views(3, config, seed=5)})["train"]
    rows = np.array([4, 9])
    reads = [store.read(rows, epoch) for epoch in range(6)]
    assert torch.equal(reads[0], reads[3]) and torch.equal(reads[2], reads[5])
    assert not torch.equal(reads[0], reads[1])
    pictures, tower = setting.pictures("train"), setting.tower
    view = (1 + 4) % 3
    expected = tower(augment(pictures[[4]], np.array([4]), config=config, seed=5, epoch=view,
                             mean=tower.mean, std=tower.std))
    torch.testing.assert_close(reads[1][:1], expected, rtol=1e-5, atol=1e-5)


def test_it_refuses_to_start_when_it_would_not_fit_and_says_how_large_it_would_be(setting):
    size = store_bytes(36, setting.tower.num_tokens, setting.tower.dim, "float32")
    assert size == 36 * 1 * 16 * 4
    with pytest.raises(ValueError, match=r"feature store \(2\.3 kB.*needed.*free"):
        setting.open({"train": Views()}, reserve_bytes=10**18)
    assert setting.calls == 0 and not (setting.root / "features").exists()


def test_memory_that_does_not_hold_the_store_is_refused(setting):
    setting.open({"train": Views()})
    with pytest.raises(ValueError, match=r"features\.location=ram.*2\.3 kB.*location=disk"):
        setting.open({"train": Views()}, location="ram", reserve_bytes=10**14)

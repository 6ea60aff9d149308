"""Towers: shapes, published weights, what frozen means, BatchNorm over two ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn

from engine.models.batchnorm import GlobalBatchNorm2d, share_batchnorm
from engine.models.vision import ResNetConfig, VisionConfig, VisionTower, tower_hash

SMALL = VisionConfig(
    name="resnet", args=ResNetConfig(channels=(8, 8, 16, 16), stem_type="deep", stem_width=4)
)


def _tower(**changes: object) -> VisionTower:
    torch.manual_seed(0)
    return VisionTower(VisionConfig.model_validate({**SMALL.model_dump(), **changes}), 64)


def test_resnext50_is_the_published_tower() -> None:
    tower = VisionTower(VisionConfig(), 224)
    assert (tower.num_tokens, tower.dim) == (49, 2048)
    assert sum(p.numel() for p in tower.parameters()) == 22_979_904


@pytest.mark.parametrize(("drop", "tokens"), [(False, 17), (True, 16)])
def test_vit_tokens(drop: bool, tokens: int) -> None:
    config = VisionConfig(name="vit_tiny_patch16_224", drop_prefix_tokens=drop)
    tower = VisionTower(config, 64)
    assert (tower.num_tokens, tower.dim) == (tokens, 192)
    assert tower(torch.randn(2, 3, 64, 64)).shape == (2, tokens, 192)


def test_features_are_the_map_row_by_row() -> None:
    tower = _tower().eval()
    images = torch.randn(2, 3, 64, 64)
    grid = tower.body.forward_features(images)
    features = tower(images)
    assert features.shape == (2, 4, 16)
    assert torch.equal(features[1, 2], grid[1, :, 1, 0])
    fine = VisionTower(
        SMALL.model_copy(update={"args": ResNetConfig(stem_pool=False, output_stride=16)}), 64
    )
    assert fine.num_tokens == 64


def _dino_file(path: Path, prefix: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    source = timm.create_model("resnet18", num_classes=0)
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    saved = {f"{prefix}{k}": v for k, v in state.items()}
    saved["module.head.mlp.0.weight"] = torch.zeros(3, 3)
    torch.save({"teacher": saved, "epoch": 100, "args": Namespace(arch="resnet18")}, path)
    return state


@pytest.mark.parametrize("prefix", ["module.backbone.", "module.encoder.", "backbone.", ""])
def test_published_weights_load(tmp_path: Path, prefix: str) -> None:
    file = tmp_path / "dino.pth"
    state = _dino_file(file, prefix)
    tower = VisionTower(VisionConfig(name="resnet18", weights=str(file)), 64)
    assert all(torch.equal(tower.body.state_dict()[k], v) for k, v in state.items())


def test_wrong_weights_are_named(tmp_path: Path) -> None:
    file = tmp_path / "dino.pth"
    _dino_file(file, "module.backbone.")
    with pytest.raises(ValueError, match=r"vision\.weights: .*dino\.pth.*missing \d+ .*unexpected"):
        VisionTower(VisionConfig(name="vit_tiny_patch16_224", weights=str(file)), 64)
    with pytest.raises(ValueError, match=r"weights_key: .* no key 'student' \(it has teacher"):
        VisionTower(VisionConfig(name="resnet18", weights=str(file), weights_key="student"), 64)
    with pytest.raises(ValueError, match=r"vision\.weights: no file"):
        VisionTower(VisionConfig(name="resnet18", weights=str(tmp_path / "no.pth")), 64)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"vision\.weights: .*cannot be read"):
        VisionTower(VisionConfig(name="resnet18", weights=str(file)), 64)


def test_unknown_tower_is_named() -> None:
    with pytest.raises(ValueError, match=r"vision\.name: 'resnext50_32x4e'.*resnext50_32x4d"):
        VisionTower(VisionConfig(name="resnext50_32x4e"), 64)
    with pytest.raises(ValueError, match="args: only for name=resnet"):
        VisionConfig(name="resnet18", args=ResNetConfig())


@pytest.mark.parametrize("batchnorm_eval", [True, False])
def test_frozen_tower(batchnorm_eval: bool) -> None:
    tower = _tower(batchnorm_eval=batchnorm_eval)
    tower.freeze()
    tower.train()
    before = tower.body.bn1.running_mean.clone()
    features = tower(torch.randn(4, 3, 64, 64) + 1)
    assert not features.requires_grad
    assert not any(p.requires_grad for p in tower.parameters())
    # Published behaviour: the statistics of a "frozen" tower drift. Ours: they do not.
    assert torch.equal(before, tower.body.bn1.running_mean) == batchnorm_eval
    tower.freeze(False)
    tower.train()
    assert tower(torch.randn(4, 3, 64, 64)).requires_grad
    assert not torch.equal(before, tower.body.bn1.running_mean)


def test_hash_follows_what_decides_the_features() -> None:
    one = tower_hash(_tower())
    assert one == tower_hash(_tower(batchnorm_eval=False))
    assert one != tower_hash(_tower(mean=(0.0, 0.0, 0.0)))
    changed = _tower()
    with torch.no_grad():
        changed.body.bn1.running_var[0] += 1e-3
    assert one != tower_hash(changed)


def _network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)
    )
    share_batchnorm(net)
    return net.double()


def _loss(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    out = net(images)
    return (out.square() * torch.linspace(0, 2, 5)[:, None, None]).flatten(1).prod(
        1
    ).tanh().sum() + (out.sin().sum())


def _images() -> torch.Tensor:
    return torch.randn(7, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def _rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    net = _network()
    images = _images()[:2] if rank == 0 else _images()[2:]
    loss = _loss(net, images)
    loss.backward()
    grads = [p.grad for p in net.parameters()]
    torch.save((loss.detach(), grads, net.state_dict()), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def test_batchnorm_over_two_ranks_is_that_of_the_whole_batch(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(tmp_path)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        )
        for rank in range(2)
    ]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    net = _network()
    assert isinstance(net[1], GlobalBatchNorm2d)
    loss = _loss(net, _images())
    loss.backward()
    (loss0, grads0, state0), (loss1, grads1, state1) = (
        torch.load(tmp_path / f"{rank}.pt") for rank in range(2)
    )
    torch.testing.assert_close(loss0 + loss1, loss.detach())
    for parameter, a, b in zip(net.parameters(), grads0, grads1, strict=True):
        torch.testing.assert_close(a + b, parameter.grad)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(state0[name], value)
        assert torch.equal(state0[name], state1[name])


if __name__ == "__main__":
    _rank(int(sys.argv[1]), sys.argv[2])

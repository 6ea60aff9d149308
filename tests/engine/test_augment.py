"""Augmentation: each draw keyed by (seed, epoch, id), geometry and colour against references."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as TV

from engine.augment import AugmentConfig, augment, normalise, random_crops, uniforms

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
EVERYTHING = AugmentConfig(
    crop_scale=(0.3, 1.0),
    flip=0.5,
    rotate=20,
    translate=0.1,
    zoom=(0.8, 1.25),
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    grey=0.2,
    blur=0.5,
)


def pictures(num=12, side=32, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num, 6, 6, 3), dtype=np.uint8)
    smooth = [Image.fromarray(c).resize((side, side), Image.Resampling.BICUBIC) for c in coarse]
    return torch.from_numpy(np.stack([np.asarray(s) for s in smooth]))


def run(images, ids, config, seed=0, epoch=0, **options):
    arguments = {**PLAIN, **options}
    return augment(images, np.asarray(ids), config=config, seed=seed, epoch=epoch, **arguments)


def test_draw_depends_on_seed_epoch_and_id_alone():
    images, ids = pictures(), np.arange(100, 112)
    whole = run(images, ids, EVERYTHING)
    order = np.random.default_rng(1).permutation(12)
    assert torch.equal(run(images[order], ids[order], EVERYTHING), whole[order])
    for part in (slice(0, 1), slice(3, 8)):  # other batches, same pictures, same bits
        assert torch.equal(run(images[part], ids[part], EVERYTHING), whole[part])
    same = run(images[:1].expand(3, -1, -1, -1), [7, 7, 8], EVERYTHING)
    assert torch.equal(same[0], same[1])
    assert not torch.equal(same[0], same[2])
    assert not torch.equal(run(images, ids, EVERYTHING, epoch=1), whole)
    assert not torch.equal(run(images, ids, EVERYTHING, seed=1), whole)


def test_uniforms_are_uniform_and_uncorrelated():
    draws = uniforms(np.arange(20000), 3, 5, 0, 6)
    assert draws.min() >= 0
    assert draws.max() < 1
    histogram = np.stack([np.histogram(column, 20, (0, 1))[0] for column in draws.T])
    chi2 = ((histogram - 1000) ** 2 / 1000).sum(1)  # 19 degrees of freedom
    assert (chi2 < 50).all()
    across = np.corrcoef(draws.T) - np.eye(6)
    assert abs(across).max() < 0.03
    assert abs(np.corrcoef(draws[:-1, 0], draws[1:, 0])[0, 1]) < 0.03  # neighbouring ids
    other = uniforms(np.arange(20000), 3, 6, 0, 6)
    assert abs(np.corrcoef(draws[:, 0], other[:, 0])[0, 1]) < 0.03  # neighbouring epochs
    np.testing.assert_array_equal(uniforms(np.arange(5), 3, 5, 4, 2), draws[:5, 4:6])


def test_switching_one_thing_on_leaves_other_draws():
    images, ids = pictures(), np.arange(12)
    flips = run(images, ids, AugmentConfig(flip=0.5))
    flipped = [not torch.equal(f, x) for f, x in zip(flips, run(images, ids, NONE), strict=True)]
    both = run(images, ids, AugmentConfig(flip=0.5, crop_scale=(1, 1), crop_ratio=(1, 1), grey=0))
    torch.testing.assert_close(both, flips)
    assert 0 < sum(flipped) < 12


NONE = AugmentConfig()


def test_off_is_normalise():
    images = pictures()
    assert not NONE.enabled
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (images.permute(0, 3, 1, 2).double() / 255).sub(
        torch.tensor(mean).double().view(1, 3, 1, 1)
    ) / torch.tensor(std).double().view(1, 3, 1, 1)
    for found in (normalise(images, mean, std), run(images, range(12), NONE, mean=mean, std=std)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), expected, atol=2e-6, rtol=0)
    assert normalise(images, mean, std).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("field", ["flip", "rotate", "translate", "zoom", "brightness", "contrast"])
def test_each_field_enables(field):
    config = AugmentConfig(**{field: (0.5, 0.6) if field == "zoom" else 0.9})
    assert config.enabled
    images = pictures()
    changed = run(images, range(12), config)
    assert not torch.allclose(changed, run(images, range(12), NONE), atol=0.01)


def test_flip():
    images = pictures()
    flipped = run(images, range(12), AugmentConfig(flip=1))
    expected = images.flip(2).permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(flipped, expected, atol=1e-5, rtol=0)


def test_crop_equals_the_window_resized():
    images, ids = pictures(side=48), np.arange(12)
    config = AugmentConfig(crop_scale=(0.3, 0.8))
    windows = random_crops(ids, seed=4, epoch=2, config=config, height=48, width=48)
    found = run(images, ids, config, seed=4, epoch=2)
    for image, (y, x, h, w), result in zip(images, windows.tolist(), found, strict=True):
        expected = TV.resized_crop(
            image.permute(2, 0, 1).float() / 255, y, x, h, w, [48, 48], antialias=False
        )
        # torchvision stops at the window's edge, grid_sample looks half a pixel beyond it
        inner = (slice(None), slice(3, -3), slice(3, -3))
        torch.testing.assert_close(result[inner], expected[inner], atol=1e-4, rtol=0)
    kept = run(images, ids, config, seed=4, epoch=2, crop=False)
    assert torch.equal(kept, run(images, ids, NONE))


def test_crop_windows_follow_torchvisions_law():
    config = AugmentConfig(crop_scale=(0.2, 1.0))
    windows = random_crops(
        np.arange(4000), seed=0, epoch=0, config=config, height=64, width=80
    ).astype(int)
    y, x, h, w = windows.T
    assert (y >= 0).all() and (x >= 0).all() and (y + h <= 64).all() and (x + w <= 80).all()
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    picture = torch.zeros(3, 64, 80)
    theirs = np.array(
        [RandomResizedCrop.get_params(picture, [0.2, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)]
    )
    for ours, reference in zip(windows.T, theirs.T, strict=True):
        spread = reference.std()
        assert abs(ours.mean() - reference.mean()) < 0.1 * spread
        assert abs(ours.std() - spread) < 0.1 * spread


def test_no_crop_and_no_fitting_crop():
    whole = random_crops(np.arange(3), seed=0, epoch=0, config=NONE, height=8, width=9)
    assert whole.tolist() == [[0, 0, 8, 9]] * 3
    flat = AugmentConfig(crop_scale=(1.0, 1.0), crop_ratio=(3.0, 4.0))
    fallback = random_crops(np.arange(3), seed=0, epoch=0, config=flat, height=12, width=12)
    assert fallback.tolist() == [[4, 0, 4, 12]] * 3


def test_geometry_against_torchvision():
    """A known turn, shift and zoom: marked by a bright square that must land where it should."""
    image = np.zeros((1, 65, 65, 3), np.uint8)
    image[0, 8:13, 30:35] = 255  # centred at (y 10, x 32): 22 pixels above the centre
    for seed in range(4):
        config = AugmentConfig(rotate=90, zoom=(0.6, 0.8))
        draws = uniforms(np.array([5]), seed, 0, 0, 5)[0]
        angle = np.deg2rad(-90 + 180 * draws[1])
        zoom = np.exp(np.log(0.6) + draws[4] * np.log(0.8 / 0.6))
        out = run(torch.from_numpy(image), [5], config, seed=seed)[0, 0].numpy()
        weight = out / out.sum()
        y, x = (weight.sum(1) * np.arange(65)).sum(), (weight.sum(0) * np.arange(65)).sum()
        assert abs(np.hypot(y - 32, x - 32) - 22 * zoom) < 0.3
        assert abs(x - 32 - (-22) * zoom * np.sin(angle)) < 0.3
        assert abs(y - 32 - (-22) * zoom * np.cos(angle)) < 0.3


def test_translation_bounds():
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, 30:34, 30:34] = 255
    moves = []
    for seed in range(40):
        out = run(torch.from_numpy(image), [1], AugmentConfig(translate=0.25), seed=seed)[0, 0]
        weight = (out / out.sum()).numpy()
        moves.append((weight.sum(1) * np.arange(64)).sum() - 31.5)
    assert -16.5 <= min(moves) < -8
    assert 8 < max(moves) <= 16.5


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_colour_against_torchvision(name):
    images = pictures(num=20, seed=3) // 2 + 60  # far enough from black and white not to clamp
    config = AugmentConfig(**{name: 0.3})
    found = run(images, range(20), config)
    place = {"brightness": 5, "contrast": 6, "saturation": 7}[name]
    factors = 1 + 0.3 * (2 * uniforms(np.arange(20), 0, 0, place, 1)[:, 0] - 1)
    adjust = getattr(TV, f"adjust_{name}")
    for image, factor, result in zip(images, factors, found, strict=True):
        expected = adjust(image.permute(2, 0, 1).float() / 255, float(factor))
        # torchvision rounds its grey weights to four digits
        torch.testing.assert_close(result, expected, atol=5e-4, rtol=0)


def test_grey():
    found = run(pictures(), range(12), AugmentConfig(grey=1))
    torch.testing.assert_close(found[:, 0], found[:, 1])
    torch.testing.assert_close(found[:, 0], found[:, 2])
    some = run(pictures(), range(12), AugmentConfig(grey=0.5))
    grey = [torch.allclose(picture[0], picture[1], atol=1e-5) for picture in some]
    assert 0 < sum(grey) < 12


def test_blur_against_torchvision():
    images, sigma = pictures(num=3), 1.3
    found = run(images, range(3), AugmentConfig(blur=1, blur_sigma=(sigma, sigma)))
    for image, result in zip(images, found, strict=True):
        expected = TV.gaussian_blur(image.permute(2, 0, 1).float() / 255, [9, 9], [sigma, sigma])
        inner = (slice(None), slice(4, -4), slice(4, -4))  # they reflect at the edge
        torch.testing.assert_close(result[inner], expected[inner], atol=1e-5, rtol=0)


def test_errors():
    with pytest.raises(ValueError, match="accepted: 0 < least <= most"):
        AugmentConfig(zoom=(1.2, 0.8))
    with pytest.raises(ValueError, match="at most all"):
        AugmentConfig(crop_scale=(0.2, 1.5))
    with pytest.raises(ValueError, match="with 2 ids"):
        run(pictures(num=3), range(2), NONE)

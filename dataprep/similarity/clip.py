"""An open_clip model with local weights as a scorer.

A weights file does not say everything that decides a vector. OpenAI's models, and some others,
were trained with QuickGELU (``x * sigmoid(1.702 x)``): open_clip has a second name for them,
``ViT-B-32-quickgelu``, and under the plain name the same file loads without a word and gives
other cosines, which a threshold of 0.2 does not survive. Normalisation has the same trap. Files
that open_clip publishes with their hash are recognised, and a name that does not fit them is
refused; a folder with ``open_clip_config.json`` says both itself; for any other file the name
decides, and what was used stands in the facts.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor, nn

from dataprep.files import sha256_file
from dataprep.similarity.scorers import Pixels, Vectors, hash_facts, pick_device

__all__ = ["ClipScorer"]

CONFIG = "open_clip_config.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
SHORT_HASH = re.compile(r"-([0-9a-f]{8})\.pth?$")
LONG_HASH = re.compile(r"/([0-9a-f]{64})/[^/]+\.pt$")
THREADS = min(8, os.cpu_count() or 1)
"""That prepare pictures: resizing costs more than a GPU takes for the model."""
PREPROCESS = ("mean", "std", "interpolation", "resize_mode")


class ClipScorer:
    """CLIP (Radford et al. 2021) as open_clip implements it, in float32.

    Args:
        model: open_clip's name of the architecture, or a folder with ``open_clip_config.json``.
        weights: file of the weights (``.pt``, ``.bin``, ``.safetensors``; OpenAI's own archives
            too); None for a folder, which holds them.
        device: ``auto``, ``cpu``, ``cuda``.

    Raises:
        ValueError: no such model or file, weights that do not fit, or the wrong activation.
    """

    def __init__(self, model: str, weights: Path | None, *, device: str = "auto") -> None:
        self.device = pick_device(device)
        if weights is None:
            net, label, file, source = _from_folder(Path(model))
        else:
            net, label, file, source = _from_file(model, weights)
        self.model = net.to(self.device).eval().requires_grad_(False)
        prepared: dict[str, Any] = dict(net.visual.preprocess_cfg)  # type: ignore[arg-type]
        self._prepare = image_transform_v2(PreprocessCfg(**prepared), is_train=False)
        self._tokens = open_clip.get_tokenizer(source)
        weights_hash = sha256_file(file)
        self.name = f"clip {label} ({weights_hash[:12]})"
        self.dim = _width(self.model, self._tokens, self.device)
        self.facts: dict[str, Any] = {
            "kind": "clip",
            "model": label,
            "weights_sha256": weights_hash,
            "activation": "quick_gelu" if _has_quick_gelu(net) else "gelu",
            "preprocess": {name: _plain(value) for name, value in prepared.items()},
            "open_clip": version("open_clip_torch"),
        }
        # The library's version stands in the facts; it is no part of what the vectors are.
        self.hash = hash_facts({k: v for k, v in self.facts.items() if k != "open_clip"})

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Pixels]) -> Vectors:
        """Uint8 ``[H, W, 3]`` each to unit rows ``[n, dim]``."""
        if not len(images):
            return np.empty((0, self.dim), np.float32)
        with ThreadPoolExecutor(THREADS) as pool:
            pixels = torch.stack(list(pool.map(self._prepared, images)))
        out = self.model.encode_image(pixels.to(self.device), normalize=True)  # type: ignore[operator]
        return out.float().cpu().numpy()

    def _prepared(self, image: Pixels) -> Tensor:
        return self._prepare(Image.fromarray(image))  # type: ignore[return-value]

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Vectors:
        """Texts, cut at the model's context, to unit rows ``[n, dim]``."""
        if not len(texts):
            return np.empty((0, self.dim), np.float32)
        tokens = self._tokens(list(texts)).to(self.device)
        out = self.model.encode_text(tokens, normalize=True)  # type: ignore[operator]
        return out.float().cpu().numpy()


def _from_folder(folder: Path) -> tuple[nn.Module, str, Path, str]:
    if not (folder / CONFIG).is_file():
        raise ValueError(
            f"{folder}: no {CONFIG} there; accepted: clip:NAME:WEIGHTS, or clip:FOLDER with a "
            "downloaded open_clip repository"
        )
    files = sorted(file for file in folder.iterdir() if file.suffix in WEIGHT_SUFFIXES)
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ValueError(f"{folder}: one file of weights expected beside {CONFIG}, found {found}")
    source = f"local-dir:{folder}"
    try:
        with _quiet():
            net = open_clip.create_model(source, load_weights=False)
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / CONFIG}: {_line(error)}") from None
    _fill(net, files[0])
    return net, folder.name, files[0], source


def _from_file(name: str, weights: Path) -> tuple[nn.Module, str, Path, str]:
    config = open_clip.get_model_config(name) if ":" not in name else None
    if config is None:
        near = [known for known in open_clip.list_models() if known.startswith(name[:5])]
        raise ValueError(
            f"clip:{name}: open_clip has no such model; it has "
            f"{', '.join(near[:8]) or 'ViT-B-32, ViT-L-14'}, ..."
        )
    if not weights.is_file():
        raise ValueError(f"{weights}: no such file of weights")
    published = _published().get(sha256_file(weights)) or _published().get(sha256_file(weights)[:8])
    archive = _is_torchscript(weights)
    quick = config.get("quick_gelu", False)
    known = "OpenAI's own archive" if archive else ""
    needs = True if archive else quick
    if published is not None:
        known, needs = published["label"], published.get("quick_gelu", False)
    if needs != quick:
        bare = name.removesuffix("-quickgelu")
        raise ValueError(
            f"{weights}: these weights ({known}) were trained with "
            f"{'QuickGELU' if needs else 'GELU'}; accepted: clip:{bare}"
            f"{'-quickgelu' if needs else ''}:{weights}"
        )
    prepare = {key: published[key] for key in PREPROCESS} if published is not None else None
    with _quiet():
        net = open_clip.create_model(name, force_preprocess_cfg=prepare, pretrained_text=False)
    _fill(net, weights, archive=archive)
    return net, name, weights, name


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's warning that no weights were loaded: they come next, and strictly."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _fill(net: nn.Module, weights: Path, *, archive: bool = False) -> None:
    """Load all weights, strictly.

    ``ValueError`` when the file cannot be read or has other tensors than the model.
    """
    try:
        if archive:
            state = torch.jit.load(str(weights), map_location="cpu").state_dict()
            for key in ("input_resolution", "context_length", "vocab_size"):
                state.pop(key, None)
            net.load_state_dict({key: value.float() for key, value in state.items()})
        else:
            open_clip.load_checkpoint(net, str(weights))  # type: ignore[arg-type]
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, TypeError, AttributeError,
            pickle.UnpicklingError) as error:  # fmt: skip
        raise ValueError(f"{weights}: not weights of this model ({_line(error)})") from None


@cache
def _published() -> dict[str, dict[str, Any]]:
    """Return what open_clip says of the files that it publishes, by SHA-256 or its first 8 digits.

    A file that stands under two names (plain and QuickGELU) says itself which is right.
    """
    found: dict[str, dict[str, Any]] = {}
    for model, tag in open_clip.list_pretrained():
        about = open_clip.get_pretrained_cfg(model, tag)
        url = about.get("url", "")
        hit = LONG_HASH.search(url) or SHORT_HASH.search(url)
        if hit:
            found.setdefault(hit.group(1), {**about, "label": f"{model}, {tag}"})
    return found


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _has_quick_gelu(net: nn.Module) -> bool:
    return any(type(module).__name__ == "QuickGELU" for module in net.modules())


def _width(net: nn.Module, tokens: Any, device: str) -> int:
    with torch.inference_mode():
        return net.encode_text(tokens(["a"]).to(device)).shape[-1]  # type: ignore[operator]


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, (tuple, list)) else value


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] if lines else type(error).__name__

"""CLIP (Radford et al. 2021) as open_clip implements it, from local weights, in float32.

A file of weights does not say everything that decides a vector. OpenAI's models, and some others,
were trained with QuickGELU: under open_clip's plain name the same file loads without a word and
gives other cosines. Preprocessing has the same trap. Files that open_clip publishes with their hash
are recognised, and a name that does not fit them is refused; a folder with its
``open_clip_config.json`` says both itself; for any other file the name decides.
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
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from torch import Tensor, nn

from benchmarks_eval.models.hashing import hash_facts, hash_file, hash_tensors
from benchmarks_eval.models.pictures import pick_device, rgb

CONFIG = "open_clip_config.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
IMAGE_BATCH = 64
THREADS = min(8, os.cpu_count() or 1)
"""That prepare pictures: resizing costs more than a GPU takes for the model."""
_HASHES = (re.compile(r"-([0-9a-f]{8})\.pth?$"), re.compile(r"/([0-9a-f]{64})/[^/]+\.pt$"))
_PREPROCESS = ("mean", "std", "interpolation", "resize_mode")


class OpenClipModel:
    """An open_clip model. Features are the picture embedding before normalisation, [N, 1, D].

    Args:
        net: with its weights.
        tokenizer: open_clip's for this model.
        facts: what else decides a score (configuration, hash of the weights' file).
        device: where it runs.
    """

    kind = "contrastive"

    def __init__(self, net: nn.Module, tokenizer: Any, facts: dict[str, Any],
                 device: str) -> None:
        self.device, self.facts = pick_device(device), facts
        self.model: Any = net.to(self.device).eval().requires_grad_(False)
        self.tokenizer = tokenizer
        config: dict[str, Any] = dict(self.model.visual.preprocess_cfg)
        self._prepare = image_transform_v2(PreprocessCfg(**config), is_train=False)
        self._preprocess = {name: _plain(value) for name, value in config.items()}

    @cached_property
    def tower_hash(self) -> str:
        """Of the visual tower's weights and activations and of the preprocessing."""
        visual = self.model.visual
        modules = sorted({f"{type(module).__name__}" for module in visual.modules()})
        return hash_facts("open_clip", self._preprocess, modules,
                          self.facts["model_cfg"].get("vision_cfg"),
                          hash_tensors(visual.state_dict()))

    @cached_property
    def weights_hash(self) -> str:
        """Of all weights, configuration, tokeniser and preprocessing."""
        return hash_facts(self.facts, self._preprocess, _tokenizer_facts(self.tokenizer),
                          self.tower_hash, hash_tensors(self.model.state_dict()))

    @torch.inference_mode()
    def image_features(self, images: Sequence[Any]) -> Tensor:
        """Paths or PIL images to float32 [N, 1, D].

        Raises:
            ValueError: naming the picture that cannot be read.
        """
        parts: list[Tensor] = []
        with ThreadPoolExecutor(THREADS) as pool:
            for first in range(0, len(images), IMAGE_BATCH):
                batch = images[first:first + IMAGE_BATCH]
                pixels = torch.stack(list(pool.map(self._pixels, batch)))
                parts.append(self.model.encode_image(pixels.to(self.device), normalize=False))
        found = torch.cat(parts) if parts else torch.empty(0, self.dim)
        return found.float()[:, None]

    def _pixels(self, image: Any) -> Tensor:
        return self._prepare(rgb(image))  # type: ignore[return-value]

    @cached_property
    def dim(self) -> int:
        """Width of the common space."""
        return int(self.embed_texts(["a"]).shape[1])

    @torch.inference_mode()
    def embed_images(self, images: Any) -> Tensor:
        """Unit rows [N, D] of features [N, 1, D], or of pictures."""
        if not hasattr(images, "shape"):
            images = self.image_features(images)
        features = torch.as_tensor(images).to(self.device, torch.float32)
        return nn.functional.normalize(features[:, 0], dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts, cut at the model's context, to unit rows [N, D].

        Texts that are the same tokens are embedded once: exactly equal.
        """
        tokens, rows = torch.unique(self.tokenizer(list(texts)), dim=0, return_inverse=True)
        vectors = self.model.encode_text(tokens.to(self.device), normalize=True).float()
        return vectors[rows.to(self.device)]

    def record_scores(self, scores: dict[str, Any]) -> None:
        """Nothing: there is no model card of ours."""


def load_open_clip(name: str, weights: Path | None, device: str) -> OpenClipModel:
    """Loads a model.

    Args:
        name: open_clip's name of the architecture, or a folder with ``open_clip_config.json``.
        weights: file of the weights (OpenAI's own archives too); None for a folder.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Raises:
        ValueError: no such model, weights that do not fit, or the wrong activation.
    """
    if weights is None:
        folder = Path(name)
        files = sorted(f for f in folder.iterdir() if f.suffix in WEIGHT_SUFFIXES)
        if not (folder / CONFIG).is_file() or len(files) != 1:
            found = ", ".join(f.name for f in files) or "none"
            raise ValueError(f"{folder}: {CONFIG} and one file of weights expected, found weights: "
                             f"{found}")
        source, prepare, archive, weights = f"local-dir:{folder}", None, False, files[0]
    else:
        archive = _is_torchscript(weights)
        source, prepare = name, _checked(name, weights, archive)
    try:
        config = open_clip.get_model_config(source)
        with _quiet():
            net = open_clip.create_model(source, load_weights=False, pretrained_text=False,
                                         force_preprocess_cfg=prepare)
        _fill(net, weights, archive)
        tokenizer = open_clip.get_tokenizer(source)
    except (RuntimeError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"{source}: {_line(error)}") from None
    return OpenClipModel(net, tokenizer, {"model_cfg": config}, device)


def _checked(name: str, weights: Path, archive: bool) -> dict[str, Any] | None:
    """What open_clip says of the preprocessing of a published file, None of others."""
    config = open_clip.get_model_config(name) if ":" not in name else None
    if config is None:
        near = [known for known in open_clip.list_models() if known.startswith(name[:5])]
        raise ValueError(f"open_clip:{name}: open_clip has no such model; it has "
                         f"{', '.join(near[:8]) or 'ViT-B-32, ViT-L-14'}, ...")
    digest = hash_file(weights)
    known = next((about for about in _published()
                  if about["hash"] in (digest, digest[:8])), None)
    quick = bool(config.get("quick_gelu", False))
    needs = bool(known.get("quick_gelu", False)) if known else archive or quick
    if needs != quick:
        label = known["label"] if known else "OpenAI's own archive"
        fit = name.removesuffix("-quickgelu") + ("-quickgelu" if needs else "")
        raise ValueError(f"{weights}: these weights ({label}) were trained with "
                         f"{'QuickGELU' if needs else 'GELU'}; accepted: open_clip:{fit}:{weights}")
    return {key: known[key] for key in _PREPROCESS} if known else None


def _published() -> Iterator[dict[str, Any]]:
    """What open_clip says of the files that it publishes with (the beginning of) their SHA-256."""
    for model, tag in open_clip.list_pretrained():
        about = open_clip.get_pretrained_cfg(model, tag)
        for pattern in _HASHES:
            if hit := pattern.search(about.get("url", "")):
                yield {**about, "hash": hit.group(1), "label": f"{model}, {tag}"}


def _is_torchscript(file: Path) -> bool:
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without open_clip's warning that no weights were loaded: they come next, and strictly."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _fill(net: nn.Module, weights: Path, archive: bool) -> None:
    try:
        if archive:
            state = torch.jit.load(str(weights), map_location="cpu").state_dict()
            for key in ("input_resolution", "context_length", "vocab_size"):
                state.pop(key, None)
            net.load_state_dict({key: value.float() for key, value in state.items()})
        else:
            open_clip.load_checkpoint(net, str(weights))  # type: ignore[arg-type]
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, TypeError, AttributeError,
            pickle.UnpicklingError) as error:
        raise ValueError(f"{weights}: not weights of this model ({_line(error)})") from None


def _tokenizer_facts(tokenizer: Any) -> list[Any]:
    """What a tokeniser makes of a text that touches case, digits, punctuation and word pieces."""
    probe = "A Dog's tiny bear, Kitty 42! where'd the unbelievably blue ball go?"
    return [type(tokenizer).__name__, np.asarray(tokenizer([probe])).tolist()]


def _plain(value: Any) -> Any:
    return [_plain(part) for part in value] if isinstance(value, tuple | list) else value


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:200] if lines else type(error).__name__

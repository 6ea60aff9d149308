"""Pretrained tower weights in the forms they are published in."""

from __future__ import annotations

import argparse
import logging
import pickle
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

log = logging.getLogger("babyvlm")

PREFIXES = ("module.", "backbone.", "encoder.")
"""What DINO and its training wrappers put before the names."""
HEADS = ("head.", "fc.")
"""Projection and classification heads, which a tower does without."""


def load_tower_weights(body: nn.Module, path: str, key: str | None) -> None:
    """Fill ``body`` from a file of weights.

    Accepted: a torch checkpoint holding a state dict under ``key`` (DINO: ``teacher``; torchvision
    and timm name a ResNet's weights alike), or a ``.safetensors`` file.

    Raises:
        ValueError: the file cannot be read or its weights are not this tower's.
    """
    state = {_strip(name): value for name, value in _read(Path(path), key).items()}
    state = {name: value for name, value in state.items() if not name.startswith(HEADS)}
    own = body.state_dict()
    # Old checkpoints lack the batch counters, which nothing reads.
    missing = [n for n in own if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    wrong = [n for n, v in state.items() if n in own and v.shape != own[n].shape]
    if missing or unexpected or wrong:
        parts = [
            f"{label} {len(names)} ({', '.join(names[:2])}{', ...' if len(names) > 2 else ''})"
            for label, names in (
                ("missing", missing),
                ("unexpected", unexpected),
                ("of another shape", wrong),
            )
            if names
        ]
        raise ValueError(f"vision.weights: {path} is not for this tower: {'; '.join(parts)}")
    body.load_state_dict(state, strict=False)
    log.info("vision: %d tensors from %s", len(state), path)


def _strip(name: str) -> str:
    stripped = name
    while True:
        for prefix in PREFIXES:
            stripped = stripped.removeprefix(prefix)
        if stripped == name:
            return name
        name = stripped


def _read(path: Path, key: str | None) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"vision.weights: no file {path}")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except SafetensorError as error:
            raise ValueError(f"vision.weights: {path} cannot be read: {error}") from None
    try:
        # DINO keeps its command line in the file; nothing else that could run code is accepted.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"vision.weights: {path} cannot be read: {reason}") from None
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            found = ", ".join(map(str, list(content)[:4])) if isinstance(content, dict) else "none"
            raise ValueError(
                f"vision.weights_key: {path} has no key {key!r} (it has {found}); "
                "null for a plain state dict"
            )
        content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ValueError(f"vision.weights: {path} holds no state dict of tensors")
    return content

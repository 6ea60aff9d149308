"""Models on disk: safetensors, configuration, tokeniser and card in one directory.

The directory appears whole or not at all: it is written under another name, flushed and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError
from safetensors.torch import save_file

from engine.card import write_card
from engine.files import fsync_tree, replace_directory
from engine.models.babyllava import BabyLLaVA
from engine.models.config import ModelConfig
from engine.models.contrastive import ContrastiveModel

if TYPE_CHECKING:
    from engine.tokens import Tokenizer

FORMAT = 1
"""Version of the directory's layout."""

WEIGHTS, CONFIG, CARD, SCORES = "model.safetensors", "config.json", "README.md", "scores.json"


def export_model(
    directory: str | os.PathLike[str],
    model: BabyLLaVA | ContrastiveModel,
    *,
    kind: Literal["generative", "contrastive"],
    config: ModelConfig,
    tokenizer: Tokenizer,
    card: Mapping[str, Any],
) -> Path:
    """Write a model that `engine.load` reads back equal; an older one there is replaced.

    Args:
        directory: where; its parents are made.
        model: weights of any dtype on any device, whole (not sharded).
        kind: what the model is.
        config: what it was built from.
        tokenizer: what its vocabulary is.
        card: facts for the model card (`engine.card.write_card`).

    Raises:
        OSError: no space, no permission; nothing is left behind then.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    work = directory.with_name(f".tmp-{directory.name}-{os.getpid()}")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        state = {
            name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
        }
        try:
            save_file(state, work / WEIGHTS, metadata={"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{directory}: could not be written: {error}") from None
        description = {
            "format": FORMAT,
            "kind": kind,
            "model": config.model_dump(mode="json"),
            "vocab_size": tokenizer.vocab_size,
        }
        (work / CONFIG).write_text(json.dumps(description, indent=2) + "\n", "utf-8")
        tokenizer.save(work)
        parameters = {
            name: sum(p.numel() for p in part.parameters()) for name, part in model.parts().items()
        }
        text = write_card(kind=kind, parameters=parameters, facts=card, scores={})
        (work / CARD).write_text(text, "utf-8")
        fsync_tree(work)
        replace_directory(work, directory)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return directory


def read_description(directory: Path) -> dict[str, Any]:
    """Return ``config.json`` of an exported model.

    Raises:
        ValueError: ``directory`` is no exported model, or of a later layout.
    """
    file = directory / CONFIG
    if not file.is_file() or not (directory / WEIGHTS).is_file():
        raise ValueError(
            f"{directory}: not a model directory ({CONFIG} and {WEIGHTS} expected; a run keeps its "
            "models under RUN/generative/model and RUN/contrastive/model)"
        )
    try:
        description = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{file}: not JSON ({error})") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise ValueError(f"{file}: layout {FORMAT} of this project's models expected")
    if description.get("kind") not in ("generative", "contrastive"):
        raise ValueError(
            f"{file}: kind must be generative or contrastive, got {description.get('kind')!r}"
        )
    return description

"""The models of a run: engine checkpoints, open_clip, LLaVA, servers, and those that cannot see.

Nothing heavy is imported before a model that needs it is loaded.
"""

from __future__ import annotations

from benchmarks_eval.models.loading import load_models, named_model
from benchmarks_eval.models.names import card_scores, display_names, output_folder
from benchmarks_eval.models.protocols import (
    KINDS,
    ContrastiveHandle,
    GenerativeHandle,
    Handle,
    Kind,
    LettersHandle,
    Likelihood,
    Material,
    Model,
    prepare,
)

__all__ = [
    "KINDS", "ContrastiveHandle", "GenerativeHandle", "Handle", "Kind", "LettersHandle",
    "Likelihood", "Material", "Model", "card_scores", "display_names", "load_models",
    "named_model", "output_folder", "prepare",
]

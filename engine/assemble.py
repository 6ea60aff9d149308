"""From the configuration to the objects of a run: corpus, tokeniser, plans, models, makers."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from engine.batches import Plan, stream_seed
from engine.config import RunConfig
from engine.corpus_read import Corpus, read_corpus
from engine.features import FeatureStore
from engine.feed import PairMaker, Pictures, RowMaker
from engine.models.babyllava import build_generative
from engine.models.contrastive import build_contrastive
from engine.models.vision import VisionTower
from engine.phases import PhaseConfig
from engine.rows import Documents, RaggedTexts, pair_documents, text_documents
from engine.tokens import Tokenizer, TokenStore, build_tokenizer, token_store

log = logging.getLogger("babyvlm")

TRAIN, VAL = "train", "val"

Kind = Literal["contrastive", "generative"]


@dataclass
class Assembly:
    """What all phases of a run share."""

    config: RunConfig
    corpus: Corpus
    tokenizer: Tokenizer

    @cached_property
    def stores(self) -> dict[str, TokenStore]:
        """Token stores of the training and, where there is one, the validation split."""
        return {s: token_store(self.corpus, s, self.tokenizer) for s in self.splits}

    @cached_property
    def splits(self) -> list[str]:
        """Splits a run reads."""
        return [s for s in (TRAIN, VAL) if s in self.corpus.splits]

    @cached_property
    def digest(self) -> str:
        """Identity of the model: its configuration and vocabulary, sha256."""
        text = json.dumps(self.config.model.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(f"{text}\n{self.tokenizer.digest}".encode()).hexdigest()

    def build(self, kind: Kind) -> nn.Module:
        """A freshly initialised model of ``kind``, the same for the same seed."""
        torch.manual_seed(stream_seed(self.config.seed, "init", kind))
        make = build_contrastive if kind == "contrastive" else build_generative
        return make(self.config.model, self.tokenizer.vocab_size)

    def documents(self, phase: PhaseConfig, split: str, num_image_tokens: int) -> Documents:
        """Documents of a generative or language phase."""
        store = self.stores[split]
        if phase.objective == "language":
            sos = self.tokenizer.sos_id if self.config.tokenizer.sos else None
            documents = text_documents(store, sos, phase.join_tokens)
        else:
            documents = pair_documents(store, self.corpus.pairs(split).row, num_image_tokens)
        longest = int(documents.lengths.max()) if len(documents.first) else 0
        positions = self.config.model.decoder.positions
        if longest > positions:
            raise ValueError(
                f"phases.{phase.name}: a document of {longest} tokens in split '{split}' exceeds "
                f"model.decoder.positions={positions}"
            )
        return documents

    def plan(self, phase: PhaseConfig, tower: VisionTower, split: str = TRAIN) -> Plan:
        """The steps of ``phase`` (or of one validation pass, for another split)."""
        training = split == TRAIN
        pairs = self.corpus.pairs(split)
        if len(pairs.id) == 0:
            raise ValueError(f"{self.corpus.path}: split '{split}' holds no pairs")
        epochs = phase.epochs if training else 1
        cap = phase.max_steps if training else None
        labels = {"seed": self.config.seed, "phase": phase.name + ("" if training else "/val")}
        if phase.objective == "contrastive":
            budget = phase.pairs_per_step
            subsets = pairs.image if phase.one_pair_per_picture or not training else None
            available = len(np.unique(subsets)) if subsets is not None else len(pairs.id)
            if available < budget:
                budget = available - available % 8 if available >= 8 else available
            return Plan(np.ones(len(pairs.id), dtype=np.int64), budget, epochs,
                        max_steps=cap, drop_last=True, subsets=subsets, **labels)
        documents = self.documents(phase, split, tower.num_tokens)
        return Plan(documents.lengths, phase.tokens_per_step, epochs, max_steps=cap, **labels)

    def maker(
        self, phase: PhaseConfig, split: str, plan: Plan, tower: VisionTower,
        store: FeatureStore | None, *, rank: int, size: int, pending: bool = False,
    ) -> RowMaker | PairMaker:
        """What turns the plan's samples into this rank's batches (``pending``: see `Pictures`)."""
        pairs = self.corpus.pairs(split)
        training = split == TRAIN
        pictures = Pictures(
            rows=np.asarray(pairs.row), store=store, mean=tower.mean, std=tower.std,
            augment=phase.augment if training else None,
            seed=stream_seed(self.config.seed, phase.name, "augment"), pending=pending,
        )
        if phase.objective == "contrastive":
            if training and plan.budget % size:
                raise ValueError(
                    f"phases.{phase.name}.pairs_per_step: {plan.budget} pairs cannot be shared "
                    f"evenly by {size} ranks; accepted: a multiple of {size}"
                )
            labels = None
            if phase.positives == "group":
                _, labels = np.unique(np.asarray(pairs.group, dtype=str), return_inverse=True)
            framed = self.config.model.contrastive.include_sos_eos
            texts = RaggedTexts(
                self.stores[split], self.tokenizer.config.eos,
                self.tokenizer.sos_id if framed else None,
                self.tokenizer.eos_id if framed else None,
            )
            return PairMaker(plan, texts, pictures, labels, rank=rank, size=size)
        documents = self.documents(phase, split, tower.num_tokens)
        return RowMaker(
            plan, documents, pictures if phase.objective == "generative" else None,
            pad_id=self.tokenizer.pad_id, rank=rank, size=size,
            accumulate=phase.accumulate if training else 1,
        )


def assemble(config: RunConfig) -> Assembly:
    """Read the corpus and make (or re-read) the run's tokeniser.

    The tokeniser is a function of the configuration and the corpus' training utterances.
    """
    corpus = read_corpus(config.corpus)
    if TRAIN not in corpus.splits:
        raise ValueError(f"{corpus.path}: no split '{TRAIN}'; it has {', '.join(corpus.splits)}")
    tokenizer = build_tokenizer(config.tokenizer, corpus.pairs(TRAIN).utterance)
    return Assembly(config, corpus, tokenizer)


def kind_of(phase: PhaseConfig) -> Kind:
    """Kind of model a phase trains: contrastive or generative."""
    return "contrastive" if phase.objective == "contrastive" else "generative"


def model_dir(run_dir: Path, kind: str) -> Path:
    """Where a run exports its model of ``kind``."""
    return run_dir / kind / "model"

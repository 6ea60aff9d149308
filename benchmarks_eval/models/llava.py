"""LLaVA (Liu et al. 2023) as transformers implements it, from a local folder.

The vision tower runs once a picture, the prompt once a picture; the candidates of a picture go on
from the kept keys and values of that pass. Logits are made at the scored positions only.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, GenerationConfig, LlavaForConditionalGeneration

from benchmarks_eval.models.hashing import hash_facts, hash_tensors
from benchmarks_eval.models.pictures import pick_device, rgb
from benchmarks_eval.models.prompts import Template
from benchmarks_eval.models.protocols import Scored
from benchmarks_eval.models.spec import FORMS

log = logging.getLogger("babyvlm")

TOKEN_BUDGET = 16_384
"""Positions of a pass, kept ones included."""
IMAGE_BATCH = 32
LOGIT_ROWS = 256
"""Positions whose logits are held at once."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class _Candidate:
    """The tokens of a text and the picture they follow."""

    picture: int
    tokens: tuple[int, ...]


class LlavaModel:
    """A LLaVA. Features are the tower's, before the projector: [N, P, C].

    Args:
        model: with its weights, in the precision to use.
        processor: its own.
        template: how prompts are put.
        prompt: what is asked when a task has no prompt of its own.
        device: where it runs.
        token_budget: positions of a pass; one candidate always fits.
    """

    kind = "generative"

    def __init__(self, model: LlavaForConditionalGeneration, processor: Any, template: Template,
                 prompt: str, device: str, token_budget: int = TOKEN_BUDGET) -> None:
        self.device = pick_device(device)
        self.model: Any = model.to(self.device).eval().requires_grad_(False)  # type: ignore[arg-type]
        self.processor, self.template, self.prompt = processor, template, prompt
        self.token_budget = token_budget
        config = self.model.config
        self._layers: list[int] = ([config.vision_feature_layer]
                                   if isinstance(config.vision_feature_layer, int)
                                   else list(config.vision_feature_layer))
        self._drop = int(config.vision_feature_select_strategy == "default")
        if config.image_token_id != template.image_id:
            raise ValueError(f"config.json names {config.image_token_id} as the picture's token, "
                             f"the tokeniser {template.image_id}")

    @cached_property
    def tower_hash(self) -> str:
        """Of the tower's weights, which of its layers are taken, and the preprocessing."""
        return hash_facts("llava", str(self.model.dtype), self._layers, self._drop,
                          self.model.config.vision_config.to_dict(), self._preprocess(),
                          hash_tensors(self.model.model.vision_tower.state_dict()))

    @cached_property
    def weights_hash(self) -> str:
        """Of every weight, tokeniser, template, prompt and preprocessing."""
        tokenizer = self.processor.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        words = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
        return hash_facts(words, self.template.render("{prompt}", True), self.prompt,
                          self.model.config.to_dict(), self._preprocess(), self.tower_hash,
                          hash_tensors(self.model.state_dict()))

    def _preprocess(self) -> dict[str, Any]:
        facts = self.processor.image_processor.to_dict()
        return {name: str(value) for name, value in sorted(facts.items())}

    @property
    def prefix_tokens(self) -> int:
        """Positions that a picture takes."""
        vision = self.model.config.vision_config
        return (vision.image_size // vision.patch_size) ** 2 + 1 - self._drop

    @torch.inference_mode()
    def image_features(self, images: Sequence[Any]) -> Tensor:
        """Paths or PIL images to [N, P, C], in the model's precision.

        Raises:
            ValueError: naming the picture that cannot be read.
        """
        parts: list[Tensor] = []
        for first in range(0, len(images), IMAGE_BATCH):
            batch = [rgb(image) for image in images[first:first + IMAGE_BATCH]]
            pixels = self.processor.image_processor(batch, return_tensors="pt")["pixel_values"]
            states = self.model.model.vision_tower(
                pixels.to(self.device, self.model.dtype), output_hidden_states=True).hidden_states
            parts.append(torch.cat([states[k][:, self._drop:] for k in self._layers], dim=-1))
        return torch.cat(parts) if parts else torch.empty(0, 0, 0)

    @torch.inference_mode()
    def score_candidates(self, features: Any, candidates: Sequence[Sequence[str]], *,
                         prompt: str = "", score_eos: bool = False) -> list[list[Scored]]:
        """Log-likelihood of each picture's candidates.

        Args:
            features: [N, P, C] of `image_features`; None: no picture, the prompt alone.
            candidates: N lists of texts.
            prompt: of the task; empty: the model's own.
            score_eos: score the end-of-sequence token after each candidate too.

        Raises:
            ValueError: the numbers of pictures and lists differ, or the prompt does not fit.
        """
        if features is not None:
            features = torch.as_tensor(features)
            if len(features) != len(candidates):
                raise ValueError(f"candidates: one list a picture expected ({len(features)}), got "
                                 f"{len(candidates)}")
        texts = sorted({text for own in candidates for text in own})
        tokens = self.template.encode(prompt or self.prompt, texts, features is not None)
        end = [self._eos()] if score_eos else []
        ids = {text: (*own, *end) for text, own in zip(texts, tokens.texts, strict=True)}
        # Candidates of one picture that are the same tokens are scored once: exactly equal.
        asked = [_Candidate(0 if features is None else n, one) for n, own in enumerate(candidates)
                 for one in dict.fromkeys(ids[text] for text in own) if one]
        asked = list(dict.fromkeys(asked))
        made: dict[_Candidate, Scored] = {}
        prefix = len(tokens.prefix) - 1 + (1 if features is None else features.shape[1])
        most = max(1, self.token_budget // (prefix + 1))
        wanted = sorted({one.picture for one in asked})
        for first in range(0, len(wanted), most):
            chosen = wanted[first:first + most]
            self._score(features, chosen, tokens.prefix,
                        [one for one in asked if chosen[0] <= one.picture <= chosen[-1]], made)
        return [[made.get(_Candidate(0 if features is None else n, ids[text]), Scored(0.0, 0))
                 for text in own] for n, own in enumerate(candidates)]

    def _score(self, features: Tensor | None, pictures: list[int], prefix: list[int],
               asked: list[_Candidate], made: dict[_Candidate, Scored]) -> None:
        chosen = None if features is None else features[pictures]
        inputs = self._inputs(chosen, prefix, len(pictures))  # [B, T, H]
        out = self.model.model.language_model(inputs_embeds=inputs, use_cache=True)
        last, kept = out.last_hidden_state[:, -1], out.past_key_values
        place = {picture: row for row, picture in enumerate(pictures)}
        for batch in self._batches(asked, inputs.shape[1]):
            rows = [place[one.picture] for one in batch]
            hidden = self._continue(kept, last, rows, batch, inputs.shape[1])  # [R, L, H]
            length = hidden.shape[1]
            targets = torch.zeros(len(batch), length, dtype=torch.int64)
            real = torch.zeros(len(batch), length, dtype=torch.bool)
            for row, one in enumerate(batch):
                targets[row, :len(one.tokens)] = torch.tensor(one.tokens)
                real[row, :len(one.tokens)] = True
            real, targets = real.to(hidden.device), targets.to(hidden.device)
            logprobs = self._logprobs(hidden[real], targets[real])
            at = 0
            for one in batch:
                own = logprobs[at:at + len(one.tokens)]
                at += len(own)
                made[one] = Scored(sum(own), len(own))

    def _logprobs(self, hidden: Tensor, targets: Tensor) -> list[float]:
        """Log-probabilities of targets [N] after hidden states [N, H]."""
        found: list[float] = []
        for states, wanted in zip(hidden.split(LOGIT_ROWS), targets.split(LOGIT_ROWS),
                                  strict=True):
            logits = self.model.lm_head(states).double()  # [n, V]
            picked = logits.gather(1, wanted[:, None])[:, 0]
            found += (picked - logits.logsumexp(dim=1)).tolist()
        return found

    def _continue(self, kept: Any, last: Tensor, rows: list[int], batch: list[_Candidate],
                  prefix: int) -> Tensor:
        """Hidden states [R, L, H] that predict each candidate's tokens; padding after them."""
        first = last[rows][:, None]
        most = max(len(one.tokens) for one in batch) - 1
        if most == 0:
            return first
        ids = torch.zeros(len(batch), most, dtype=torch.int64)
        seen = torch.zeros(len(batch), prefix + most, dtype=torch.int64)
        for row, one in enumerate(batch):
            ids[row, :len(one.tokens) - 1] = torch.tensor(one.tokens[:-1], dtype=torch.int64)
            seen[row, :prefix + len(one.tokens) - 1] = 1
        out = self.model.model.language_model(
            inputs_embeds=self.model.get_input_embeddings()(ids.to(last.device)),
            attention_mask=seen.to(last.device), past_key_values=_branch(kept, rows),
            position_ids=torch.arange(prefix, prefix + most, device=last.device)[None],
            use_cache=True)
        return torch.cat([first, out.last_hidden_state], dim=1)

    def _batches(self, asked: list[_Candidate], prefix: int) -> Iterator[list[_Candidate]]:
        """Candidates of like length together, as many as the budget holds."""
        batch: list[_Candidate] = []
        for one in sorted(asked, key=lambda one: len(one.tokens)):
            if batch and (len(batch) + 1) * (prefix + len(one.tokens)) > self.token_budget:
                yield batch
                batch = []
            batch.append(one)
        if batch:
            yield batch

    def _inputs(self, features: Tensor | None, prefix: list[int], rows: int) -> Tensor:
        """Embeddings [rows, T, H] of the prefix with the pictures in their place."""
        ids = torch.tensor(prefix, device=self.device)
        words = self.model.get_input_embeddings()
        if features is None:
            return words(ids)[None].expand(rows, -1, -1)
        shown = self.model.model.multi_modal_projector(features.to(self.device, self.model.dtype))
        at = prefix.index(self.template.image_id)
        return torch.cat([words(ids[:at])[None].expand(rows, -1, -1), shown.to(self.model.dtype),
                          words(ids[at + 1:])[None].expand(rows, -1, -1)], dim=1)

    @torch.inference_mode()
    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        """One greedy text per picture; ``features`` None: one text without a picture."""
        features = None if features is None else torch.as_tensor(features)
        tokens = self.template.encode(prompt or self.prompt, [], features is not None)
        count = 1 if features is None else len(features)
        end = self._eos()
        greedy = GenerationConfig(max_new_tokens=max_new_tokens, do_sample=False, num_beams=1,
                                  eos_token_id=end, pad_token_id=end)
        texts: list[str] = []
        length = len(tokens.prefix) + self.prefix_tokens + max_new_tokens
        most = max(1, self.token_budget // length)
        for first in range(0, count, most):
            chosen = None if features is None else features[first:first + most]
            inputs = self._inputs(chosen, tokens.prefix, 1 if chosen is None else len(chosen))
            ids = self.model.generate(
                inputs_embeds=inputs, generation_config=greedy,
                attention_mask=torch.ones(inputs.shape[:2], dtype=torch.int64,
                                          device=inputs.device))
            texts += self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _eos(self) -> int:
        end = self.processor.tokenizer.eos_token_id
        if end is None:
            raise ValueError("the tokeniser has no end-of-sequence token")
        return int(end)

    def record_scores(self, scores: dict[str, Any]) -> None:
        """Nothing: there is no model card of ours."""


def _branch(kept: Any, rows: list[int]) -> Any:
    """A copy of the kept keys and values, one row a candidate; the original stays as it is."""
    cache = copy.copy(kept)
    cache.layers = [copy.copy(layer) for layer in kept.layers]
    cache.batch_select_indices(torch.tensor(rows, device=kept.layers[0].keys.device))
    return cache


def load_llava(folder: Path, device: str, *, template: str = "", prompt: str = "",
               dtype: str = "float32") -> LlavaModel:
    """Loads a LLaVA.

    Args:
        folder: with ``config.json``, weights and the processor's files.
        device: ``auto``, ``cpu``, ``cuda``, ...
        template: `Template`; empty: the processor's chat template, ``plain`` where it has none.
        prompt: what is asked when a task has no prompt of its own.
        dtype: ``float32`` (same scores at any batch size to 1e-5), ``bfloat16``, ``float16``.

    Raises:
        ValueError: no such model, files missing, or an unknown option.
    """
    if dtype not in DTYPES:
        raise ValueError(f"llava:{folder}: dtype '{dtype}'; accepted: {', '.join(DTYPES)}")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type != "llava":
            raise ValueError(f"its model_type is '{config.model_type}', wanted: llava")
        if config.vision_config.model_type == "pixtral":
            raise ValueError("its tower (pixtral) gives pictures different numbers of features")
        loaded: Any = LlavaForConditionalGeneration.from_pretrained(
            folder, dtype=DTYPES[dtype], local_files_only=True, output_loading_info=True)
        model, info = loaded
        odd = sorted([*info["missing_keys"], *map(str, info["mismatched_keys"])])
        if odd:
            raise ValueError(f"{len(odd)} weights are missing, the first is {odd[0]}")
        processor: Any = AutoProcessor.from_pretrained(folder, local_files_only=True)
        source = template or ("chat" if getattr(processor, "chat_template", None) else "plain")
        return LlavaModel(model, processor, Template(source, processor), prompt, device)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        text = " ".join(str(error).split())[:300]
        raise ValueError(f"{folder}: not a LLaVA that can be loaded ({text}); accepted: "
                         f"{FORMS['llava']}, as transformers saves "
                         f"LlavaForConditionalGeneration with its processor") from None

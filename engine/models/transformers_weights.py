"""Our decoders' weights under Hugging Face's names, both ways.

`GPT2LMHeadModel` keeps linear weights transposed (`Conv1D`); `LlamaForCausalLM` keeps query, key,
value, gate and up apart. Both pair rotary halves as we do.
"""

from __future__ import annotations

import torch
from torch import Tensor

from engine.models.decoder_config import DecoderConfig

State = dict[str, Tensor]

_GPT2_NORMS = {"attention_norm": "ln_1", "forward_norm": "ln_2"}
_GPT2_LINEAR = {
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
_LLAMA_SAME = {
    "attention_norm": "input_layernorm",
    "forward_norm": "post_attention_layernorm",
    "attention.out": "self_attn.o_proj",
    "feed_forward.down": "mlp.down_proj",
}


def to_gpt2_state_dict(state: State, config: DecoderConfig) -> State:
    """Our decoder's state dict as `GPT2LMHeadModel`'s."""
    out: State = {
        "transformer.wte.weight": state["vocabulary.weight"],
        "transformer.wpe.weight": state["positions.weight"],
        "lm_head.weight": state.get("vocabulary.output", state["vocabulary.weight"]),
    }
    for part in ("weight", "bias"):
        out[f"transformer.ln_f.{part}"] = state[f"final_norm.{part}"]
        for layer in range(config.layers):
            ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
            for a, b in _GPT2_NORMS.items():
                out[f"{theirs}.{b}.{part}"] = state[f"{ours}.{a}.{part}"]
            for a, b in _GPT2_LINEAR.items():
                value = state[f"{ours}.{a}.{part}"]
                out[f"{theirs}.{b}.{part}"] = value.T.contiguous() if part == "weight" else value
    return out


def from_gpt2_state_dict(state: State, config: DecoderConfig) -> State:
    """`GPT2LMHeadModel`'s state dict as our decoder's."""
    out: State = {
        "vocabulary.weight": state["transformer.wte.weight"],
        "positions.weight": state["transformer.wpe.weight"],
    }
    if not config.tie_embeddings:
        out["vocabulary.output"] = state["lm_head.weight"]
    for part in ("weight", "bias"):
        out[f"final_norm.{part}"] = state[f"transformer.ln_f.{part}"]
        for layer in range(config.layers):
            ours, theirs = f"blocks.{layer}", f"transformer.h.{layer}"
            for a, b in _GPT2_NORMS.items():
                out[f"{ours}.{a}.{part}"] = state[f"{theirs}.{b}.{part}"]
            for a, b in _GPT2_LINEAR.items():
                value = state[f"{theirs}.{b}.{part}"]
                out[f"{ours}.{a}.{part}"] = value.T.contiguous() if part == "weight" else value
    return out


def to_llama_state_dict(state: State, config: DecoderConfig) -> State:
    """Our decoder's state dict as `LlamaForCausalLM`'s."""
    dim = config.width // config.heads
    sizes = [config.heads * dim, *[(config.kv_heads or config.heads) * dim] * 2]
    out: State = {
        "model.embed_tokens.weight": state["vocabulary.weight"],
        "model.norm.weight": state["final_norm.weight"],
        "lm_head.weight": state.get("vocabulary.output", state["vocabulary.weight"]),
    }
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        for a, b in _LLAMA_SAME.items():
            out[f"{theirs}.{b}.weight"] = state[f"{ours}.{a}.weight"]
        parts = state[f"{ours}.attention.qkv.weight"].split(sizes)
        for name, value in zip("qkv", parts, strict=True):
            out[f"{theirs}.self_attn.{name}_proj.weight"] = value.clone()
        halves = state[f"{ours}.feed_forward.up.weight"].chunk(2)
        for name, value in zip(("gate", "up"), halves, strict=True):
            out[f"{theirs}.mlp.{name}_proj.weight"] = value.clone()
    return out


def from_llama_state_dict(state: State, config: DecoderConfig) -> State:
    """`LlamaForCausalLM`'s state dict as our decoder's."""
    out: State = {
        "vocabulary.weight": state["model.embed_tokens.weight"],
        "final_norm.weight": state["model.norm.weight"],
    }
    if not config.tie_embeddings:
        out["vocabulary.output"] = state["lm_head.weight"]
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}", f"model.layers.{layer}"
        for a, b in _LLAMA_SAME.items():
            out[f"{ours}.{a}.weight"] = state[f"{theirs}.{b}.weight"]
        out[f"{ours}.attention.qkv.weight"] = torch.cat(
            [state[f"{theirs}.self_attn.{name}_proj.weight"] for name in "qkv"]
        )
        out[f"{ours}.feed_forward.up.weight"] = torch.cat(
            [state[f"{theirs}.mlp.{name}_proj.weight"] for name in ("gate", "up")]
        )
    return out

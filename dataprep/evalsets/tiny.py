"""A Stable Diffusion 3 pipeline with random weights, some hundred kilobytes large.

It runs every line that the real one runs and paints noise: for tests and tours without weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

SIDE = 64
"""Side of its pictures in pixels."""


def save_tiny_sd3(folder: Path, seed: int = 0) -> Path:
    """Save a random StableDiffusion3Pipeline (without text encoder 3) and return its folder."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
        StableDiffusion3Pipeline,
    )
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    # typed by diffusers as tuples of one
    blocks: dict[str, Any] = {
        "block_out_channels": (4, 4),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        transformer = SD3Transformer2DModel(
            sample_size=SIDE // 2, patch_size=2, in_channels=16, num_layers=1, attention_head_dim=8,
            num_attention_heads=4, joint_attention_dim=32, caption_projection_dim=32,
            pooled_projection_dim=64, out_channels=16,
        )  # fmt: skip
        vae = AutoencoderKL(
            sample_size=SIDE, in_channels=3, out_channels=3, **blocks, layers_per_block=1,
            latent_channels=16, norm_num_groups=1, use_quant_conv=False,
            use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5305,
        )  # fmt: skip
        tokenizer = _tokenizer()
        config = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=37, projection_dim=32,
            num_attention_heads=4, num_hidden_layers=2, max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        encoders = [CLIPTextModelWithProjection(config) for _ in range(2)]
    nothing: Any = None
    pipeline = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae,
        text_encoder=encoders[0], tokenizer=tokenizer, text_encoder_2=encoders[1],
        tokenizer_2=tokenizer, text_encoder_3=nothing, tokenizer_3=nothing,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    """CLIP's tokeniser with letters for a vocabulary."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)

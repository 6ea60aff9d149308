"""Small models of other libraries with random weights, saved as their users save them."""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ("a red green blue yellow pink brown thing look at the what is it ? ball cup user "
         "assistant describe this picture dog 's")
CHAT = ("{% for m in messages %}{{ m['role'] | upper }}: {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image>\n{% else %}{{ c['text'] }}{% endif %}{% endfor %} "
        "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}")


def save_llava(folder: Path, *, text: str = "llama", chat: bool = True, seed: int = 0,
               strategy: str = "default", layer: int | list[int] = -2) -> Path:
    """A LLaVA with its processor: 28 pixels, 4 patches, width 32, byte-level BPE.

    With a chat template the tokeniser also begins every text with <s>.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        MistralConfig,
        PreTrainedTokenizerFast,
    )

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator([WORDS] * 4, trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<s>", "</s>", "<pad>", "<image>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    if chat:  # as Llama's tokenisers do
        backend.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>",
                                        eos_token="</s>", pad_token="<pad>")
    size = {"shortest_edge": 28}
    pixels = CLIPImageProcessor(size=size, crop_size={"height": 28, "width": 28})
    processor = LlavaProcessor(
        image_processor=pixels, tokenizer=tokenizer, patch_size=14,
        vision_feature_select_strategy=strategy, num_additional_image_tokens=1,
        chat_template=CHAT if chat else None)
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=3,
                              num_attention_heads=4, image_size=28, patch_size=14)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer),
             "max_position_embeddings": 128, "bos_token_id": 0, "eos_token_id": 1}
    # Mistral: a window that is shorter than the prefix.
    words = (LlamaConfig(**sizes) if text == "llama" else
             MistralConfig(**sizes, sliding_window=6))
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(LlavaConfig(
        vision_config=vision, text_config=words, image_token_id=3, vision_feature_layer=layer,
        vision_feature_select_strategy=strategy))
    with torch.no_grad():  # else random weights give every text about the same likelihood
        model.lm_head.weight.mul_(30)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


CLIP_CONFIG = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def save_clip(folder: Path, *, seed: int = 0) -> Path:
    """A CLIP in the layout of a downloaded open_clip repository."""
    import open_clip

    folder.mkdir(parents=True, exist_ok=True)
    about = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "open_clip_config.json").write_text(json.dumps(about), encoding="utf-8")
    torch.manual_seed(seed)
    net = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    torch.save(net.state_dict(), folder / "open_clip_pytorch_model.bin")
    return folder

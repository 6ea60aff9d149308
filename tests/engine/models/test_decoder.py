"""Our decoders against transformers' classes, and packed rows against documents alone."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from engine.models import transformers_weights as names
from engine.models.cache import KeyValueCache
from engine.models.decoder import Decoder
from engine.models.decoder_config import DecoderConfig
from kernels import intervals

VOCAB = 2350
NO_DROPOUT = {"dropout": 0.0, "attention_dropout": 0.0, "embed_dropout": 0.0}
LLAMA = DecoderConfig(
    kind="llama", layers=3, width=64, heads=4, kv_heads=2, inner=96, positions=64,
    tie_embeddings=False, **NO_DROPOUT,
)  # fmt: skip
GPT2 = DecoderConfig(layers=2, width=32, heads=4, inner=48, positions=64, **NO_DROPOUT)


def _logits(decoder: Decoder, documents: list[torch.Tensor]) -> torch.Tensor:
    lengths = torch.tensor([len(d) for d in documents])
    cu = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    positions = torch.cat([torch.arange(len(d)) for d in documents])
    x = decoder.embed(torch.cat(documents))
    return decoder(x, positions, intervals(cu)) @ decoder.output_weight.T


def _gpt2(config: DecoderConfig) -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB, n_positions=config.positions, n_embd=config.width,
            n_layer=config.layers, n_head=config.heads, n_inner=config.inner,
            resid_pdrop=0.15, embd_pdrop=0.15, attn_pdrop=0.15,
        )
    )  # fmt: skip


def _llama(config: DecoderConfig) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB, hidden_size=config.width, intermediate_size=config.inner,
            num_hidden_layers=config.layers, num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads, max_position_embeddings=config.positions,
            rms_norm_eps=1e-5, tie_word_embeddings=config.tie_embeddings,
        )
    )  # fmt: skip


def test_babygpt2_has_the_published_number_of_parameters() -> None:
    decoder = Decoder(DecoderConfig(preset="babygpt2"), VOCAB)
    assert sum(p.numel() for p in decoder.parameters()) == 7_182_336
    assert DecoderConfig(preset="babygpt2") == DecoderConfig().model_copy(
        update={"preset": "babygpt2"}
    )


def test_tinyllama_shape() -> None:
    with torch.device("meta"):
        decoder = Decoder(DecoderConfig(preset="tinyllama-1.1b"), 32_000)
        theirs = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32_000, hidden_size=2048, intermediate_size=5632, num_hidden_layers=22,
                num_attention_heads=32, num_key_value_heads=4,
            )
        )  # fmt: skip
    expected = sum(p.numel() for p in theirs.parameters())
    assert sum(p.numel() for p in decoder.parameters()) == expected == 1_100_048_384


@pytest.mark.parametrize("kind", ["babygpt2", "llama"])
def test_logits_equal_transformers(kind: str) -> None:
    torch.manual_seed(0)
    if kind == "babygpt2":
        config = DecoderConfig(preset="babygpt2")
        theirs = _gpt2(config).eval()
        to, back = names.to_gpt2_state_dict, names.from_gpt2_state_dict
    else:
        config = LLAMA
        theirs = _llama(config).eval()
        to, back = names.to_llama_state_dict, names.from_llama_state_dict
    with torch.no_grad():  # biases and norms start at 0 and 1: make them count
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    ours = Decoder(config, VOCAB).eval()
    state = theirs.state_dict()
    ours.load_state_dict(back(state, config))
    documents = [torch.randint(VOCAB, (n,)) for n in (17, 1, 40)]
    with torch.no_grad():
        got = _logits(ours, documents).split([17, 1, 40])
        for document, logits in zip(documents, got, strict=True):
            want = theirs(document[None]).logits[0]
            torch.testing.assert_close(logits, want, rtol=1e-5, atol=1e-5 * want.abs().max().item())
    round_trip = to(ours.state_dict(), config)
    assert set(round_trip) == set(state)
    assert all(torch.equal(round_trip[name], state[name]) for name in state)


@pytest.mark.parametrize("config", [GPT2, LLAMA])
def test_gradients_equal_with_and_without_checkpointing(config: DecoderConfig) -> None:
    grads = []
    for recompute in (False, True):
        torch.manual_seed(0)
        decoder = Decoder(config.model_copy(update={"gradient_checkpointing": recompute}), 50)
        documents = [torch.arange(9), torch.arange(4)]
        _logits(decoder, documents).square().mean().backward()
        grads.append([p.grad for p in decoder.parameters()])
        assert all(g is not None and g.abs().sum() > 0 for g in grads[-1])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_dropout_only_while_training() -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(layers=2, width=32, heads=4, inner=48), 50)
    documents = [torch.arange(9)]
    assert not torch.equal(_logits(decoder, documents), _logits(decoder, documents))
    decoder.eval()
    assert torch.equal(_logits(decoder, documents), _logits(decoder, documents))


@pytest.mark.parametrize("config", [GPT2, LLAMA])
def test_cache_gives_the_hidden_states_of_a_whole_pass(config: DecoderConfig) -> None:
    torch.manual_seed(0)
    decoder = Decoder(config, 50).eval().double()
    tokens = torch.randint(50, (3, 11))
    whole = decoder(
        decoder.embed(tokens.flatten()),
        torch.arange(11).repeat(3),
        intervals(torch.tensor([0, 11, 22, 33])),
    ).unflatten(0, (3, 11))
    cache = KeyValueCache(decoder, 3, 11)
    first = cache.prefill(
        decoder.embed(tokens[:, :6].flatten()),
        torch.arange(6).repeat(3),
        intervals(torch.tensor([0, 6, 12, 18])),
    )
    torch.testing.assert_close(first, whole[:, 5])
    for at in range(6, 11):
        torch.testing.assert_close(cache.step(tokens[:, at]), whole[:, at])


def test_initialisation_is_gpt2s() -> None:
    torch.manual_seed(0)
    decoder = Decoder(DecoderConfig(), VOCAB)
    block = decoder.blocks[3]
    assert abs(block.attention.qkv.weight.std() - 0.02) < 5e-4
    assert abs(block.feed_forward.down.weight.std() - 0.02 / 4) < 2e-4
    assert block.attention.qkv.bias.abs().sum() == 0
    assert torch.equal(block.attention_norm.weight, torch.ones(256))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("heads", {"width": 100, "heads": 3}),
        ("heads", {"width": 48, "heads": 4}),
        ("kv_heads", {"kv_heads": 5}),
    ],
)
def test_bad_shapes_name_the_key(key: str, values: dict) -> None:
    with pytest.raises(ValidationError, match=f"{key}:"):
        DecoderConfig(**values)


def test_vocabulary_must_hold_the_tokenisers() -> None:
    with pytest.raises(ValueError, match=r"decoder\.vocab_size: 10 .* 50"):
        Decoder(DecoderConfig(vocab_size=10), 50)
    assert Decoder(GPT2.model_copy(update={"vocab_size": 64}), 50).output_weight.shape == (64, 32)

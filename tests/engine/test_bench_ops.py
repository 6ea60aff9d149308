"""The comparison with plain PyTorch compares like with like."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from engine import bench_ops
from engine.models.decoder import Decoder
from engine.models.decoder_config import DecoderConfig
from kernels import intervals


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_plain_twin_computes_the_same(kind: str) -> None:
    config = DecoderConfig(
        kind=kind, layers=2, width=32, heads=4, inner=48,  # type: ignore[arg-type]
        dropout=0.1, attention_dropout=0.0, embed_dropout=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    decoder = Decoder(config, 50)
    x, targets = torch.randn(12, 32), torch.randint(50, (12,))
    found = []
    for context in (nullcontext(), bench_ops._plain()):
        with context:
            torch.manual_seed(1)
            hidden = decoder(x, torch.arange(12), intervals(torch.tensor([0, 12])))
            decoder.vocabulary(hidden=hidden, targets=targets).backward()
        found.append([p.grad.clone() for p in decoder.parameters() if p.grad is not None])
        decoder.zero_grad(set_to_none=True)
    assert len(found[0]) == len(found[1]) > 10
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


def test_every_row_of_the_table_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[str, int] = {"ours": 0, "plain": 0}

    def counting(name: str) -> None:
        calls[name] += 1

    row = bench_ops._ratio(lambda: counting("ours"), lambda: counting("plain"), rounds=3)
    assert calls == {"ours": 5, "plain": 5}
    assert set(row) == {"ours", "plain", "ours / plain"}

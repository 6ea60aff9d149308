"""Other libraries behind our signature: what reaches them, what comes back, what is refused."""

from __future__ import annotations

import gc
import inspect
import types
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.attention_cases import BRANCHED, FORMS, mask_of
from torch import Tensor

from kernels import attention, attention_peers, dispatch
from kernels.reference import attention_reference

LENGTHS = [130, 7, 0, 300, 1, 64]


@pytest.fixture(autouse=True)
def _choose_again() -> Iterator[None]:
    yield
    dispatch.set_backend("attention", None)


def _inputs(total: int, heads: int = 4, kv: int = 2, dim: int = 16) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(total, h, dim, generator=generator) for h in (heads, kv, kv))


# flex_attention, which also runs on a CPU --------------------------------------------------------


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("form", [*FORMS, *BRANCHED])
def test_flex_equals_reference(form: str, softcap: float | None) -> None:
    mask = mask_of(LENGTHS, form)
    inputs = _inputs(mask.num_rows)
    dispatch.set_backend("attention", "flex")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        out, lse = attention(*inputs, mask, softcap=softcap, scale=0.3, return_lse=True)
    want, want_lse = attention_reference(*inputs, mask, softcap=softcap, scale=0.3, return_lse=True)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(lse, want_lse)


@pytest.mark.parametrize("form", [*FORMS, *BRANCHED])
def test_flex_blocks_are_those_of_the_mask(form: str) -> None:
    # On a CPU flex computes every entry; on a GPU it visits what the blocks say.
    mask = mask_of([*LENGTHS, 400], form)
    made = attention_peers.block_mask(mask)
    blocks = -(-mask.num_rows // 128)
    dense = torch.zeros(blocks * 128, blocks * 128, dtype=torch.bool)
    dense[: mask.num_rows, : mask.num_rows] = mask.dense_mask()
    dense[mask.num_rows :] = dense[mask.num_rows - 1]  # rows past the end ask for nothing new
    tiles = dense.unflatten(1, (blocks, 128)).unflatten(0, (blocks, 128))
    some, every = tiles.any(3).any(1), tiles.all(3).all(1)

    def listed(counts: Tensor | None, indices: Tensor | None) -> Tensor:
        assert counts is not None and indices is not None
        found = torch.zeros(blocks, blocks, dtype=torch.bool)
        for row in range(blocks):
            found[row, indices[0, 0, row, : counts[0, 0, row]].long()] = True
        return found

    partial = listed(made.kv_num_blocks, made.kv_indices)
    full = listed(made.full_kv_num_blocks, made.full_kv_indices)
    assert not (partial & full).any()
    if form in FORMS:
        assert torch.equal(full, every) and torch.equal(partial | full, some)
    else:  # with two intervals a row the hull is taken, and a block counts as full less often
        assert full.any() and not (full & ~every).any()
        assert not (some & ~(partial | full)).any()
    assert torch.equal(listed(made.q_num_blocks, made.q_indices), partial.T)


def test_flex_block_mask_is_made_once_and_dies_with_the_intervals() -> None:
    mask = mask_of(LENGTHS, "causal")
    made = attention_peers.block_mask(mask)
    assert attention_peers.block_mask(mask) is made
    gone = weakref.ref(made)
    del made, mask
    gc.collect()
    assert gone() is None


# FlashAttention: stand-ins that compute by hand what the arguments say ---------------------------


def _by_documents(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, scale: float, causal: bool, window: int
) -> tuple[Tensor, Tensor]:
    """``[T, H, D]`` and ``[H, T]``; ``window``: how far a row sees back, -1 = all the way."""
    outs, lses = [], []
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    for a, b in zip(ends.tolist(), ends.tolist()[1:], strict=False):
        scores = torch.einsum("ihd,jhd->hij", q[a:b], k[a:b]) * scale
        row, key = torch.arange(b - a)[:, None], torch.arange(b - a)
        seen = torch.ones(b - a, b - a, dtype=torch.bool)
        if causal:
            seen &= key <= row
        if window >= 0:
            seen &= row - key <= window
        scores = scores.masked_fill(~seen, float("-inf"))
        outs.append(torch.einsum("hij,jhd->ihd", scores.softmax(-1), v[a:b]))
        lses.append(scores.logsumexp(-1))
    return torch.cat(outs), torch.cat(lses, 1)


@pytest.mark.parametrize("form", ["causal", "full", "window"])
def test_varlen_is_asked_for_the_same_attention(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import varlen

    signature = inspect.signature(varlen.varlen_attn)

    def stand_in(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        said = signature.bind(*args, **kwargs).arguments  # as the installed torch takes them
        back, forth = said["window_size"]
        assert forth == (-1 if form == "full" else 0) and said["return_aux"].lse
        assert torch.equal(said["cu_seq_q"], said["cu_seq_k"])
        assert said["max_q"] == said["max_k"] == max(LENGTHS)
        return _by_documents(
            said["query"], said["key"], said["value"], said["cu_seq_q"], said["scale"],
            forth == 0, back,
        )  # fmt: skip

    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    mask = mask_of(LENGTHS, form)
    inputs = _inputs(mask.num_rows)
    out, lse = attention_peers.varlen(*inputs, mask, scale=0.3, return_lse=True)
    want, want_lse = attention_reference(*inputs, mask, scale=0.3, return_lse=True)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(lse, want_lse)
    assert attention_peers.varlen(*inputs, mask, scale=0.3, return_lse=False)[1] is None


@pytest.mark.parametrize("form", ["causal", "full", "window"])
def test_flash_attn_is_asked_for_the_same_attention(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def flash_attn_varlen_func(  # the parameters of flash-attn 2.8
        q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p=0.0,
        softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None,
        deterministic=False, return_attn_probs=False, block_table=None,
    ):  # fmt: skip
        asked.append((dropout_p, softcap, deterministic))
        assert torch.equal(cu_seqlens_q, cu_seqlens_k)
        assert max_seqlen_q == max_seqlen_k == max(LENGTHS)
        assert causal == (form != "full") and window_size[1] == (0 if causal else -1)
        out, lse = _by_documents(q, k, v, cu_seqlens_q, softmax_scale, causal, window_size[0])
        return (out, lse, None) if return_attn_probs else out

    monkeypatch.setattr(attention_peers, "_flash_attn_varlen", lambda: flash_attn_varlen_func)
    mask = mask_of(LENGTHS, form)
    inputs = _inputs(mask.num_rows)
    want, want_lse = attention_reference(*inputs, mask, scale=0.3, return_lse=True)
    options = {"scale": 0.3, "deterministic": True}
    out, lse = attention_peers.flash_attn(*inputs, mask, softcap=None, return_lse=True, **options)
    torch.testing.assert_close(out, want)
    torch.testing.assert_close(lse, want_lse)
    out, lse = attention_peers.flash_attn(*inputs, mask, softcap=2.0, return_lse=False, **options)
    torch.testing.assert_close(out, want)
    assert lse is None and asked == [(0.0, 0.0, True), (0.0, 2.0, True)]


def test_only_what_is_not_aligned_is_copied() -> None:
    x = torch.randn(6, 4, 16)
    assert attention_peers._aligned(x) is x
    heads = x.transpose(0, 1).contiguous().transpose(0, 1)
    assert attention_peers._aligned(heads) is heads
    shifted = torch.randn(6 * 64 + 1)[1:].view(6, 4, 16)
    odd_rows = torch.randn(6, 66)[:, :64].view(6, 4, 16)
    strided = torch.randn(6, 4, 32)[..., ::2]
    for view in (shifted, odd_rows, strided):
        copy = attention_peers._aligned(view)
        assert copy.is_contiguous() and copy.data_ptr() % 16 == 0 and torch.equal(copy, view)


# Refusals ----------------------------------------------------------------------------------------


def _on_gpu(dtype: torch.dtype = torch.bfloat16, dim: int = 64, rows: int = 9, **more: Any) -> Any:
    """What a refusal looks at of a tensor on a GPU."""
    return types.SimpleNamespace(
        device=torch.device("cuda"), dtype=dtype, shape=(rows, 4, dim), requires_grad=False, **more
    )


def _why(name: str, form: str, x: Any, **options: Any) -> str | None:
    refuses = next(e.refuses for e in dispatch._registry["attention"] if e.name == name)
    usual = {"scale": 1.0, "softcap": None, "dropout": 0.0, "seed": None, "deterministic": True,
             "return_lse": False}  # fmt: skip
    return refuses(x, x, x, mask_of([4, 5], form), **(usual | options))


@pytest.fixture
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_peers, "_flash_attn_varlen", lambda: print)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("name", ["varlen", "flash_attn"])
def test_flash_refusals(name: str) -> None:
    for form in ("causal", "full", "window"):
        assert _why(name, form, _on_gpu()) is None
        assert _why(name, form, _on_gpu(torch.float16, 256)) is None
    for said, form, x, options in (
        ("needs a CUDA device, got cpu", "causal", torch.ones(9, 4, 16), {}),
        ("float16 or bfloat16 expected, got torch.float32", "causal", _on_gpu(torch.float32), {}),
        ("head dimension at most 256 expected, got 264", "causal", _on_gpu(dim=264), {}),
        ("at least one row", "causal", _on_gpu(rows=0), {}),
        ("got prefix_lens", "prefix", _on_gpu(), {}),
        ("got branches", "branches", _on_gpu(), {}),
        ("no dropout of our mask, got dropout=0.1", "causal", _on_gpu(), {"dropout": 0.1}),
    ):
        why = _why(name, form, x, **options)
        assert why is not None and said in why and "\n" not in why
    softcap = _why(name, "causal", _on_gpu(), softcap=3.0)
    assert softcap == ("has no softcap, got 3.0" if name == "varlen" else None)


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("name", ["varlen", "flash_attn"])
def test_flash_needs_the_longest_document(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = mask_of([4, 5], "causal")
    mask.max_len = None
    why = attention_peers._refuse_flash(_on_gpu(), mask, 0.0)
    assert why == "needs intervals made with max_len"


def test_varlen_says_when_its_gradient_is_not_deterministic() -> None:
    x = _on_gpu()
    x.requires_grad = True
    why = _why("varlen", "causal", x)
    assert why is not None and "deterministic=False" in why
    assert _why("varlen", "causal", x, deterministic=False) is None
    with torch.no_grad():
        assert _why("varlen", "causal", x) is None
    torch.use_deterministic_algorithms(True)
    try:
        assert _why("varlen", "causal", x) is None
    finally:
        torch.use_deterministic_algorithms(False)


def test_flex_refusals() -> None:
    leaf = torch.ones(9, 4, 16, requires_grad=True)
    assert _why("flex", "prefix_branches", _on_gpu()) is None
    assert _why("flex", "causal", leaf) == "has no gradient on a CPU"
    assert _why("flex", "causal", leaf.detach()) is None
    for said, x in (
        ("head dimension at least 16 expected, got 8", _on_gpu(dim=8)),
        ("got torch.float64", _on_gpu(torch.float64)),
        ("at least one row", leaf.detach()[:0]),
    ):
        why = _why("flex", "causal", x)
        assert why is not None and said in why
    why = _why("flex", "causal", leaf.detach(), dropout=0.1)
    assert why is not None and "got dropout=0.1" in why


def test_flash_attn_missing() -> None:
    if attention_peers._flash_attn_varlen() is not None:
        pytest.skip("flash-attn is installed")
    assert _why("flash_attn", "causal", _on_gpu()) == "the package flash-attn is not installed"


@pytest.mark.parametrize("name", ["varlen", "flash_attn"])
def test_a_refused_call_is_an_error_and_not_another_path(name: str) -> None:
    mask = mask_of([4, 5], "causal")
    inputs = _inputs(9)
    attention(*inputs, mask)
    dispatch.set_backend("attention", name)
    with pytest.raises(RuntimeError, match=f"^attention on cpu float32: {name}: "):
        attention(*inputs, mask)


def test_nobody_runs_them_unasked() -> None:
    names = dispatch.describe()["attention"]
    assert {"varlen (on request)", "flex (on request)", "flash_attn (on request)"} <= set(names)

"""Counted tiles, bytes and flops against loops over every tile and mask entry."""

from __future__ import annotations

import pytest
import torch

from kernels import intervals
from kernels.bench import load_ops
from kernels.bench.attention_cases import Packed
from kernels.bench.cases import cases, find_op, select_cases
from kernels.bench.counts import (
    Count,
    PathShape,
    count_path,
    counts_table,
    paths_of,
    visited_tiles,
)
from kernels.intervals import Intervals

load_ops()
BF16 = torch.bfloat16
LENGTHS = [7, 1, 0, 30, 3, 64, 12]


def _mask(form: str) -> Intervals:
    cu = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    if form == "full":
        return intervals(cu, causal=False)
    if form == "prefix":
        return intervals(cu, prefix_lens=torch.tensor(LENGTHS) // 2)
    if form == "window":
        return intervals(cu, window=3)
    if form == "branches":
        return intervals(cu, branches=torch.tensor([-1, 0, -1, 0, -1, 4, 3 - 3]))
    return intervals(cu)


def _walk(
    ranges: list[tuple[int, int]], second: list[tuple[int, int]], own: int, walked: int, total: int,
    others: list[tuple[int, int]] | None,
) -> tuple[int, int, set[tuple[int, int]]]:  # fmt: skip
    """What the kernels' loops do, row by row: tiles, loaded rows, and the (own, walked) pairs."""
    tiles = rows = 0
    pairs: set[tuple[int, int]] = set()

    def visit(block: range, begin: int) -> None:
        nonlocal tiles, rows
        found = range(begin, min(begin + walked, total))
        tiles, rows = tiles + 1, rows + len(found)
        pairs.update((i, j) for i in block for j in found)

    for at in range(0, total, own):
        block = range(at, min(at + own, total))
        low, high = min(ranges[i][0] for i in block), max(ranges[i][1] for i in block)
        for begin in range(low, high, walked):
            visit(block, begin)
        spans = [second[i] for i in block if second[i][0] < second[i][1]]
        if not spans:
            continue
        for begin in range(min(s[0] for s in spans), max(s[1] for s in spans), walked):
            if others is None:
                hit = any(s[0] < begin + walked and s[1] > begin for s in spans)
            else:
                hit = any(
                    others[j][0] < block.stop and others[j][1] > block.start
                    and others[j][0] < others[j][1]
                    for j in range(begin, min(begin + walked, total))
                )  # fmt: skip
            if hit:
                visit(block, begin)
    return tiles, rows, pairs


@pytest.mark.parametrize("form", ["causal", "full", "prefix", "window", "branches"])
@pytest.mark.parametrize(("own", "walked"), [(16, 16), (32, 8), (8, 32), (128, 64)])
def test_tiles_by_loops(form: str, own: int, walked: int) -> None:
    mask = _mask(form)
    total, dense = mask.num_rows, mask.dense_mask()
    none = [(0, 0)] * total

    def ends(one: torch.Tensor | None, two: torch.Tensor | None) -> list[tuple[int, int]]:
        if one is None or two is None:
            return none
        return list(zip(one.tolist(), two.tolist(), strict=True))

    rows = ends(mask.start2, mask.stop2)
    for walk, first, second, others, wanted in (
        ("queries", ends(mask.start, mask.stop), rows, None, dense),
        ("keys", ends(mask.q_start, mask.q_stop), ends(mask.q_start2, mask.q_stop2), rows, dense.T),
    ):
        tiles, loaded, pairs = _walk(first, second, own, walked, total, others)
        assert visited_tiles(mask, walk, own, walked) == (tiles, loaded)  # type: ignore[arg-type]
        needed = {(int(i), int(j)) for i, j in wanted.nonzero()}
        assert needed <= pairs


@pytest.mark.parametrize("step", [16, 32])
def test_groups_by_loops(step: int) -> None:
    mask = _mask("causal")
    tiles = rows = 0
    for begin, end in mask.groups[64].tolist():
        rows += end - begin
        tiles += len(range(begin, end, step))
    assert rows == sum(LENGTHS)
    assert visited_tiles(mask, "groups", 64, step) == (tiles, rows)


def test_one_document_by_hand() -> None:
    spec = Packed((100,), heads=3, dim=64)
    # Two blocks of 64 queries, each against the whole tile of 128; two products.
    doc = PathShape("doc_fwd", "fwd", "groups", 64, 128, (64, 64))
    own = 4 * 3 * 64 * 2 + 3 * 4 + 3 * 8  # q, k, v, out; log-sum-exp; ends, a program a head
    assert count_path(spec, [doc], BF16) == Count(
        100 * own, 3 * 2 * (2 * 64 * 128 * (64 + 64)), 6
    )  # fmt: skip
    # Causal tiles of 64: (0, 0), (1, 0), (1, 1); the last tile holds 36 rows.
    tiled = PathShape("tiled_fwd", "fwd", "queries", 64, 64, (64, 64))
    moved = 100 * (2 * 3 * 128 + 12 + 24) + (64 + 64 + 36) * 2 * 3 * 128
    assert count_path(spec, [tiled], BF16) == Count(moved, 9 * 2 * 64 * 64 * 128, 9)
    # dK, dV: the same tiles the other way round; key tile 0 loads all rows, tile 1 the last 36.
    keys = PathShape("tiled_dkv", "bwd", "keys", 64, 64, (64,) * 4)
    moved = 100 * (4 * 3 * 128 + 3 * 8) + (64 + 36 + 36) * (2 * 3 * 128 + 2 * 12)
    assert count_path(spec, [keys], BF16) == Count(moved, 9 * 2 * 64 * 64 * 256, 9)


def test_narrow_heads_pay_for_whole_sectors() -> None:
    spec = Packed((64,), heads=8, dim=8)
    alone = PathShape("doc_fwd", "fwd", "groups", 64, 64, (16, 16))
    slab = PathShape("heads_fwd", "fwd", "groups", 64, 64, (16, 8), columns=8)
    apart, together = count_path(spec, [alone], BF16), count_path(spec, [slab], BF16)
    assert apart.bytes == 64 * (4 * 8 * 32 + 8 * 4 + 8 * 8)  # 16 bytes of a head cost 32
    assert together.bytes == 64 * (4 * 8 * 16 + 8 * 4 + 8)
    assert together.flops < apart.flops


@pytest.mark.parametrize("name", ["P1", "P1-causal", "BABY", "P2", "8192x34"])
def test_whole_documents_move_the_floor(name: str) -> None:
    (case,) = select_cases(["attention"], [name])
    spec = case.spec("full")
    work = find_op("attention").work(spec, BF16)
    for mode in ("fwd", "bwd"):
        path, shapes = next((p, s) for (m, p), s in paths_of(spec, BF16).items() if m == mode)
        count = count_path(spec, shapes, BF16)
        assert path != "tiled"
        assert 1.0 <= count.bytes / work[mode].bytes < 1.03
        assert count.flops > work[mode].flops


def test_tiles_do_not_grow_with_documents_squared() -> None:
    def tiles(documents: int) -> list[int]:
        spec = Packed((34,) * documents, heads=1, dim=64)
        return [count_path(spec, shapes, BF16).tiles for shapes in paths_of(spec, BF16).values()]

    for few, many in zip(tiles(512), tiles(8192), strict=True):
        assert many <= 16.5 * few


def test_table_names_every_case_and_path() -> None:
    text = counts_table(cases("attention"))
    for case in cases("attention"):
        spec = case.spec("full")
        for mode, path in paths_of(spec, BF16):
            assert f"| {case.name} | {mode} | {path} |" in text
    with pytest.raises(ValueError, match="--counts"):
        counts_table(cases("intervals"))

"""Result files, targets, tables and pictures, from invented numbers."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
from support.bench_reports import CEILINGS, SLOWER, report, row

from kernels.bench import load_ops
from kernels.bench.cases import cases, find_op
from kernels.bench.gates import Outcome, Target, best_peer, evaluate, headline, targets
from kernels.bench.peers import peers
from kernels.bench.plot import _spread, draw
from kernels.bench.results import Report, load, save
from kernels.bench.tables import BEGIN, END, refuse_smoke, render, update_readme

ROOT = Path(__file__).resolve().parents[3]


def _outcome(reports: list[Report], name: str) -> Outcome:
    (found,) = [outcome for outcome in evaluate(reports) if outcome.target.name == name]
    return found


# The file ----------------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "results.json"
    reports = [report(), report({"triton": 2.0})]
    save(path, reports)
    assert load(path) == reports
    assert reports[0].ceilings == CEILINGS and not reports[0].smoke
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_nan_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save(path, [report()])
    broken = report()
    broken.rows[0].p50 = float("nan")
    with pytest.raises(ValueError):
        save(path, [broken])
    assert load(path) == [report()]


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("schema",), 2, "not results of schema 1"),
        (("reports",), [], "reports: at least one"),
        (("reports", 0, "header", "commit"), None, r"reports\[0\].header.commit: str"),
        (("reports", 0, "header", "smoke"), "no", r"header.smoke: bool"),
        (("reports", 0, "header", "copy_bytes_per_s"), True, r"copy_bytes_per_s: float"),
        (("reports", 0, "rows", 3, "metric"), "speed", r"rows\[3\].metric: one of time, host"),
        (("reports", 0, "rows", 3, "mode"), "sideways", r"rows\[3\].mode: one of fwd, bwd"),
        (("reports", 0, "rows", 3, "unit"), "s", r"rows\[3\].unit: 'ms' expected"),
        (("reports", 0, "rows", 3, "p50"), None, r"rows\[3\]: p20, p50 and p80"),
        (("reports", 0, "rows", 3, "p80"), 0.0, r"rows\[3\]: 0 <= p20 <= p50 <= p80"),
        (("reports", 0, "rows", 3, "p20"), "fast", r"rows\[3\].p20: a number"),
        (("reports", 0, "rows", 3, "gate"), "red", r"rows\[3\]: a number needs a green gate"),
        (("reports", 0, "rows", 3, "gate"), "amber", r"rows\[3\].gate: one of green, red"),
        (("reports", 0, "rows", 3, "extra"), 1, r"rows\[3\]: unknown extra"),
        (("reports", 0, "rows", 3), "row", r"rows\[3\]: a mapping"),
    ],
)
def test_a_damaged_file_is_refused(
    where: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "results.json"
    save(path, [report()])
    tree = json.loads(path.read_text())
    place = tree
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=message):
        load(path)


def test_a_row_without_a_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    save(path, [report()])
    tree = json.loads(path.read_text())
    del tree["reports"][0]["rows"][2]["provider"]
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match=r"rows\[2\]: missing .*'provider'"):
        load(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        load(path)
    with pytest.raises(ValueError, match="No such file"):
        load(tmp_path / "none.json")


# Targets -----------------------------------------------------------------------------------------


def test_verdicts() -> None:
    ratio = Target("r", "ratio", "P1", "fwd", 1.5, 3.0, "varlen")
    limit = Target("l", "limit", "P1", "fwd", 0.16)
    words = [Outcome(ratio, value).verdict for value in (None, 1.49, 1.5, 2.9, 3.0)]
    assert words == ["not measured", "missed", "met", "met", "met, stretch too"]
    assert [Outcome(limit, value).verdict for value in (0.15, 0.16, 0.17)] == [
        "met", "met", "missed",
    ]  # fmt: skip
    hope = Target("h", "copy share", "P1", "fwd", None, 0.75)
    assert [Outcome(hope, v).verdict for v in (0.7, 0.8)] == ["stretch missed", "stretch met"]


def test_targets_are_taken_from_the_right_rows() -> None:
    found = [report()]
    assert _outcome(found, "P1 fwd against varlen").value == pytest.approx(
        SLOWER["varlen"] / SLOWER["triton"]
    )
    assert _outcome(found, "P1 bwd against flex").value == pytest.approx(
        SLOWER["flex"] / SLOWER["triton"]
    )
    best = _outcome(found, "BABY fwd+bwd against the best peer")
    assert best.value == pytest.approx(SLOWER["varlen"] / SLOWER["triton"])
    assert best.note == "varlen, causal on the same documents" and best.verdict == "missed"
    assert _outcome(found, "prefix-LM against causal, bwd").value == pytest.approx(1.0)
    assert _outcome(found, "P1 fwd, share of the copy rate").value == pytest.approx(1 / 1.3)
    assert _outcome(found, "P1 fwd, ms").value == pytest.approx(1.3 * 0.0945, rel=1e-3)
    assert _outcome(found, "host cost of P1 fwd, µs").verdict == "met"
    assert _outcome(found, "host cost of P1 bwd, µs").verdict == "missed"
    assert _outcome(found, "building the intervals of P1, ms").value == 0.006


def test_every_target_names_a_case_mode_and_peer_there_is() -> None:
    load_ops()
    assert len({target.name for target in targets()}) == len(targets())
    for target in targets():
        assert target.mode in find_op(target.op).modes, target.name
        known = {case.name for case in cases(target.op)}
        assert target.case in known, target.name
        if target.kind == "per byte":
            assert target.peer in known, target.name
        if target.kind == "ratio":
            names = {peer.name for peer in peers(target.op)}
            assert target.peer in names | {"best"}, target.name


def test_what_is_missing_says_why() -> None:
    absent = _outcome([report()], "L64 fwd against flash-attn-4")
    assert (absent.value, absent.note) == (None, "flash_attn_4 not measured on L64")
    refused = report()
    for r in refused.find(case="P1", provider="triton"):
        refused.rows.remove(r)
    refused.rows.append(
        replace(row("attention", "P1", "triton", "", 0.0), metric="none", unit="", gate="red",
                ours=True, detail="documents 0 to 0: out: not finite")
    )  # fmt: skip
    found = _outcome([refused], "P1 fwd, ms")
    assert found.verdict == "not measured" and "triton red: documents 0 to 0" in found.note
    assert _outcome([report(smoke=True)], "P1 fwd, ms").note == "no GPU report"
    assert _outcome([report(device_type="cpu")], "P1 fwd, ms").note == "no GPU report"


def test_of_several_reports_the_worst_counts_and_ratios_stay_inside_one() -> None:
    slow = report({"triton": 2.6, "varlen": 2.6, "flash_attn_4": 2.0})
    both = [report(), slow]
    assert _outcome(both, "P1 fwd against varlen").value == pytest.approx(1.0)
    assert _outcome(both, "P1 fwd, ms").value == pytest.approx(2.6 * 0.0945, rel=1e-3)
    assert _outcome(both, "L64 fwd against flash-attn-4").value == pytest.approx(2.0 / 2.6)


def test_headline_is_ours_and_best_is_not() -> None:
    found = report()
    ours = headline(found, "attention", "L64", "bwd")
    best = best_peer(found, "attention", "L64", "bwd")
    assert ours is not None and best is not None
    assert (ours.provider, best.provider) == ("triton", "varlen")
    assert headline(found, "attention", "L64", "build") is None
    assert best_peer(found, "intervals", "P1", "build") is None


# Tables ------------------------------------------------------------------------------------------


def test_table() -> None:
    text = render([report()])
    line = next(line for line in text.splitlines() if line.startswith("| P1 | fwd "))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[2].startswith("triton **0.123**") and cells[3:5] == ["0.050", "0.094"]
    assert cells[5:9] == ["77%", "41%", "varlen¹", "2.23×"]
    assert cells[9].split(" · ")[0] == "varlen¹ 0.274" and "triton" not in cells[9]
    assert "¹ causal on the same documents" in text
    assert "flash_attn_4 unavailable: flash-attn-4 is not installed (P1)" in text
    assert "| P1 | triton | 21.0 | 420.0 | 36.0 | 420.0 |" in text
    assert "commit 0123456789ab:" in text and "4.3 TB/s" in text and "790 TFLOP/s" in text
    assert "canary" not in text.replace("the canary's", "") and "‡" not in text
    assert "| P1 fwd against varlen | ≥ 1.5 |  | 2.23 | met (varlen, causal" in text


def test_unsteady_cases_are_marked() -> None:
    found = report()
    (canary,) = found.find(case="P2", provider="canary")
    canary.config["spread"] = 1.3
    text = render([found])
    assert "| P2 ‡ | fwd |" in text and "| P1 | fwd |" in text and "‡ unsteady" in text


def test_smoke_is_refused_and_marked(tmp_path: Path) -> None:
    refuse_smoke([report()], tmp_path)
    with pytest.raises(ValueError, match="smoke numbers"):
        refuse_smoke([report(), report(smoke=True)], tmp_path)
    assert "Smoke run on tiny problems, not a measurement" in render([report(smoke=True)])


def test_readme_is_rewritten_between_its_markers(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(f"# Title\n\nbefore\n{BEGIN}\nold | old\n{END}\nafter\n")
    assert update_readme(path, "| new |") is True
    assert path.read_text() == f"# Title\n\nbefore\n{BEGIN}\n\n| new |\n\n{END}\nafter\n"
    assert update_readme(path, "| new |") is False
    for text in ("none", f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"):
        path.write_text(text)
        with pytest.raises(ValueError, match="--readme: .* needs one line"):
            update_readme(path, "x")
        assert path.read_text() == text
    with pytest.raises(ValueError, match="--readme: .*No such file"):
        update_readme(tmp_path / "none.md", "x")


def test_our_own_readme_has_the_markers(tmp_path: Path) -> None:
    copied = tmp_path / "README.md"
    copied.write_text((ROOT / "kernels" / "README.md").read_text())
    assert update_readme(copied, "| new |") is True
    assert "| new |" in copied.read_text()


# Pictures ----------------------------------------------------------------------------------------


def test_pictures_are_drawn(tmp_path: Path) -> None:
    few = [report(), report({"triton": 1.2, "flash_attn_4": 2.0})]
    for one in few:
        one.rows = [r for r in one.rows if r.case in ("P1", "L64")]
    drawn = draw(few, tmp_path / "pictures")
    names = [path.name for path in drawn]
    assert names == ["attention-bars.png", "attention-roofline.png", "intervals-bars.png"]
    for path in drawn:
        picture = matplotlib.image.imread(path)
        assert picture.shape[0] > 100 and picture.shape[1] > 300
        assert float(picture[..., :3].std()) > 0.05  # not a blank page


def test_nothing_to_draw(tmp_path: Path) -> None:
    empty = report()
    empty.rows = [r for r in empty.rows if r.metric != "time"]
    with pytest.raises(ValueError, match="--plot: the file holds no times"):
        draw([empty], tmp_path)


def test_labels_of_the_roofline_keep_apart() -> None:
    one = copy.copy(report().rows[0])
    points = [(replace(one, case=name), 10.0 + k * 0.01, 1.0) for k, name in enumerate("abc")]
    places = list(_spread(points).values())
    assert all(b / a > 1.1 for a, b in pairwise(places))

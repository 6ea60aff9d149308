"""From cases and peers to a file, end to end: an op of the tests' own, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import kernels.bench.cases as cases_module
import kernels.bench.peers as peers_module
from kernels.bench import load_ops
from kernels.bench.__main__ import main
from kernels.bench.cases import Case, Inputs, Op, Part, Work, register_case, register_op
from kernels.bench.measure import Options
from kernels.bench.peers import Peer, Run, grads_of, register_peer, select_peers
from kernels.bench.results import load
from kernels.bench.run import Settings, measure_cases

ROOT = Path(__file__).resolve().parents[3]
QUICK = Options(budget_s=0.0, min_rounds=2, max_rounds=2, warmup=1)


def _lazy(x: Tensor) -> Tensor:
    raise RuntimeError("not today")


@pytest.fixture
def square(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An op that squares, with peers of different honesty; yields what they were asked."""
    monkeypatch.setattr(cases_module, "_ops", {})
    monkeypatch.setattr(cases_module, "_cases", {})
    monkeypatch.setattr(peers_module, "_peers", {})
    asked: list[str] = []

    def build(size: int, device: torch.device, dtype: torch.dtype, seed: int) -> Inputs:
        draw = torch.Generator(device=device).manual_seed(seed)
        x, upstream = (torch.randn(size, generator=draw, device=device) for _ in range(2))
        return Inputs(size, {"x": x.to(dtype).requires_grad_()}, upstream.to(dtype))

    def parts(inputs: Inputs, everything: bool) -> list[Part]:
        def truth(dtype: torch.dtype) -> dict[str, Tensor]:
            x = inputs.tensors["x"].detach().to(dtype)
            assert inputs.upstream is not None
            return {"out": x * x, "dx": 2 * x * inputs.upstream.to(dtype)}

        return [Part("all", truth, lambda _, tensor: tensor)]

    def peer(name: str, function: Any, ours: bool = False, **more: Any) -> None:
        def make(inputs: Inputs) -> Run:
            asked.append(f"{name} {inputs.spec}")
            x = inputs.tensors["x"]
            return Run(
                inputs,
                lambda: function(x),
                grads_of(inputs),
                lambda out, grads: {"out": out, "dx": grads[0]},
            )

        available = more.pop("available", lambda _: None)
        register_peer(Peer("square", name, "", available, make, ours=ours, **more))

    register_op(
        Op("square", "x squared", ("fwd", "bwd", "fwd+bwd"), build, parts,
           lambda size, dtype: {"fwd": Work(2 * size * dtype.itemsize, size)})
    )  # fmt: skip
    register_case(
        Case("square", "one", "", lambda scale: {"full": 5000, "small": 70, "smoke": 7}[scale])
    )
    peer("product", lambda x: x * x, ours=True)
    peer("wrong", lambda x: x * x * 1.1)
    peer("wrong at size", lambda x: x * x * (1.1 if len(x) > 100 else 1.0))
    peer("absent", None, available=lambda _: "not here")
    peer("narrow", None, supports=lambda size: "too wide" if size > 10 else None)
    peer("large", lambda x: x * x, full_only=True)
    peer("large and wrong", lambda x: x + x, full_only=True)
    peer("lazy", _lazy)
    peer("lazy of ours", _lazy, ours=True)
    yield asked


def _measure(out: Path | None = None, **more: Any) -> Any:
    found = list(cases_module._cases.values())
    settings = Settings(torch.device("cpu"), torch.float32, options=QUICK, **more)
    said: list[str] = []
    everyone = select_peers("all", ["square"])
    return measure_cases(found, everyone, settings, out=out, say=said.append), said


def test_no_time_without_a_green_gate(square: list[str], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    report, said = _measure(path)
    status = {row.provider: row.gate for row in report.find(metric="none")}
    assert status == {
        "wrong": "red", "wrong at size": "red", "absent": "unavailable", "narrow": "unsupported",
        "lazy": "unsupported", "lazy of ours": "failed", "large and wrong": "red",
    }  # fmt: skip
    timed = report.find(metric="time")
    assert {row.provider for row in timed} == {"product", "large", "canary"}
    assert {(r.mode, r.cache) for r in timed if r.provider == "product"} == {
        (mode, cache) for mode in ("fwd", "bwd", "fwd+bwd") for cache in ("cold", "warm")
    }
    (row,) = report.find(provider="product", mode="fwd", cache="cold")
    assert row.bytes == 40_000 and row.flops == 5000 and row.ours and row.n == 2
    assert row.floor_ms and row.share_of_copy == pytest.approx(row.floor_ms / row.p50)
    (why,) = report.find(provider="wrong at size", metric="none")
    assert why.detail.startswith("all: out: ")
    assert load(path) == [report] and report.header["finished"] is True
    assert any("wrong" in line and "red: all: out" in line for line in said)
    # The wrong one was never built at full size, the absent and the narrow ones never at all.
    assert square.count("wrong 70") == 1 and "wrong 5000" not in square
    assert "wrong at size 5000" in square and "large 70" not in square
    assert not any(line.startswith(("absent", "narrow")) for line in square)


def test_smoke_is_small_and_marked(square: list[str]) -> None:
    report, _ = _measure(smoke=True)
    assert report.smoke and all(row.smoke for row in report.rows)
    assert "product 7" in square and "product 5000" not in square


def test_a_case_that_breaks_loses_itself_only(square: list[str], tmp_path: Path) -> None:
    def broken(scale: str) -> int:
        return -1

    register_case(Case("square", "broken", "", broken))
    register_case(Case("square", "two", "", lambda scale: 20))
    path = tmp_path / "results.json"
    report, said = _measure(path)
    assert list(report.header["given_up"]) == ["square broken"]
    assert {row.case for row in load(path)[0].find(metric="time")} == {"one", "two"}
    assert any("given up" in line for line in said)


def test_the_limit_leaves_cases_out_and_says_so(square: list[str]) -> None:
    report, said = _measure(limit_s=-1.0)
    assert report.rows == [] and report.header["finished"] is False
    assert said == [said[0]] and "1 cases left out" in said[0]


# The command line --------------------------------------------------------------------------------


def _environment(**more: str) -> dict[str, str]:
    """Without the interpreter, in which a launch takes a second."""
    return {**{k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}, **more}


def test_smoke_run_of_everything(tmp_path: Path) -> None:
    path = tmp_path / "smoke.json"
    run = subprocess.run(
        [sys.executable, "-m", "kernels.bench", "--smoke", "--out", str(path), "--device", "cpu"],
        cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("SMOKE RUN")
    (report,) = load(path)
    assert report.smoke and report.header["finished"]
    load_ops()
    wanted = {(case.op, case.name) for case in cases_module.select_cases(None, None)}
    timed = [row for row in report.find(metric="time") if row.ours]
    assert {(row.op, row.case) for row in timed} == wanted
    assert report.find(metric="time", provider="sdpa_flash", case="P1")[0].computes == (
        "causal on the same documents"
    )
    assert not report.find(gate="red") and not report.find(gate="failed")
    assert len(report.header["sources_sha256"]) == 64


def test_table_and_append(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "smoke.json"
    only = ["--op", "intervals", "--case", "P1", "--device", "cpu", "--smoke"]
    assert main([*only, "--out", str(path), "--plot", str(tmp_path)]) == 0
    assert (tmp_path / "intervals-bars.png").stat().st_size > 1000
    assert main([*only, "--out", str(path), "--append", "--peers", "ours"]) == 0
    assert len(load(path)) == 2
    assert main([*only, "--out", str(path)]) == 0
    assert len(load(path)) == 1
    capsys.readouterr()
    assert main(["--table", str(path)]) == 2
    assert "holds smoke numbers" in capsys.readouterr().err
    assert main(["--table", str(path), "--smoke"]) == 0
    assert "| P1" in capsys.readouterr().out
    readme = tmp_path / "README.md"
    readme.write_text("<!-- kernels.bench: begin -->\n<!-- kernels.bench: end -->\n")
    assert main(["--table", str(path), "--smoke", "--readme", str(readme)]) == 0
    assert "| P1" in readme.read_text()


def test_list_and_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    for word in ("P1", "BABY", "8192x34", "L128", "flash_attn_4", "varlen", "sdpa_cudnn"):
        assert word in listed
    assert "284" not in listed and "285 documents of 216–230" in listed
    assert main(["--counts", "--case", "P1", "W"]) == 0
    counted = capsys.readouterr().out
    assert "| P1 | fwd | whole documents" in counted and "| W | bwd | tiled |" in counted
    assert "BABY" not in counted


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--op", "tension"], "expected, got 'tension'"),
        (["--case", "P9", "--list"], "expected, got 'P9'"),
        (["--peers", "nobody", "--smoke"], "--peers: all, ours or some of triton,"),
        (["--table", "/nowhere.json"], "/nowhere.json: No such file"),
        (["--readme", "x.md"], "--readme: needs --table"),
        (["--append"], "--append: needs --out"),
        (["--device", "cpu"], "--smoke runs tiny problems"),
    ],
)
def test_one_clear_line_and_exit_code_2(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(args) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1
    assert said.out == ""


def _toy_wheel(folder: Path) -> None:
    info = "toy_peer-1.0.dist-info"
    with zipfile.ZipFile(folder / "toy_peer-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("toy_peer.py", "x = 1\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-peer\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


def test_gpu_script_from_end_to_end(tmp_path: Path) -> None:
    """A smoke run on the CPU in the GPU's place, a wheel, and an archive that is flash-attn-4."""
    wheels, out, unpacked = tmp_path / "wheels", tmp_path / "out", tmp_path / "unpacked"
    wheels.mkdir()
    _toy_wheel(wheels)
    (unpacked / "flash_attn" / "cute").mkdir(parents=True)
    (unpacked / "flash_attn" / "cute" / "__init__.py").write_text("import toy_peer\n")
    with tarfile.open(wheels / "rest.tar.xz", "w:xz") as archive:
        archive.add(unpacked / "flash_attn", "flash_attn")
    env = _environment(
        PYTHON=sys.executable,
        BENCH_COMMIT="feedbeef-dirty",
        BENCH_ARGS="--smoke --device cpu --case 8192x34",
    )
    script = str(ROOT / "kernels" / "bench" / "gpu.sh")
    run = subprocess.run(
        ["bash", script, str(out), str(wheels)],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = {path.name for path in out.iterdir()}
    assert {"results.json", "log.txt", "table.md", "attention-bars.png"} <= found
    first, alone = load(out / "results.json")
    assert (first.header["commit"], first.header["dirty"]) == ("feedbeef", True)
    providers = [{row.provider for row in one.rows} for one in (first, alone)]
    assert "flash_attn_4" not in providers[0] and "sdpa_flash" in providers[0]
    assert "flash_attn_4" in providers[1] and "sdpa_flash" not in providers[1]
    assert "| 8192x34" in (out / "table.md").read_text()
    more = subprocess.run(
        ["bash", script, str(out)], env=env | {"OPS": "intervals", "APPEND": "1"}, cwd=tmp_path,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert more.returncode == 0, more.stderr
    *before, added = load(out / "results.json")
    assert len(before) == 2 and {row.op for row in added.rows} == {"intervals"}
    wrong = subprocess.run(["bash", script], capture_output=True, text=True, timeout=20)
    assert wrong.returncode == 2 and "usage" in wrong.stderr

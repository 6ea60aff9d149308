"""Killed runs go on where they were; ranks share the work; the bytes are the same."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks_eval import run as running
from benchmarks_eval.commands.report import write_page
from benchmarks_eval.judge import Results
from benchmarks_eval.models import named_model
from benchmarks_eval.options import Options
from benchmarks_eval.parts import part_path
from benchmarks_eval.questions import Questions
from benchmarks_eval.report import write_results
from benchmarks_eval.run import evaluate
from benchmarks_eval.tasks import load_tasks

REPO = Path(__file__).parents[2]
FakeMaker = Callable[..., Any]


def _evaluate(book: Path, out: Path, handles: dict[str, Any], *, fresh: bool = False,
              only: list[str] | None = None, **options: Any) -> Results:
    models = [named_model(handle, name, f"runs/{name}") for name, handle in handles.items()]
    suite = load_tasks(book / "tasks.yaml")
    questions = Questions.read(suite.only(only) if only else suite, book, Options(**options))
    results = evaluate(models, questions, out, fresh=fresh)
    assert results is not None
    write_results(results, out)
    write_page(out, questions)
    return results


def _bytes(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*"))
            if path.is_file()}


class Killed(BaseException):
    """What no code of ours catches."""


@pytest.mark.parametrize("calls", [0, 1, 3, 5])
def test_a_run_that_dies_anywhere_ends_in_the_same_bytes(book: Path, tmp_path: Path,
                                                         fake: FakeMaker, calls: int) -> None:
    whole = tmp_path / "whole"
    _evaluate(book, whole, {"a": fake("generative"), "b": fake("contrastive")}, batch_size=2)
    dying, out = fake("generative"), tmp_path / "killed"
    score, left = dying.score_candidates, [calls]

    def die(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return score(*args, **kwargs)

    dying.score_candidates = die
    with pytest.raises(Killed):
        _evaluate(book, out, {"a": dying, "b": fake("contrastive")}, batch_size=2)
    with part_path(out, 0).open("ab") as file:  # and in the middle of a line
        file.write(b'{"model": 0, "file": "sco')
    again = fake("generative")
    _evaluate(book, out, {"a": again, "b": fake("contrastive")}, batch_size=2)
    assert _bytes(out) == _bytes(whole)
    # Two prompts a batch; finished batches are not asked again.
    assert calls < 2 or len(again.seen) < 12


def test_a_death_while_merging_loses_nothing(book: Path, tmp_path: Path, fake: FakeMaker,
                                             monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    _evaluate(book, whole, {"a": fake("generative")})
    for step in range(3):  # scores.jsonl, captions.jsonl, then the parts go
        out, left = tmp_path / str(step), [step]

        def die(original: Callable[..., Any], left: list[int] = left) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return original(*args, **kwargs)
            return call

        with monkeypatch.context() as patch:
            patch.setattr(running, "write_atomically", die(running.write_atomically))
            patch.setattr(running.parts, "remove_parts", die(running.parts.remove_parts))
            with pytest.raises(Killed):
                _evaluate(book, out, {"a": fake("generative")})
        again = fake("generative")
        _evaluate(book, out, {"a": again})
        assert again.seen == []
        assert _bytes(out) == _bytes(whole)


def test_a_finished_run_asks_nothing_again(book: Path, tmp_path: Path, fake: FakeMaker) -> None:
    _evaluate(book, tmp_path, {"a": fake("generative")})
    before, again = _bytes(tmp_path), fake("generative")
    _evaluate(book, tmp_path, {"a": again})
    assert again.seen == [] and again.orders == [] and _bytes(tmp_path) == before


def test_another_plan_is_refused_and_fresh_starts_anew(book: Path, tmp_path: Path,
                                                       fake: FakeMaker) -> None:
    _evaluate(book, tmp_path, {"a": fake("generative")})
    before = _bytes(tmp_path)
    for handles, options, said in (
        ({"a": fake("generative", weights_hash="trained on")}, {}, "models"),
        ({"a": fake("generative")}, {"seed": 1}, r"options \(seed\)"),
        ({"a": fake("generative")}, {"only": ["phrases"]}, r"suite \(tasks\)"),
    ):
        with pytest.raises(ValueError, match=f"another plan: its {said} differ") as error:
            _evaluate(book, tmp_path, handles, **options)
        assert "--fresh" in str(error.value) and "\n" not in str(error.value)
    assert _bytes(tmp_path) == before
    csv = book / "two_word.csv"
    csv.write_text(csv.read_text().replace("red thing,green thing", "red thing,brown thing"))
    with pytest.raises(ValueError, match=r"data \(phrases\)"):
        _evaluate(book, tmp_path, {"a": fake("generative")})
    again = fake("generative")
    _evaluate(book, tmp_path, {"a": again}, fresh=True)
    assert len(again.seen) == 12


def test_memory_that_runs_out_splits_a_batch_and_is_said_once(
        book: Path, tmp_path: Path, fake: FakeMaker, caplog: pytest.LogCaptureFixture) -> None:
    def short(call: Callable[..., Any]) -> Callable[..., Any]:
        def limited(features: Any, *args: Any, **kwargs: Any) -> Any:
            if len(features) > 3:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return call(features, *args, **kwargs)
        return limited

    whole = _evaluate(book, tmp_path / "whole", {"a": fake("generative")})
    tight = fake("generative")
    for name in ("score_candidates", "generate", "image_features"):
        setattr(tight, name, short(getattr(tight, name)))
    split = _evaluate(book, tmp_path / "split", {"a": tight})
    assert split.to_json() == whole.to_json()
    assert _bytes(tmp_path / "split")["a/scores.jsonl"] == _bytes(
        tmp_path / "whole")["a/scores.jsonl"]
    assert caplog.text.count("split in two") == 1

    none = fake("generative")
    none.score_candidates = lambda *_, **__: (_ for _ in ()).throw(MemoryError())
    with pytest.raises(ValueError, match="out of memory with a single candidate of 'images/"):
        _evaluate(book, tmp_path / "none", {"a": none})
    other = fake("generative")
    other.score_candidates = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        _evaluate(book, tmp_path / "bug", {"a": other})


# Real processes --------------------------------------------------------------------------------


def _command(book: Path, models: list[str], out: Path, *more: str) -> list[str]:
    return ["-m", "benchmarks_eval", "run", "--model", *models, "--tasks",
            str(book / "tasks.yaml"), "--out", str(out), "--device", "cpu", "--batch-size", "2",
            "--features", str(out.with_name(out.name + "-features")), *more]


def _environment(**more: str) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"} | more


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _ranks(command: list[str], world: int = 2) -> list[subprocess.Popen[str]]:
    """What torchrun and deepspeed do, without their ten seconds of start-up and supervision."""
    port = str(_port())
    return [subprocess.Popen(
        [sys.executable, *command], cwd=REPO, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank),
                         MASTER_ADDR="127.0.0.1", MASTER_PORT=port)) for rank in range(world)]


def _results(out: Path) -> dict[str, bytes]:
    return {name: data.replace(str(out).encode(), b"OUT") for name, data in _bytes(out).items()}


@pytest.mark.slow
def test_ranks_and_kills_change_no_byte(book: Path, exported: list[str], tmp_path: Path) -> None:
    one, two, killed = tmp_path / "one", tmp_path / "two", tmp_path / "killed"
    done = subprocess.run([sys.executable, *_command(book, exported, one)], cwd=REPO,
                          env=_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ranks = _ranks(_command(book, exported, two))
    said = [rank.communicate(timeout=240) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert "labels" in said[0][0] and said[1][0] == ""  # one rank prints
    assert _results(two) == _results(one)

    wait = random.Random(0).choice([1, 2, 3])
    process = subprocess.Popen([sys.executable, *_command(book, exported, killed)], cwd=REPO,
                               env=_environment(), stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
    part = part_path(killed, 0)
    while process.poll() is None and not (
            part.exists() and part.read_bytes().count(b'"batch"') >= wait):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "results.json").exists(), "too late to kill: nothing was tested"
    ranks = _ranks(_command(book, exported, killed))
    said = [rank.communicate(timeout=240) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], said
    assert "batches are there" in said[0][1]
    assert _results(killed) == _results(one)


@pytest.mark.slow
def test_a_dead_rank_is_noticed_and_nothing_is_lost(book: Path, exported: list[str],
                                                    tmp_path: Path) -> None:
    out = tmp_path / "out"
    ranks = _ranks(_command(book, exported[1:], out))
    part = part_path(out, 1)
    while ranks[1].poll() is None and not (part.exists() and part.stat().st_size):
        time.sleep(0.002)
    ranks[1].send_signal(signal.SIGKILL)
    _, said = ranks[0].communicate(timeout=120)
    ranks[1].communicate()
    if ranks[0].returncode == 0:
        pytest.skip("rank 1 had ended before it could be killed")
    last = said.strip().splitlines()[-1]
    assert ranks[0].returncode == 2 and last.startswith("error: rank 0 of 2: another rank"), said
    assert not (out / "results.json").exists() and part.exists()
    done = subprocess.run([sys.executable, *_command(book, exported[1:], out)], cwd=REPO,
                          env=_environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "batches are there" in done.stderr, done.stderr


@pytest.mark.slow
def test_torchrun_starts_ranks(book: Path, exported: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port",
         str(_port()), *_command(book, exported[:1], out, "--only", "phrases")],
        cwd=REPO, env=_environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert (out / "results.json").is_file() and "phrases" in done.stdout

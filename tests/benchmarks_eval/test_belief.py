"""What has to hold for a figure to be believed: oracle, chance, orders, prompts, batches, chats."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks_eval import metrics
from benchmarks_eval.__main__ import main
from benchmarks_eval.data import Item
from benchmarks_eval.figures import bind, evaluate
from benchmarks_eval.judge import Results
from benchmarks_eval.models import named_model
from benchmarks_eval.options import Options, ScoreOptions
from benchmarks_eval.questions import Questions
from benchmarks_eval.records import read_scores
from benchmarks_eval.run import evaluate as run
from benchmarks_eval.tasks import Task, load_tasks
from benchmarks_eval.trials import Trial

FakeMaker = Callable[..., Any]
KINDS = ("labeled", "two_word", "winoground", "caption", "text_choice", "picture_choice")


def questions(kind: str, number: int = 400) -> list[Item]:
    """Questions of every kind; the right pictures and texts are those without an x."""
    made: list[Item] = []
    for k in range(number):
        cluster = str(k)
        shape = {
            "labeled": ((f"{k}", f"{k}xa", f"{k}xb", f"{k}xc"), (f"t{k}", "xa", "xb", "xc")),
            "two_word": ((f"{k}",), (f"t{k}", f"xt{k}")),
            "winoground": ((f"{k}", f"{k}n"), (f"t{k}", f"t{k}n")),
            "caption": ((f"{k}",), (f"t{k}",)),
            "text_choice": ((f"{k}",), (f"t{k}", f"xa{k}", f"xb{k}")),
            "picture_choice": ((f"{k}", f"{k}xa", f"{k}xb"), (f"t{k}",)),
        }[kind]
        made.append(Item(str(k), *shape, 0, cluster, k + 1))
    return made


def task(kind: str) -> Task:
    form = {"text_choice": "sugarcrepe", "picture_choice": "devbench"}.get(kind, "babyvlm")
    return Task(name="t", kind=kind, file="f", format=form)  # type: ignore[arg-type]


class Scorer:
    """Scores by a function of picture and text."""

    def __init__(self, score: Callable[[str, str], float]) -> None:
        self.score = score

    def matrix(self, trial: Trial) -> np.ndarray:
        return np.array([[self.score(i, t) for t in trial.texts] for i in trial.images])


def noise(image: str, text: str, seed: int = 0) -> float:
    digest = hashlib.blake2b(f"{seed}|{image}|{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


@pytest.mark.parametrize("kind", KINDS)
def test_oracle_constant_and_random_on_every_kind(kind: str) -> None:
    bound = bind(task(kind), questions(kind), ScoreOptions(), 0)
    for measure in bound.measures:
        oracle = evaluate(measure, Scorer(lambda i, t: float(t == f"t{i}")))
        constant = evaluate(measure, Scorer(lambda i, t: -3.25))
        if not measure.share:
            assert oracle.values.min() == 1 and constant.values.max() == 0
            continue
        assert (oracle.values == 1).all() and not any(oracle.tied), measure.name
        assert constant.values.mean() == pytest.approx(measure.chance) and all(constant.tied)
        n = len(measure.trials)
        for seed in range(5):
            random = evaluate(measure, Scorer(lambda i, t, seed=seed: noise(i, t, seed)))
            sd = math.sqrt(measure.chance * (1 - measure.chance) / n)
            assert abs(random.values.mean() - measure.chance) < 4 * sd, (measure.name, seed)


@pytest.mark.parametrize("kind", KINDS)
def test_not_finite_is_wrong_counted_and_never_dropped(kind: str) -> None:
    bound = bind(task(kind), questions(kind, 40), ScoreOptions(), 0)
    bad = [math.nan, math.inf, -math.inf]

    def score(image: str, text: str) -> float:
        return bad[int(text[1:].strip("abn") or 0) % 3] if text in ("t7", "t8", "t9") else float(
            text == f"t{image}")

    for measure in bound.measures:
        got = evaluate(measure, Scorer(score))
        assert len(got.values) == len(measure.trials)
        hit = [any(t in ("t7", "t8", "t9") for t in trial.texts) for trial in measure.trials]
        assert got.nonfinite == sum(hit) > 0
        assert (got.values[hit] == 0).all() and np.isfinite(got.values).all()


def test_equal_to_float32_is_a_tie_and_a_little_more_is_not() -> None:
    for size in (0.3, 5.0, 70.0):
        base = np.float32(-size)
        ulp = float(np.spacing(np.abs(base)))
        near, far = float(base) - 2 * ulp, float(base) * (1 + 3e-5) - 3e-5
        assert metrics.choice(np.array([float(base), near]), 0) == 0.5, size
        assert metrics.choice(np.array([float(base), near]), 1) == 0.5, size
        assert metrics.choice(np.array([float(base), far]), 0) == 1, size
        square = np.array([[float(base), near], [far, float(base)]])
        assert 0 < metrics.WINOGROUND["text"][0](square, 0) < 1


def _run(book: Path, out: Path, handle: Any, **options: Any) -> Results:
    questions = Questions.read(load_tasks(book / "tasks.yaml"), book, Options(**options))
    results = run([named_model(handle, "m", "runs/m")], questions, out)
    assert results is not None
    return results


@pytest.mark.parametrize("kind", ["generative", "contrastive"])
def test_the_order_of_candidates_does_not_matter(book: Path, tmp_path: Path, fake: FakeMaker,
                                                 kind: str) -> None:
    """Other seeds give other orders; a model without ties gets the same credit for each trial."""
    credit: list[dict[str, float]] = []
    orders: list[list[list[str]]] = []
    for seed in range(3):
        handle = fake(kind)
        handle._score = lambda feature, text: -noise(str(feature.sum()), text)
        handle.embed_texts = lambda texts: np.array(
            [[noise(str(k), text) for k in range(6)] for text in texts])
        _run(book, tmp_path / str(seed), handle, seed=seed)
        rows = [json.loads(line) for line in
                (tmp_path / str(seed) / "m" / "trials.jsonl").read_text().splitlines()]
        kept = [row for row in rows if row["task"] != "captions"]  # foils are drawn by the seed
        credit.append({f"{r['task']}/{r['figure']}/{r['id']}": r["credit"] for r in kept})
        orders.append([row["images"] + row["texts"] for row in kept])
    assert credit[0] == credit[1] == credit[2] and len(credit[0]) == 24 * 2 + 12 + 6 * 6
    assert orders[0] != orders[1]


def test_trials_say_what_the_metrics_saw(book: Path, tmp_path: Path, fake: FakeMaker) -> None:
    results = _run(book, tmp_path, fake("generative", skill="nan"))
    rows = [json.loads(line) for line in (tmp_path / "m" / "trials.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"task", "group", "figure", "id", "cluster", "gold", "images", "texts",
                            "scores", "credit", "tie", "tags"}
    for figure in results.figures:
        own = [r for r in rows if (r["task"], r["figure"]) == (figure.task, figure.figure)]
        assert len(own) == figure.n and sum(r["tie"] for r in own) == figure.ties
        assert sum(None in line for r in own for line in r["scores"]) >= figure.nonfinite
        if figure.figure != "bleu4":  # a figure of the whole set, no mean
            assert np.mean([r["credit"] for r in own]) == pytest.approx(figure.value)


class Chat:
    """A chat model that is shown options and names one."""

    kind = "letters"
    tower_hash = "none"
    weights_hash = "chat"

    def __init__(self) -> None:
        self.asked: list[tuple[list[str], list[str], str]] = []

    def image_features(self, images: list[Path]) -> list[Path]:
        return images

    def choose(self, images: list[Path], texts: list[str], *,
               prompt: str = "") -> list[list[float]]:
        self.asked.append(([p.name for p in images], list(texts), prompt))
        right = np.array([[float(i.stem[:-1] in t.split()) for t in texts] for i in images])
        axis = 1 if len(texts) > 1 else 0
        return (right / np.maximum(right.sum(axis=axis, keepdims=True), 1)).tolist()

    def generate(self, features: Any, *, prompt: str = "", max_new_tokens: int = 25) -> list[str]:
        assert all(isinstance(path, Path) for path in features)
        return [f"look at the {path.stem[:-1]} thing" for path in features]

    def record_scores(self, scores: dict[str, Any]) -> None:
        pass


def test_letters_go_through_the_same_run_and_are_marked(book: Path, tmp_path: Path) -> None:
    from benchmarks_eval.report import table

    chat = Chat()
    results = _run(book, tmp_path, chat)
    figures = {f"{f.task}/{f.figure}": f for f in results.figures}
    for name in ("labels/image", "labels/text", "phrases/phrase", "wino/text", "captions/picture",
                 "captions/exact"):
        assert figures[name].value == 1, name
    assert "wino/group" not in figures and "captions/gain" not in figures
    assert all(texts == sorted(texts) and images == sorted(images)
               for images, texts, _ in chat.asked)
    assert len({str(question) for question in chat.asked}) == len(chat.asked)
    text = table(results)
    assert "m (letters)" in text and "another kind of measurement" in text
    records = read_scores(tmp_path / "m" / "scores.jsonl")
    assert all(record.share is not None and key.among for key, record in records.items())
    again = Chat()
    _run(book, tmp_path, again)
    assert again.asked == []


# The engine's models ---------------------------------------------------------------------------


def test_batches_agree_and_prompts_are_not_scored(book: Path, exported: list[str],
                                                  tmp_path: Path) -> None:
    from engine import load

    found = []
    for size in ("1", "7", "auto"):
        out = tmp_path / size
        assert main(["run", "--model", *exported, "--tasks", str(book / "tasks.yaml"), "--device",
                     "cpu", "--batch-size", size, "--out", str(out), "--features", "none",
                     "--prior", "--score-eos", "both"]) == 0
        found.append({kind: read_scores(out / kind / "scores.jsonl")
                      for kind in ("contrastive", "generative")})
    for other in found[1:]:
        for kind in ("contrastive", "generative"):
            assert list(other[kind]) == list(found[0][kind])
            for key, record in other[kind].items():
                first = found[0][kind][key]
                for name in ("logprob_sum", "cosine"):
                    a, b = getattr(record, name), getattr(first, name)
                    assert (a is None and b is None) or abs(a - b) <= 1e-5, key
    handle: Any = load(exported[1], device="cpu")
    for key, record in found[0]["generative"].items():
        assert record.num_tokens == len(key.text.split()) + key.score_eos, key
    for key, record in list(found[0]["generative"].items())[::9]:
        if key.image:
            alone = handle.score_pair(book / key.image, key.text, prompt=key.prompt,
                                      score_eos=key.score_eos)
            assert alone.num_tokens == record.num_tokens
            assert record.logprob_sum == pytest.approx(alone.logprob_sum, abs=1e-5)


def test_texts_that_are_one_to_the_model_tie(exported: list[str], book: Path) -> None:
    from engine import load

    handle: Any = load(exported[1], device="cpu")
    features = handle.image_features([book / "images" / "red0.png"])
    texts = ["zebra thing", "red thing", "walrus thing", "otter thing", "blue thing"]
    (scored,) = handle.score_candidates(features, [texts])
    assert scored[0].logprob_sum == scored[2].logprob_sum == scored[3].logprob_sum
    assert len({one.logprob_sum for one in scored}) == 3


def test_a_second_checkpoint_of_one_tower_runs_no_tower(book: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    import engine.loading
    from tests.benchmarks_eval.conftest import export

    calls: list[int] = []
    original = engine.loading._Loaded.image_features

    def count(self: Any, images: Any) -> Any:
        calls.append(len(images))
        return original(self, images)

    monkeypatch.setattr(engine.loading._Loaded, "image_features", count)
    made = []
    for name, tower, expected in (("a", 0, 12), ("b", 0, 0), ("c", 1, 12)):
        folder = export(tmp_path / name, seed=ord(name), tower_seed=tower)[1]
        calls.clear()
        assert main(["run", "--model", folder, "--tasks", str(book / "tasks.yaml"), "--device",
                     "cpu", "--features", str(tmp_path / "features")]) == 0
        assert sum(calls) == expected, name
        out = tmp_path / name / "eval" / "colours" / "generative"
        made.append((out / "scores.jsonl").read_bytes())
        if not expected:  # and what is read gives what would have been made
            assert main(["run", "--model", folder, "--tasks", str(book / "tasks.yaml"),
                         "--device", "cpu", "--features", "none", "--out",
                         str(tmp_path / "none")]) == 0
            assert (tmp_path / "none" / "generative" / "scores.jsonl").read_bytes() == made[-1]
    assert made[0] != made[1]


def test_bench_times_both_ways_on_the_same_pairs(book: Path, exported: list[str], tmp_path: Path,
                                                 capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--tasks", str(book / "tasks.yaml"), "--device", "cpu"]
    assert main(["bench", "--model", exported[1], *common, "--pairs", "2", "4", "--pictures", "3",
                 "--rounds", "2", "--out", str(tmp_path / "bench.json")]) == 0
    assert "CPU ratio" in capsys.readouterr().out
    tree = json.loads((tmp_path / "bench.json").read_text(encoding="utf-8"))
    assert [(row["candidates"], row["store"]) for row in tree["compared"]] == [
        (2, False), (2, True), (4, False), (4, True)]
    for row in tree["compared"]:
        assert row["difference"] <= 1e-5 and len(row["loop"]) == len(row["ours"]) == 2
    for model, pairs, said in ((exported[0], "2", "this one cannot"),
                               (exported[1], "999", "--pairs 999: the tasks hold")):
        assert main(["bench", "--model", model, *common, "--pairs", pairs]) == 2
        assert said in capsys.readouterr().err

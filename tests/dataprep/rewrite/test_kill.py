"""The command killed at random moments: nothing lost, nothing (batch) or little paid twice."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from support.captions import digests, make_corpus, start

from dataprep.llm import RequestStore
from dataprep.llm.server import Faults, LocalServer
from dataprep.llm.server_state import ServerState
from dataprep.rewrite.rows import Requests, Rows
from dataprep.rewrite.stand_in import RULES
from dataprep.rewrite.template import load_template
from engine import read_corpus

KILLS = int(os.environ.get("REWRITE_KILLS", "6"))
ROWS, CONCURRENCY = 90, 8
FAULTS = {
    "batch": Faults(batch_s=0.05, create_s=0.03, expire=0.05, error_500=0.05, refusal=0.03,
                    length=0.03, bad_content=0.03),
    "one by one": Faults(latency_s=0.01, rate_429=0.02, error_500=0.02, refusal=0.03,
                         length=0.03, bad_content=0.03, retry_after_s=0.02),
}


def keys_and_names(corpus: Path) -> dict[str, str]:
    """Key of every request -> the server's name of it."""
    requests = Requests(Rows(read_corpus(corpus)), load_template(), "m", 0)
    return {request.key: ServerState.name_of(request.body()) for request in requests}


@pytest.mark.parametrize("way", ["batch", "one by one"])
def test_kills_lose_nothing(way: str, tmp_path: Path, record_property) -> None:
    rng = random.Random(5)
    corpus = make_corpus(tmp_path / "general", ROWS)
    names = keys_and_names(corpus)

    def command(server: LocalServer, out: Path) -> list[str | Path]:
        url = ("batch+" if way == "batch" else "") + server.base_url
        return ["--corpus", corpus, "--out", out, "--store", out.with_suffix(".store"),
                "--backend", url, "--model", "m", "--concurrency", str(CONCURRENCY), "--quiet"]

    def undisturbed(name: str) -> tuple[dict[str, str], float]:
        with LocalServer(RULES, FAULTS[way]) as server:
            started = time.monotonic()
            process = start(command(server, tmp_path / name / "new"), tmp_path / "log")
            process.join()
            assert process.exitcode == 0, (tmp_path / "log").read_text()
            assert set(server.state.paid.values()) == {1}
        return digests(tmp_path / name / "new"), time.monotonic() - started

    start(["--corpus", "nowhere", "--out", "x", "--backend", "replay", "--model", "m"],
          tmp_path / "log").join()  # starts the process that forks
    wanted, whole_s = undisturbed("reference")
    figures: Counter[str] = Counter()
    while figures["kills"] < KILLS:
        figures["rounds"] += 1
        out = tmp_path / f"round{figures['rounds']}" / "new"
        with LocalServer(RULES, FAULTS[way]) as server:
            while True:
                process = start(command(server, out), tmp_path / "log")
                more = figures["kills"] < KILLS
                process.join(rng.uniform(0.0, 0.6 * whole_s) if more else None)
                if process.exitcode is None:
                    process.kill()
                    process.join()
                    figures["kills"] += 1
                else:
                    assert process.exitcode == 0, (tmp_path / "log").read_text()[-2000:]
                    break
            assert digests(out) == wanted
            paid = server.state.paid
            assert set(paid) == set(names.values())
            sent: Counter[str] = Counter()
            with RequestStore(out.with_suffix(".store")) as store:
                assert set(names) == {key for key in names if key in store}
                answers: Counter[str] = Counter()
                for _, line in store.journal():
                    if line["kind"] == "sent":
                        sent.update(line["keys"])
                    answers.update([line["key"]] if line["kind"] == "reply" else [])
                assert set(answers.values()) == {1}
            twice = sum(paid.values()) - len(paid)
            figures["paid twice"] += twice
            if way == "batch":
                assert twice == 0
            else:
                under_way = sum(sent.values()) - len(sent)
                figures["under way at a kill"] += under_way
                assert all(paid[name] <= sent[key] for key, name in names.items())
                assert twice <= under_way
    assert figures["under way at a kill"] <= figures["kills"] * CONCURRENCY
    print(f"{way}: {dict(figures)}, undisturbed {whole_s:.2f} s")
    record_property("figures", dict(figures))

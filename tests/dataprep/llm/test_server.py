"""The local server as a thing of its own: what it says to a client that is not ours."""

from __future__ import annotations

import signal
import subprocess
import sys

import openai
import pytest

from dataprep.llm.backends import open_backend
from dataprep.llm.faults import Faults
from dataprep.llm.server import LocalServer, load_rules, main


@pytest.fixture
def client(rules):
    with LocalServer(rules, Faults(batch_s=0.2)) as server:
        yield openai.OpenAI(api_key="none", base_url=server.base_url, max_retries=0)


def test_completions_parse_with_the_clients_own_types(client) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "echo", "schema": {}}}
    said = client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "ball"}], response_format=shape)
    assert said.choices[0].message.content == '{"word": "ball"}'
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens
    with pytest.raises(openai.BadRequestError, match="no rule for schema ''; known: echo"):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])


def test_batches_go_through_their_states_and_are_listed_in_pages(client) -> None:
    file = client.files.create(file=("f.jsonl", b"\r\n\r\n--x\r\n"), purpose="batch")
    assert client.files.content(file.id).content == b"\r\n\r\n--x\r\n"
    empty = client.files.create(file=("e.jsonl", b"\n"), purpose="batch").id
    made = [client.batches.create(completion_window="24h", endpoint="/v1/chat/completions",
                                  input_file_id=empty, metadata={"n": str(n)}) for n in range(5)]
    assert made[0].status == "in_progress"
    found = list(client.batches.list(limit=2))
    assert [batch.metadata["n"] for batch in found] == ["4", "3", "2", "1", "0"]
    while client.batches.retrieve(made[0].id).status == "in_progress":
        pass
    assert client.batches.retrieve(made[0].id).status == "completed"
    assert client.files.delete(empty).deleted
    for wrong in (lambda: client.files.content(empty), lambda: client.files.delete(empty),
                  lambda: client.batches.retrieve("batch_9"), lambda: client.images.generate(
                      prompt="x", model="m")):
        with pytest.raises(openai.NotFoundError):
            wrong()
    with pytest.raises(openai.BadRequestError, match="No such File"):
        client.batches.create(completion_window="24h", endpoint="/v1/chat/completions",
                              input_file_id=empty)


def test_faults_depend_on_seed_and_request_alone() -> None:
    names = [f"request {n}" for n in range(2000)]
    faults = Faults(seed=1, refusal=0.2, length=0.1, rate_429=0.3)
    found = [faults.lasting(name) for name in names]
    assert found == [Faults(seed=1, refusal=0.2, length=0.1).lasting(name) for name in names]
    assert found != [Faults(seed=2, refusal=0.2, length=0.1).lasting(name) for name in names]
    assert 340 < found.count("refusal") < 460
    assert {faults.passing(name, 1) for name in names} == {None}
    assert 500 < sum(faults.passing(name, 0) == "rate_429" for name in names) < 700


def test_rules_are_loaded_by_name(capsys) -> None:
    assert set(load_rules(["dataprep.rewrite.stand_in:RULES"])) == {"rewrite-v1"}
    for wrong in ("nowhere:RULES", "dataprep.rewrite.stand_in:NONE", "dataprep", ""):
        with pytest.raises(ValueError, match=f"--rules {wrong}: .*accepted: module:NAME"):
            load_rules([wrong])
    with pytest.raises(SystemExit):
        main(["--rules", "nowhere:X"])
    assert "accepted: module:NAME" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_runs_as_a_command(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "dataprep.llm.server", "--port", "0", "--latency-s", "0.01",
               "--rules", "dataprep.rewrite.stand_in:RULES"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True,
                               env={"PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    try:
        url, *rest = process.stdout.readline().split()
        assert "no language model" in " ".join(rest)
        client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
        said = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Caption: a red ball on grass"}],
            response_format={"type": "json_schema", "json_schema": {
                "name": "rewrite-v1", "schema": {}}})
        assert "red ball" in (said.choices[0].message.content or "")
        process.send_signal(number)
        assert "1 answers given" in process.communicate(timeout=20)[0]
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()


def test_backends_by_name(monkeypatch, rules, tmp_path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    for spec, name, origin in (
        ("openai-batch", "batch", "https://api.openai.com/v1"),
        ("openai", "openai", "https://api.openai.com/v1"),
        ("http://here:8000/v1/", "compatible", "http://here:8000/v1"),
        ("batch+http://here/v1", "batch", "http://here/v1"),
        ("replay", "replay", "replay"),
        ("stand-in", "stand-in", "stand-in"),
    ):
        with open_backend(spec, rules=rules) as backend:
            assert (backend.name, backend.origin) == (name, origin)
    with pytest.raises(ValueError, match="accepted: openai-batch"), open_backend("openal"):
        pass

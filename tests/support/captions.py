"""A corpus of captioned pictures, and runs of the rewriting command in killable processes."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import multiprocessing
import os
import resource
import sys
import threading
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import openai
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from dataprep.provenance.version import code_version
from dataprep.rewrite import cli
from engine import CorpusWriter, Source

# What a fork inherits, so that it starts in milliseconds.
_client = openai.OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
_ = (_client.chat.completions, _client.batches, _client.files, code_version())

_TESTS = Path(__file__).parents[1]

_THINGS = "dog ball cup cat tree shoe car apple duck book".split()
_COLOURS = "red blue green small big soft".split()
_ODD = "company logo on white", "a missile on a launch pad", "glass of wine", "in the"


def caption(number: int) -> str:
    if number % 9 == 8:
        return f"{_ODD[number % 4]} {number}"
    return f"a {_COLOURS[number % 6]} {_THINGS[number % 10]} with number {number}"


def make_corpus(path: Path, count: int, changed: Sequence[int] = ()) -> Path:
    """Write `count` captions over count/2 pictures; captions of rows in `changed` differ."""
    with CorpusWriter(path, name="general", version="1", image_size=16,
                      sources=[Source("ours", "CC0-1.0", "")], made_by={}) as writer:
        for number in range(0, count, 2):
            split = "train" if number % 10 else "val"
            picture = np.full((16, 16, 3), number % 256, np.uint8)
            image = writer.add_image(split, picture, view=f"v{number}", source="ours")
            for row in range(number, min(number + 2, count)):
                text = caption(row) + (" again" if row in changed else "")
                writer.add_pair(image, text, source="ours", group=f"g{row}")
        numbers = list(range((count + 1) // 2))  # ids of pictures, as add_image counts them
        names = [f"{number}.jpg" for number in numbers]
        files = pa.table({"image": pa.array(numbers, pa.int64()), "file": names})
        pq.write_table(files, writer.add_file("origins.parquet"))
    return path


def rewrite(*words: str | Path) -> int:
    """Run the command in this process; its exit status."""
    parser = argparse.ArgumentParser()
    cli.add_commands(parser.add_subparsers())
    arguments = parser.parse_args(["rewrite", *map(str, words)])
    try:
        arguments.run(arguments)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _child(words: Sequence[str], log: str, fast_batches: bool, file_bytes: int) -> None:
    tqdm.set_lock(threading.RLock())  # its own leaves a semaphore behind when killed
    if file_bytes:  # the kernel refuses larger files, as a full disk would
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    if fast_batches:  # the command itself looks after seconds, as the real service needs
        from dataprep.llm import openai_batch

        defaults = openai_batch.OpenAIBatch.__init__.__kwdefaults__
        defaults |= {"poll_s": 0.02, "settle_s": 0.0, "first_wait_s": 0.02, "max_requests": 40}
        from dataprep.llm import openai_sync

        openai_sync.OpenAISync.__init__.__kwdefaults__ |= {"first_wait_s": 0.02}
    with (
        Path(log).open("a") as file,
        contextlib.redirect_stderr(file), contextlib.redirect_stdout(file),
    ):
        status = rewrite(*words)
    os._exit(status)


def start(
    words: Sequence[str | Path], log: Path, fast_batches: bool = True, file_bytes: int = 0
) -> BaseProcess:
    """Start the command in a process of its own (ready in milliseconds)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.captions"])
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (_TESTS.parent, _TESTS)))
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    process = context.Process(
        target=_child, args=([*map(str, words)], str(log), fast_batches, file_bytes)
    )
    process.start()
    return process


def digests(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*")) if file.is_file()
    }

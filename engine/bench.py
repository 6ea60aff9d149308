"""``python -m engine.bench``: what the data path and the feature store are worth, in one run.

Four tables: pictures per second of the two loaders; real tokens in a packed row beside padded
batches; the time of an epoch of the connector and joint phases with the tower in the loop, with the
feature store, and for the language model alone; and a step with our losses and row ops beside
plain PyTorch's.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine import bench_loader, bench_ops, zero
from engine.assemble import TRAIN, assemble
from engine.batches import Plan
from engine.checkpoints import Checkpoints
from engine.config import parse_config
from engine.corpus import CorpusWriter, Source
from engine.feed import Feed, StepBatch
from engine.files import write_atomically
from engine.loop import PhaseRun
from engine.stopping import Stop

log = logging.getLogger("babyvlm")

IMAGE_TOKENS = 49


def caption_lengths(num: int, seed: int = 0) -> np.ndarray:
    """Lengths like BabyVLM's: 49 picture tokens and 3 to 62 words, log-normal, mean about 60."""
    rng = np.random.default_rng(seed)
    words = np.clip(np.round(rng.lognormal(np.log(9.5), 0.55, num)), 3, 62)
    return (IMAGE_TOKENS + words).astype(np.int64)


def packing_shares(lengths: np.ndarray) -> dict[str, float]:
    """Share of real tokens of each way to batch ``lengths``."""
    order = np.random.default_rng(1).permutation(len(lengths))
    shuffled = lengths[order]

    def padded(batches: list[np.ndarray]) -> float:
        return float(lengths.sum() / sum(len(b) * b.max() for b in batches))

    def cut(values: np.ndarray, size: int) -> list[np.ndarray]:
        return [values[k : k + size] for k in range(0, len(values), size)]

    # As Hugging Face's LengthGroupedSampler: sort within 50 batches at a time.
    grouped = [b for mega in cut(shuffled, 50 * 64) for b in cut(np.sort(mega), 64)]
    shares = {
        "pad to the longest of the corpus": padded([np.append(shuffled, lengths.max())]),
        "pad to the longest of a batch of 64": padded(cut(shuffled, 64)),
        "batches of 64 of like lengths": padded(grouped),
    }
    for budget in (4096, 8192, 16384):
        plan = Plan(lengths, budget, 1, seed=0, phase="bench")
        # The last row of an epoch is as short as it is; it is counted full here too.
        shares[f"packed row of {budget:,}"] = float(lengths.sum() / (plan.num_steps * budget))
    return shares


def _store_corpus(path: Path, num: int, side: int) -> None:
    rng = np.random.default_rng(0)
    words = [f"w{k}" for k in range(500)]
    source = Source("noise", "CC0-1.0", "", "made by this benchmark")
    with CorpusWriter(path, name="bench", version="1", image_size=side, sources=[source],
                      made_by={"seed": 0}) as writer:
        for k in range(num):
            picture = bench_loader.natural_picture(rng, side)
            image = writer.add_image(TRAIN, picture, view=str(k), source="noise")
            text = " ".join(rng.choice(words, int(rng.integers(4, 15))))
            writer.add_pair(image, text, source="noise", group=str(k))


def epoch_times(num: int, tower: str, side: int, tokens: int) -> dict[str, Any]:
    """Seconds of one epoch of each phase: tower in the loop, feature store, decoder alone."""
    result: dict[str, Any] = {"pictures": num, "tower": tower, "tokens_per_step": tokens}
    world = zero.start(600)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _store_corpus(root / "corpus", num, side)
        for name, train in (("connector", ["connector"]), ("joint", ["connector", "decoder"])):
            tree = _config(root, tower, side, tokens, name, train)
            for store in ("off", "on"):
                config = parse_config(tree | {"features": {"store": store}}, where="bench")
                assembly = assemble(config)
                checkpoints = Checkpoints(root / "run", config.checkpoints, world, "bench")
                run = PhaseRun(assembly, config.phases[0], root / "run", world, checkpoints,
                               Stop(config.stop, root))
                calls = _count_calls(run.tower)
                key = "feature store" if store == "on" else "tower in the loop"
                seconds = _epoch(run, lambda batch, run=run: run.step(batch, 1e-4))
                result.setdefault(name, {})[key] = seconds
                result[name][f"{key}: tower forwards"] = calls["count"]
                if store == "on":
                    result[name]["decoder alone"] = _decoder_alone(run)
                run.close()
    zero.stop()
    return result


def _config(root: Path, tower: str, side: int, tokens: int, name: str,
            train: list[str]) -> dict[str, Any]:
    phase = {"name": name, "objective": "generative", "train": train, "tokens_per_step": tokens}
    return {
        "name": "bench", "run_dir": str(root / "run"), "corpus": str(root / "corpus"),
        "model": {"image_size": side, "vision": {"name": tower}},
        "tokenizer": {"min_count": 1}, "log": {"tensorboard": False}, "phases": [phase],
        "zero": {"precision": "fp32"},
    }


def _count_calls(tower: Any) -> dict[str, int]:
    calls = {"count": 0}

    def hook(*_: Any) -> None:
        calls["count"] += 1

    tower.register_forward_hook(hook)
    return calls


def _epoch(run: PhaseRun, step: Callable[[StepBatch], object]) -> float:
    """Seconds of one epoch of ``step``, best of two, after one step that is not counted."""
    times = []
    for attempt in range(2):
        feed = Feed(run.maker, run.stream(TRAIN), 0, run.plan.num_steps)
        began, counted = time.perf_counter(), 0
        for batch in feed:
            step(batch)
            if attempt == 0 and batch.step == 0:
                began = time.perf_counter()
            else:
                counted += 1
        feed.close()
        times.append((time.perf_counter() - began) * run.plan.num_steps / counted)
    return min(times)


def _decoder_alone(run: PhaseRun) -> float:
    """The same rows through the decoder in plain PyTorch: no picture, connector or ZeRO."""
    decoder = run.model.decoder
    trained = [p for p in decoder.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None
    run.maker.pictures = None

    def step(batch: StepBatch) -> None:
        row = batch.micros[0].row
        assert row is not None
        # Stands for the connector's output: gradients flow back to it in both phases.
        pictures = torch.zeros(row.num_tokens, decoder.config.width, requires_grad=True)
        x = decoder.embed(row.tokens) + pictures
        hidden = decoder(x, row.positions, row.intervals(run.model.prefix_attention))
        loss = decoder.vocabulary(hidden=hidden[row.loss_rows], targets=row.targets)
        (loss / batch.num_targets).backward()
        if optimizer is not None:
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()

    return _epoch(run, step)


def report(results: dict[str, Any]) -> str:
    """The tables as text."""
    lines = []
    if "loader" in results:
        lines += ["", "loader: random resized crop to 224 from 256-px JPEG, normalised to float32"]
        for row in results["loader"]:
            lines.append("  " + "  ".join(f"{k} {_value(v)}" for k, v in row.items()))
        for workers in dict.fromkeys(row["workers"] for row in results["loader"]):
            ours, peer = (r for r in results["loader"] if r["workers"] == workers)
            wall, cpu = (ours[k] / peer[k] for k in ("images_per_s", "images_per_cpu_s"))
            lines.append(f"  workers {workers}: FFCV is {wall:.2f}x as fast, {cpu:.2f}x per "
                         "CPU-second")
    if "packing" in results:
        lines += ["", "real tokens among all that are computed (49 + about 11 tokens a document)"]
        lines += [f"  {share:7.2%}  {name}" for name, share in results["packing"].items()]
    if "store" in results:
        store = results["store"]
        lines += ["", f"epoch of {store['pictures']} pictures, {store['tower']}, "
                      f"{store['tokens_per_step']:,} tokens a step, babygpt2"]
        for phase in ("connector", "joint"):
            times = store[phase]
            tower, stored, alone = (
                times[k] for k in ("tower in the loop", "feature store", "decoder alone")
            )
            lines.append(
                f"  {phase:<10} tower in the loop {tower:.2f} s, feature store {stored:.2f} s "
                f"({tower / stored:.2f}x), decoder alone {alone:.2f} s (store / alone "
                f"{stored / alone:.2f}); tower forwards with the store: "
                f"{times['feature store: tower forwards']}"
            )
    if "ops" in results:
        lines += ["", "forward and backward with our losses and row ops beside plain PyTorch's"]
        for name, row in results["ops"].items():
            lines.append(
                f"  {name:<38} {1e3 * row['ours']:9.2f} ms, plain {1e3 * row['plain']:9.2f} ms, "
                f"ratio {row['ours / plain']:.3f}"
            )
    return "\n".join(lines)


def _value(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m engine.bench", description=__doc__)
    tables = ["loader", "packing", "store", "ops"]
    parser.add_argument("--only", choices=tables, action="append")
    parser.add_argument("--pictures", type=int, default=2000, help="pictures of the loader table")
    parser.add_argument("--store-pictures", type=int, default=256)
    parser.add_argument("--tower", default="resnext50_32x4d", help="tower of the store table")
    parser.add_argument("--size", type=int, default=224, help="its pictures' side in pixels")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of a step")
    parser.add_argument("--repeat", type=int, default=3, help="epochs per loader; the best counts")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    args = parser.parse_args(argv)
    wanted = args.only or tables
    results: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    if "packing" in wanted:
        results["packing"] = packing_shares(caption_lengths(135_000))
    if "loader" in wanted:
        with tempfile.TemporaryDirectory() as folder:
            corpus = bench_loader.make_corpus(Path(folder) / "corpus", args.pictures)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # One worker means one thread, for both loaders.
            results["loader"] = bench_loader.run(corpus, TRAIN, [1, 2], args.repeat)
            torch.set_num_threads(threads)
    if "store" in wanted:
        results["store"] = epoch_times(args.store_pictures, args.tower, args.size, args.tokens)
    if "ops" in wanted:
        results["ops"] = bench_ops.op_costs()
    print(report(results))
    if args.out:
        write_atomically(args.out, json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

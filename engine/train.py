"""Train a baby vision-language model: ``deepspeed engine/train.py --config configs/X.yaml``.

Plain ``python engine/train.py`` works too: one process, the same code.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from pathlib import Path

# Launching a file puts its folder first on the path, where our module names could shadow others'.
_HERE = Path(__file__).resolve().parent
sys.path[:] = [str(_HERE.parent)] + [p for p in sys.path if Path(p or ".").resolve() != _HERE]

log = logging.getLogger("babyvlm")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="engine/train.py", description=__doc__)
    parser.add_argument("--config", required=True, help="YAML file; see configs/")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="override one key, e.g. --set phases.joint.optim.lr=1e-3")
    parser.add_argument("--phase", help="run only this phase")
    parser.add_argument("--resume", choices=["auto", "never"], default="never",
                        help="auto: go on from the newest checkpoint, or start")
    parser.add_argument("--overwrite", action="store_true", help="delete the run directory first")
    parser.add_argument("--init-from", metavar="DIR", help="start from another run's model")
    parser.add_argument("--print-config", action="store_true", help="print the resolved YAML")
    parser.add_argument("--dry-run", action="store_true",
                        help="shapes, parameter counts, memory and steps; no training")
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run; returns the exit code."""
    from engine.launcher import watch_start

    watch_start()
    args = parse_args(argv)
    main_rank = os.environ.get("RANK", "0") == "0"
    try:
        return _run(args)
    except (ValueError, OSError) as error:
        if main_rank or not isinstance(error, ValueError):
            print(f"error: {error}", file=sys.stderr)
        return 2


def _run(args: argparse.Namespace) -> int:
    from engine.config import load_config, to_yaml
    from engine.metrics import set_up_logging

    overrides = list(args.set)
    if args.init_from:
        overrides.append(f"init_from={args.init_from}")
    config = load_config(args.config, overrides)
    if args.phase and args.phase not in [p.name for p in config.phases]:
        names = ", ".join(p.name for p in config.phases)
        raise ValueError(f"--phase {args.phase}: no such phase; accepted: {names}")
    set_up_logging(os.environ.get("RANK", "0") == "0")
    if args.print_config:
        print(to_yaml(config), end="")
        return 0
    if args.dry_run:
        from engine.dry_run import dry_run

        print(dry_run(config))
        return 0
    if args.overwrite and os.environ.get("RANK", "0") == "0":
        _delete_run(Path(config.run_dir))
    from engine.run import run

    return run(config, only=args.phase, resume=args.resume == "auto")


def _delete_run(run_dir: Path) -> None:
    """Empty a run directory that no run is using, and nothing that is not one."""
    from engine.guard import LOCK, RunLock

    if not run_dir.exists():
        return
    found = [path for path in run_dir.iterdir() if path.name != LOCK]
    if found and not (run_dir / "config.yaml").exists():
        raise ValueError(f"--overwrite: {run_dir} holds no config.yaml, so it is no run directory")
    lock = RunLock(run_dir)
    # config.yaml last: a deletion that is cut short leaves what can be deleted again.
    for path in sorted(found, key=lambda path: path.name == "config.yaml"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    lock.release()


if __name__ == "__main__":
    sys.exit(main())

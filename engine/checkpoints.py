"""Checkpoints: written to a temporary name, hashed, flushed, renamed. A name means it is whole."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from engine.files import fsync, fsync_tree, sha256_file
from engine.guard import require_space
from engine.schema import Section

if TYPE_CHECKING:
    from engine.zero import World, Zero

log = logging.getLogger("babyvlm")

MANIFEST = "manifest.json"
_TEMPORARY, _DOOMED = ".tmp-", ".old-"


class CheckpointConfig(Section):
    """How often a run saves and what it keeps."""

    every: int = Field(default=500, ge=0)
    """Steps between checkpoints; 0 = only at the end of each phase and when stopped."""

    keep_last: int = Field(default=2, ge=1)
    """Newest checkpoints that survive rotation (the best one always does)."""

    keep_every: int = Field(default=0, ge=0)
    """Keep the checkpoints whose step is a multiple of this for good, each with its own exported
    ``model/``, so that learning curves can be drawn; 0 = none."""

    reserve_bytes: int = Field(default=200_000_000, ge=0)
    """Free disk space that must remain after a save."""


@dataclass
class Progress:
    """Everything about a run that is not in DeepSpeed's shards. Floats survive JSON exactly."""

    phase: str
    """Phase that the step belongs to."""
    step: int
    """Optimizer steps done in the whole run."""
    phase_step: int
    """Optimizer steps done in this phase: the data position and the schedule follow from it."""
    world_size: int
    """Ranks that wrote the shards."""
    kind: str = "generative"
    """Kind of model: contrastive or generative."""
    falls: int = 0
    """Plateaus of the learning rate so far."""
    bad: int = 0
    """Validations since the last improvement."""
    best: float | None = None
    """Best validation loss of the phase."""
    best_step: int | None = None
    """Step of the best validation loss."""
    words_seen: int = 0
    """Text tokens trained on so far."""
    pairs_seen: int = 0
    """Pairs trained on so far."""
    window: dict[str, float] = field(default_factory=dict)
    """Sums of the log window that was open at the save."""
    validation: dict[str, float] = field(default_factory=dict)
    """Last validation loss per phase."""


@dataclass(frozen=True)
class CheckpointInfo:
    """One checkpoint of a run, as :func:`list_checkpoints` finds it."""

    path: Path
    step: int
    phase: str
    kind: str
    words_seen: int
    pairs_seen: int
    model: Path | None
    """Exported model of this step, where the checkpoint was kept for good."""


def list_checkpoints(run: str | Path) -> list[CheckpointInfo]:
    """All whole checkpoints of a run directory, by step.

    Raises ``ValueError`` when the directory holds no run.
    """
    root = Path(run) / "checkpoints"
    if not root.is_dir():
        raise ValueError(f"{run}: no run directory (no checkpoints/ in it)")
    found = []
    for path in sorted(root.glob("step-*")):
        progress = read_manifest(path)["progress"]
        model = path / "model"
        found.append(CheckpointInfo(
            path, progress["step"], progress["phase"], progress["kind"], progress["words_seen"],
            progress["pairs_seen"], model if model.is_dir() else None,
        ))
    return sorted(found, key=lambda info: info.step)


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of one checkpoint; ``ValueError`` when it is missing or unreadable."""
    try:
        return json.loads((path / MANIFEST).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not a checkpoint ({MANIFEST}: {error})") from None


def verify(path: Path) -> dict[str, Any]:
    """The manifest, after comparing every file's size and hash with it."""
    manifest = read_manifest(path)
    for name, facts in manifest["files"].items():
        file = path / name
        if not file.is_file() or file.stat().st_size != facts["size"]:
            raise ValueError(f"{path}: damaged: {name} is missing or has another size")
        if sha256_file(file) != facts["sha256"]:
            raise ValueError(f"{path}: damaged: {name} has another hash than its manifest")
    return manifest


def remove(path: Path) -> None:
    """Delete a checkpoint; its name goes first, so that a name always means a whole one."""
    doomed = path.with_name(f"{_DOOMED}{path.name}")
    path.rename(doomed)
    shutil.rmtree(doomed)


def commit(temporary: Path, final: Path) -> None:
    """Make ``temporary`` (already flushed) appear under ``final`` in one step."""
    if final.exists():
        remove(final)
    temporary.rename(final)
    fsync(final.parent)


class Checkpoints:
    """The ``checkpoints/`` directory of a run."""

    def __init__(self, run_dir: Path, config: CheckpointConfig, world: World, digest: str) -> None:
        self.root, self.config = run_dir / "checkpoints", config
        self.world, self.digest = world, digest
        if world.main:
            self.root.mkdir(parents=True, exist_ok=True)
            # Saves and deletions that were killed: no name of theirs is a checkpoint's.
            for leftover in (*self.root.glob(f"{_TEMPORARY}*"), *self.root.glob(f"{_DOOMED}*")):
                shutil.rmtree(leftover)
        world.barrier()

    def path(self, step: int) -> Path:
        """Directory of one step's checkpoint."""
        return self.root / f"step-{step:07d}"

    def save(
        self, zero: Zero, progress: Progress, *, estimate: int,
        export: Callable[[Path], None] | None = None,
    ) -> Path:
        """Write the checkpoint of ``progress.step``; all ranks call it.

        Args:
            estimate: bytes the save will take, checked against the free space first.
            export: writes the model of this step into the directory it is given
                (collective: every rank calls it).

        Raises ``ValueError`` when the disk is too full; nothing half-written stays.
        """
        final = self.path(progress.step)
        temporary = self.root / f"{_TEMPORARY}{final.name}"
        require_space(self.root, estimate + self.config.reserve_bytes, f"checkpoint {final.name}")
        if self.world.main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.world.barrier()
        try:
            zero.save(temporary)
            if export is not None:
                export(temporary / "model")
            self.world.barrier()
            if self.world.main:
                self._seal(temporary, progress)
                commit(temporary, final)
        except (OSError, RuntimeError) as error:
            if self.world.main:
                shutil.rmtree(temporary, ignore_errors=True)
            # torch names a full disk "unexpected pos" (its own count) or "file write failed".
            text = str(error)
            if isinstance(error, OSError) or "inline_container" in text or "write" in text:
                raise ValueError(f"{final}: could not be saved: {error}") from error
            raise
        self.world.barrier()
        self._rotate(progress)
        return final

    def _seal(self, temporary: Path, progress: Progress) -> None:
        files = {
            str(f.relative_to(temporary)): {"size": f.stat().st_size, "sha256": sha256_file(f)}
            for f in sorted(temporary.rglob("*")) if f.is_file()
        }
        manifest = {
            "format": 1, "digest": self.digest, "progress": asdict(progress), "files": files,
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        fsync_tree(temporary)

    def kept_for_good(self, step: int) -> bool:
        """True for steps that ``keep_every`` exempts from rotation."""
        return self.config.keep_every > 0 and step % self.config.keep_every == 0

    def _rotate(self, progress: Progress) -> None:
        if not self.world.main:
            return
        steps = sorted(int(p.name.removeprefix("step-")) for p in self.root.glob("step-*"))
        # Later ones than this belong to a past that was damaged and has been run again.
        past = [step for step in steps if step <= progress.step]
        spare = {progress.best_step, *past[-self.config.keep_last :]}
        for step in steps:
            if step > progress.step or not (step in spare or self.kept_for_good(step)):
                remove(self.path(step))

    def newest(self) -> tuple[Path, Progress] | None:
        """The newest whole checkpoint and its progress; None when there is none.

        A checkpoint that fails its hashes is named in the log and passed over; one of another
        model is an error.
        """
        for path in sorted(self.root.glob("step-*"), reverse=True):
            try:
                manifest = verify(path)
            except ValueError as error:
                log.warning("%s; going back to the one before it", error)
                continue
            if manifest["digest"] != self.digest:
                raise ValueError(
                    f"{path}: belongs to another model (digest {manifest['digest'][:12]}, this "
                    f"configuration's is {self.digest[:12]}); use its own config or another run_dir"
                )
            return path, Progress(**manifest["progress"])
        return None

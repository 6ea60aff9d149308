"""The only file that imports DeepSpeed: its configuration from ours, and one wrapped phase.

Every knob that the engine relies on is written out; DeepSpeed's own defaults clip gradients
at 1.0, accumulate in bf16 and synchronise with the host every step.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from pydantic import Field, model_validator
from torch import nn

from engine.optim import OptimConfig
from engine.schema import Section
from kernels import AdamW

log = logging.getLogger("babyvlm")

SHARDS = "shards"
"""Name of the directory within a checkpoint that holds DeepSpeed's files."""


class ZeroConfig(Section):
    """How optimizer states, gradients and parameters are spread over the ranks."""

    stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage. 1 shards optimizer states; at up to 1 B parameters more is rarely needed."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """``bf16`` keeps fp32 master weights (stages 1 to 3); ``auto``: bf16 on GPUs, else fp32."""

    reduce_bucket_size: int = Field(default=500_000_000, ge=1)
    """Elements reduced at once, at most; DeepSpeed reserves that much memory, so that no more
    than the phase's trained parameters are asked for (one bucket)."""

    allgather_bucket_size: int = Field(default=500_000_000, ge=1)
    """Elements gathered at once after the optimizer's step."""

    overlap_comm: bool = False
    """Reduce while the backward pass runs. DeepSpeed's default is off below stage 3 too."""

    timeout_s: int = Field(default=1800, ge=10)
    """A collective that waits longer ends the run."""

    @model_validator(mode="after")
    def _sound(self) -> ZeroConfig:
        if self.stage == 0 and self.precision == "bf16":
            raise ValueError(
                "stage 0 with bf16 keeps no fp32 master weights (each update is rounded to bf16); "
                "accepted: stage 1, 2 or 3, or precision fp32"
            )
        return self


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device
    control: Any
    """A gloo group for bookkeeping that must not wait for the accelerator; None when alone."""

    @property
    def main(self) -> bool:
        """True on the rank that writes files and prints."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier(group=self.control)

    def any(self, flag: bool) -> bool:
        """True on all ranks when true on one."""
        return self.maximum(int(flag)) > 0

    def maximum(self, value: int) -> int:
        """The largest ``value`` over all ranks."""
        if self.size == 1:
            return value
        box = torch.tensor([value], dtype=torch.int64)
        dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self.control)
        return int(box.item())

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise sum over the ranks, on the host, fp64."""
        total = values.detach().to("cpu", torch.float64, copy=True)
        if self.size > 1:
            dist.all_reduce(total, group=self.control)
        return total

    def gather(self, value: Any) -> list[Any]:
        """``value`` of every rank, in rank order."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.control)
        return values


def start(timeout_s: int) -> World:
    """Join the process group that ``deepspeed`` (or plain ``python``: a world of one) set up."""
    if "RANK" not in os.environ:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        os.environ.update(
            RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    deepspeed = _deepspeed()
    timeout = datetime.timedelta(seconds=timeout_s)
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    deepspeed.init_distributed(timeout=timeout, verbose=False)
    size = dist.get_world_size()
    control = dist.new_group(backend="gloo", timeout=timeout) if size > 1 else None
    return World(dist.get_rank(), size, device, control)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _deepspeed() -> Any:
    import deepspeed
    import deepspeed.ops

    deepspeed.logger.setLevel(logging.WARNING)
    if not torch.cuda.is_available():
        # On a CPU DeepSpeed would compile a shared-memory all-reduce for half a minute at the
        # first start; a compilation killed half-way would block every later start.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def resolve_precision(config: ZeroConfig, device: torch.device) -> torch.dtype:
    """The dtype of the weights on ``device``; refuses combinations that lose the masters."""
    if config.precision == "fp32" or (config.precision == "auto" and device.type == "cpu"):
        return torch.float32
    if config.stage == 0:
        raise ValueError(
            "zero.stage: stage 0 with bf16 keeps no fp32 master weights; accepted: 1, 2 or 3, "
            "or zero.precision=fp32"
        )
    return torch.bfloat16


def deepspeed_config(
    config: ZeroConfig, optim: OptimConfig, *, accumulate: int, world_size: int, bf16: bool,
    trained: int,
) -> dict[str, Any]:
    """DeepSpeed's configuration, generated: there is no second file to keep in step.

    ``trained`` is the number of parameters that train.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": accumulate,
        "train_batch_size": accumulate * world_size,
        "gradient_clipping": optim.clip,
        "bf16": {"enabled": bf16, "check_grad_overflow": False},
        "fp16": {"enabled": False},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_optimization": {
            "stage": config.stage,
            "contiguous_gradients": True,
            "overlap_comm": config.overlap_comm,
            "reduce_scatter": True,
            "allgather_partitions": True,
            "reduce_bucket_size": min(config.reduce_bucket_size, max(trained, 1)),
            "allgather_bucket_size": config.allgather_bucket_size,
            "stage3_prefetch_bucket_size": 50_000_000,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
        },
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": optim.implementation == "kernels",
        "steps_per_print": 2**31,
        "wall_clock_breakdown": False,
        "dump_state": False,
    }


def _optimizer(
    groups: list[dict[str, Any]], config: ZeroConfig, optim: OptimConfig, world: World
) -> torch.optim.Optimizer:
    options: dict[str, Any] = {"lr": optim.lr, "betas": optim.betas, "eps": optim.eps}
    if optim.implementation == "torch":
        fused = world.device.type == "cuda" or None
        return torch.optim.AdamW(groups, **options, fused=fused)
    if config.stage == 3:
        raise ValueError(
            "optim.implementation: kernels does not work with zero.stage 3; accepted: stage 0, 1 "
            "or 2, or implementation torch"
        )
    return AdamW(groups, **options)


class Zero:
    """One phase under DeepSpeed: forward, backward, step, shards in and out."""

    def __init__(
        self, module: nn.Module, groups: list[dict[str, Any]], *, config: ZeroConfig,
        optim: OptimConfig, accumulate: int, world: World, dtype: torch.dtype,
    ) -> None:
        self.world, self.config, self.dtype = world, config, dtype
        settings = deepspeed_config(
            config, optim, accumulate=accumulate, world_size=world.size,
            bf16=dtype == torch.bfloat16,
            trained=sum(p.numel() for group in groups for p in group["params"]),
        )
        optimizer = _optimizer(groups, config, optim, world)
        self.engine, self.optimizer, _, _ = _deepspeed().initialize(
            model=module, optimizer=optimizer, config=settings, dist_init_required=False,
        )
        self.gain = accumulate * world.size
        """DeepSpeed averages over ranks and accumulation steps; our losses are parts of a sum."""

    def train(self) -> None:
        """Put the module in training mode (frozen parts keep their own)."""
        self.engine.train()

    def eval(self) -> None:
        """Put the module in evaluation mode."""
        self.engine.eval()

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward pass; the module returns a scalar."""
        return self.engine(*args, **kwargs)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients of ``loss``, this rank's part of the step's sum."""
        self.engine.backward(loss * self.gain)

    def step(self, lr: float) -> None:
        """Take one micro-step; at the accumulation boundary the optimizer moves at ``lr``."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        self.engine.step()

    def grad_norm(self) -> float:
        """Global gradient norm of the last step, before clipping."""
        norm = self.engine.get_global_grad_norm()
        return float(norm) if norm is not None else float("nan")

    def save(self, directory: Path) -> None:
        """Write this phase's shards under ``directory`` (all ranks call it)."""
        self.engine.save_checkpoint(
            str(directory), tag=SHARDS, save_latest=False, exclude_frozen_parameters=True
        )
        if self.world.main:
            # Conversion scripts that DeepSpeed drops beside its shards; models are exported.
            for script in directory.glob("zero_to_*.py"):
                script.unlink()

    def load(self, directory: Path) -> None:
        """Restore shards written by :meth:`save` at the same world size (all ranks call it)."""
        path, _ = self.engine.load_checkpoint(str(directory), tag=SHARDS, load_module_strict=False)
        if path is None:
            raise ValueError(f"{directory}: holds no shards of this phase")

    def state(self, module: nn.Module) -> dict[str, torch.Tensor]:
        """Full fp32 state dict of ``module`` (a part of the wrapped one), on the host.

        Master weights where the part trains, gathered where stage 3 spread them. All ranks call
        it; only the main rank's result is complete.
        """
        from deepspeed.utils import safe_get_full_fp32_param

        parameters = dict(module.named_parameters(remove_duplicate=False))
        sharded = [p for p in parameters.values() if hasattr(p, "ds_id")]
        full: dict[str, torch.Tensor] = {}
        for name, parameter in parameters.items():
            if parameter.requires_grad:
                master = safe_get_full_fp32_param(parameter)
                if master is not None:
                    full[name] = _host(master.view(getattr(parameter, "ds_shape", parameter.shape)))
        with _gathered(sharded):
            for name, value in module.state_dict().items():
                if name not in full:
                    full[name] = _host(value)
        return full

    def close(self) -> None:
        """Release hooks and buffers, so that the next phase can wrap its own module."""
        self.engine.destroy()


def _host(value: torch.Tensor) -> torch.Tensor:
    value = value.detach().to("cpu", copy=True)
    return value.float() if value.is_floating_point() else value


def _gathered(parameters: list[nn.Parameter]) -> contextlib.AbstractContextManager[Any]:
    if not parameters:
        return contextlib.nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(parameters)

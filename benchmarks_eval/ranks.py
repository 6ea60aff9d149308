"""Several processes at one evaluation, as ``torchrun`` and ``deepspeed`` start them.

Every rank makes the same plan; rank 0 says which batches are left, every rank takes its share of
them whole, and rank 0 puts the parts together. Between that they speak over gloo's TCP connections,
which break when a process dies: no rank waits for a dead one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

JOIN = timedelta(minutes=10)
"""How long ranks wait for one another at the start."""
FINISH = timedelta(days=7)
"""How long a rank may work on its batches while others wait for it; a dead one shows at once."""


@dataclass
class Ranks:
    """This process among all; alone it is rank 0 of 1 and never loads torch.

    Example: ``with Ranks.from_environment() as ranks: left = ranks.from_first(left)``.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> Ranks:
        """Reads RANK, WORLD_SIZE and LOCAL_RANK, which the launchers set.

        Raises:
            ValueError: one of them is no number, or they do not fit together.
        """
        values: list[int] = []
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
            text = os.environ.get(name, default)
            if not text.isdigit():
                raise ValueError(f"{name}={text} in the environment is not a number")
            values.append(int(text))
        rank, world, local = values
        if not rank < world:
            raise ValueError(f"RANK={rank} and WORLD_SIZE={world} in the environment do not fit")
        return cls(rank, world, local)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes results."""
        return self.rank == 0

    def device(self, wanted: str) -> str:
        """``auto`` and ``cuda`` mean a GPU of its own for every rank of a machine."""
        if self.world == 1 or wanted not in ("auto", "cuda"):
            return wanted
        import torch

        count = torch.cuda.device_count()
        return f"cuda:{self.local % count}" if count else wanted

    def __enter__(self) -> Ranks:
        if self.world > 1:
            from torch import distributed

            try:
                distributed.init_process_group("gloo", timeout=FINISH, rank=self.rank,
                                               world_size=self.world)
                distributed.monitored_barrier(timeout=JOIN)
            except (RuntimeError, ValueError) as error:
                raise ValueError(f"rank {self.rank} of {self.world}: the ranks cannot reach one "
                                 f"another ({_first_line(error)})") from None
        return self

    def from_first(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.world == 1:
            return value
        from torch import distributed

        box = [value]
        try:
            distributed.broadcast_object_list(box, src=0)
        except RuntimeError as error:
            raise ValueError(self._died(error)) from None
        return box[0]

    def wait(self) -> None:
        """Returns when every rank is here.

        Raises:
            ValueError: a rank has died.
        """
        if self.world == 1:
            return
        from torch import distributed

        try:
            distributed.monitored_barrier(timeout=FINISH)
        except RuntimeError as error:
            raise ValueError(self._died(error)) from None

    def _died(self, error: RuntimeError) -> str:
        return (f"rank {self.rank} of {self.world}: another rank has ended early "
                f"({_first_line(error)}); what is recorded is kept, start again to go on")

    def __exit__(self, *_: object) -> None:
        if self.world > 1:
            from torch import distributed

            if distributed.is_initialized():
                distributed.destroy_process_group()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else repr(error)

"""``python -m kernels.tune``: look for better rows of the frozen configurations of every op.

An op's `tunable.Tunable` says which rows it has, what else may be tried, how that is compiled and
on what it is timed; `search` compiles and ranks, `timing` takes times on a GPU, `command` prints
rows ready to be pasted. A new op is a module named in `providers`.
"""

from .attention import problem
from .command import main
from .search import Candidate, count, paste, rank
from .timing import measure

__all__ = ["Candidate", "count", "main", "measure", "paste", "problem", "rank"]

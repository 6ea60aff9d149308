"""Statistics of evaluations: intervals, paired tests, seeds, floors, power, many tests at once."""

from __future__ import annotations

from benchmarks_eval.statistics.floors import floor_adjusted
from benchmarks_eval.statistics.intervals import (
    RESAMPLES,
    Z95,
    Interval,
    bootstrap,
    bootstrap_means,
    cluster_variance,
    clustered_wilson,
    interval,
    units,
    wilson,
)
from benchmarks_eval.statistics.multiple import holm
from benchmarks_eval.statistics.paired import (
    Paired,
    mcnemar,
    paired,
    sign_flip,
)
from benchmarks_eval.statistics.power import detectable_share
from benchmarks_eval.statistics.seeds import Runs, SeedGap, over_seeds, seed_gap

__all__ = [
    "RESAMPLES",
    "Z95",
    "Interval",
    "Paired",
    "Runs",
    "SeedGap",
    "bootstrap",
    "bootstrap_means",
    "cluster_variance",
    "clustered_wilson",
    "detectable_share",
    "floor_adjusted",
    "holm",
    "interval",
    "mcnemar",
    "over_seeds",
    "paired",
    "seed_gap",
    "sign_flip",
    "units",
    "wilson",
]

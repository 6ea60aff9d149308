"""Which split a row belongs to: as published, or without a leak between recordings.

CVCL shuffles utterances and cuts at 90 % and 95 %, so that neighbours in time, whose frames look
alike, fall on both sides (``random``). ``recording`` deals whole recordings instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

__all__ = ["RULES", "SHARES", "deal"]

SHARES = {"train": 0.9, "val": 0.05, "test": 0.05}
"""Published shares of the splits."""
RULES = ("random", "recording", "train")


def deal(groups: Sequence[str], rule: str, seed: int) -> list[str]:
    """The split of every row.

    Args:
        groups: the recording (or picture) of every row.
        rule: ``random``: rows are shuffled and cut at the published shares (their seed is not
            published); ``recording``: whole groups are dealt until the shares are reached;
            ``train``: everything is train.
        seed: of the shuffle.

    Raises:
        ValueError: no such rule, or fewer than three groups to deal.
    """
    if rule == "train":
        return ["train"] * len(groups)
    if rule not in RULES:
        raise ValueError(f"split rule {rule!r}: accepted are {', '.join(RULES)}")
    rng = np.random.default_rng([seed, 17])
    count = len(groups)
    if rule == "random":
        train, val = int(count * SHARES["train"]), int(count * SHARES["val"])
        names = ["train"] * train + ["val"] * val + ["test"] * (count - train - val)
        dealt = np.empty(count, object)
        dealt[rng.permutation(count)] = names
        return list(dealt)
    sizes = Counter(groups)
    if len(sizes) < 3:
        raise ValueError(
            f"split rule recording: {len(sizes)} recordings; at least 3 are needed, one a split"
        )
    names = sorted(sizes)
    order = [names[k] for k in rng.permutation(len(names))]
    split_of: dict[str, str] = {}
    for split, still_needed in (("test", 2), ("val", 1)):
        taken = 0
        goal = SHARES[split] * count
        while order and len(order) > still_needed:
            # the next one that does not overshoot by more than it helps; at least one
            fits = [g for g in order if taken + sizes[g] / 2 <= goal]
            if taken and not fits:
                break
            chosen = fits[0] if fits else min(order, key=sizes.__getitem__)
            order.remove(chosen)
            split_of[chosen] = split
            taken += sizes[chosen]
    return [split_of.get(group, "train") for group in groups]

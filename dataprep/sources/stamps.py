"""SAYCam's time stamps, as their transcribers typed them, in whole seconds.

The rules are those of CVCL's published preprocessing: only what stands before the first ``-``
counts; minutes and seconds are parted by any of ``: . , ;``; a lone 1 to 5 in the place of seconds
means tens of seconds (a spreadsheet drops the zero of ``1.30``); seconds of more than two digits
say nothing; no seconds are 0, and nothing before the mark are 0 minutes.
"""

from __future__ import annotations

import re

__all__ = ["seconds"]

_MARKS = re.compile(r"[:.,;]")


def seconds(stamp: str) -> int | None:
    """Seconds that a transcript's stamp means; None where it cannot be told.

    >>> [seconds(s) for s in ("1:05", "2.3", "0:15-0:20", "12;4 ", "3", ":40", "1:234", "")]
    [65, 150, 15, 760, 180, 40, None, None]
    """
    start = stamp.split("-")[0]
    if not start.strip():
        return None
    parts = _MARKS.split(start)
    minutes = parts[0].strip() or "0"
    rest = parts[1].strip() if len(parts) > 1 else "0"
    if len(parts) > 1 and rest in {"1", "2", "3", "4", "5"}:
        rest += "0"
    if len(rest) > 2 or not re.fullmatch(r"[0-9]+ [0-9]+", f"{minutes} {rest}"):
        return None
    return 60 * int(minutes) + int(rest)

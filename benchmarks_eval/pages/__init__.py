"""The report page: one HTML file of one or two runs, or of a sweep, that loads nothing."""

from __future__ import annotations

from benchmarks_eval.pages.page import DIFFERENCE, FILE, Wishes, render, write_report
from benchmarks_eval.pages.sides import Side, read_side

__all__ = ["DIFFERENCE", "FILE", "Side", "Wishes", "read_side", "render", "write_report"]

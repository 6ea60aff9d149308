"""Matching: a different picture for every frame, at the largest total similarity."""

from dataprep.matching.result import Matching, Quota, verify
from dataprep.matching.solve import match

__all__ = ["Matching", "Quota", "match", "verify"]

"""Builders of evaluation sets from any corpus: trials, proposals, pictures, pruning, review."""

"""Stored pictures to what a vision tower takes, in one pass: crop, flip, colours, normalisation."""

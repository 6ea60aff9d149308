"""Checking, showing and mixing corpora."""

"""Rows of a table by number, with a gradient whose bits are the same on every call."""

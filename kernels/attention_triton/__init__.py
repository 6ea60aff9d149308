"""Triton attention over intervals: a whole-document path, a many-heads path and a tiled one."""

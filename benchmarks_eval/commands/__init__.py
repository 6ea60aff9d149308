"""The commands of ``python -m benchmarks_eval``: one module each, with ``add`` and ``run``."""

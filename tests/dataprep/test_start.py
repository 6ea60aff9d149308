"""The command line starts without what only some commands need."""

from __future__ import annotations

import json
import subprocess
import sys

from support.launch import ROOT

HEAVY = {"torch", "scipy", "matplotlib", "diffusers", "transformers"}
HELP = """
import json, runpy, sys
sys.argv = ["dataprep", "--help"]
try:
    runpy.run_module("dataprep", run_name="__main__")
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]), file=sys.stderr)
"""


def test_help_needs_no_heavy_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    code, loaded = json.loads(done.stderr)
    assert code == 0 and "build" in done.stdout and "match" in done.stdout
    assert {"dataprep.evalsets.cli", "dataprep.transfer.cli"} <= set(loaded)
    assert not HEAVY & set(loaded)

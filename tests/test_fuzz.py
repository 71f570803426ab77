"""`benchmarks/fuzz.py` on a few mutants of each kind; the whole is in its result page."""

import subprocess
import sys

import pytest
from tiny_run import ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("what", "number"), [("recipes", 60), ("runs", 2), ("replies", 200), ("rows", 300)]
)
def test_no_mutant_is_a_fault(what: str, number: int) -> None:
    command = [sys.executable, "benchmarks/fuzz.py", what, "--number", str(number), "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "FAULT" not in done.stdout
    assert f"{what}: seed 7, " in done.stdout

"""`benchmarks/cases.py` says right of what is as its case.toml has it, and wrong of the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "cases.py"


def run(inputs: Path, *arguments: str) -> tuple[int, list[str]]:
    command = [sys.executable, str(SCRIPT), "--cases", str(inputs), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


def write_case(inputs: Path, name: str, text: str, **files: str) -> None:
    folder = inputs / name
    folder.mkdir(parents=True)
    for file, content in {"case.toml": text, **files}.items():
        (folder / file).write_text(content, encoding="utf-8")


def test_a_row_for_each_case_and_the_input_as_it_was(tmp_path: Path) -> None:
    good = """
ports = [8917]
setup = "echo made > made"
[[step]]
command = "cat made; cat port.txt.md; echo 8917; exit 3"
exit = [0, 3]
says = ["^made$"]
says_not = ["8917"]
"""
    write_case(tmp_path, "good", good, **{"port.txt.md": "at 8917\n"})
    bad = """
[[step]]
command = "echo Traceback '(most recent call last):'; exit 1"
says = ["cure"]
[[step]]
command = "sleep 60"
seconds = 0.5
"""
    write_case(tmp_path, "bad", bad)
    before = sorted(tmp_path.rglob("*"))
    code, lines = run(tmp_path)
    rows = [line for line in lines if not line.endswith("is not there")]
    assert code == 1
    assert [row.split()[:2] for row in rows if row[0] != " "][:2] == [
        ["bad", "wrong"],
        ["good", "right"],
    ]
    assert rows[-1] == "1 of 2 cases are right"
    faults = "".join(row for row in rows if row[0] == " ")
    for fault in ("exit code 1, not 0", "does not say 'cure'", "it says 'Traceback", "in time"):
        assert fault in faults
    assert sorted(tmp_path.rglob("*")) == before
    assert run(tmp_path, "--only", "good")[0] == 0

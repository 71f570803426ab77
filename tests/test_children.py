from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from feldspar.children import child_environment, module_command


@pytest.mark.parametrize("name", ["json.py", "feldspar.py"])
def test_a_file_in_the_working_directory_is_not_imported_by_a_child(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("raise SystemExit('imported from the working directory')\n")
    done = subprocess.run(
        [*module_command("feldspar.cli.main"), "--help"],
        cwd=tmp_path,
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "taxonomy" in done.stdout

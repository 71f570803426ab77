"""`feldspar taxonomy`: what it prints and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feldspar.cli.taxonomy import app

SEEDS = "seed_examples:\n" + "".join(f"- {{question: q{i}, answer: a}}\n" for i in range(5))


@pytest.fixture
def taxonomy(tmp_path: Path) -> Path:
    leaf = tmp_path / "tree" / "compositional_skills" / "writing" / "rhymes"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(f"task_description: x\n{SEEDS}", encoding="utf-8")
    leaf = tmp_path / "tree" / "knowledge" / "phoenix"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(f"{SEEDS}document: {{path: .}}\n", encoding="utf-8")
    (leaf / "attribution.txt").write_text("License of the work: CC0-1.0\n", encoding="utf-8")
    (leaf / "phoenix.md").write_text("# Phoenix [bold]\n\n" + "A \x1b[31mword. " * 60, "utf-8")
    return tmp_path / "tree"


def test_check_ends_well_without_errors(taxonomy: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(taxonomy)])
    assert result.exit_code == 0
    assert result.output == "2 of 2 leaves read, 10 seeds; 0 errors, 0 warnings, 0 notes\n"


def test_check_names_place_code_and_cure(taxonomy: Path) -> None:
    broken = taxonomy / "knowledge" / "broken" / "qna.yaml"
    broken.parent.mkdir()
    broken.write_text("a: b: c\n", encoding="utf-8")
    result = CliRunner().invoke(app, ["check", str(taxonomy)])
    assert result.exit_code == 3
    place, cure, summary = result.output.splitlines()
    assert place.startswith(f"{broken}:1:5 error FT002 ")
    assert cure.startswith("    put the text between quotes")
    assert summary.startswith("2 of 3 leaves read")
    record = json.loads(
        CliRunner().invoke(app, ["check", str(taxonomy), "--format", "json"]).output
    )
    assert (record["num_files"], record["num_leaves"], record["num_seeds"]) == (3, 2, 10)
    assert record["findings"][0]["line"] == 1


def test_check_of_a_folder_without_leaves_is_an_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(tmp_path)])
    assert result.exit_code == 3
    assert "no qna.yaml" in result.output


def test_tree_shows_seeds_and_documents(taxonomy: Path) -> None:
    result = CliRunner().invoke(app, ["tree", str(taxonomy)])
    assert result.exit_code == 0
    assert "rhymes  5 seeds" in result.output
    assert "phoenix  5 seeds, 1 document" in result.output
    leaves = json.loads(CliRunner().invoke(app, ["tree", str(taxonomy), "--json"]).output)
    assert [leaf["path"] for leaf in leaves] == [
        "compositional_skills/writing/rhymes",
        "knowledge/phoenix",
    ]


def test_chunks_are_shown_without_what_steers_a_terminal(taxonomy: Path) -> None:
    result = CliRunner().invoke(app, ["chunks", str(taxonomy), "--max-tokens", "50"])
    assert result.exit_code == 0
    assert "# Phoenix [bold]" in result.output
    assert "\x1b" not in result.output
    assert result.output.endswith("chunks of at most 50 words in 1 knowledge leaves\n")


def test_chunks_of_documents_that_are_absent_is_an_error(taxonomy: Path) -> None:
    (taxonomy / "knowledge" / "phoenix" / "phoenix.md").unlink()
    result = CliRunner().invoke(app, ["chunks", str(taxonomy)])
    assert result.exit_code == 3
    assert "FT034" in result.output


def test_check_loads_neither_torch_nor_transformers(taxonomy: Path) -> None:
    program = (
        "import sys; from feldspar.cli.taxonomy import app\n"
        f"app(['check', {str(taxonomy)!r}], standalone_mode=False)\n"
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True).returncode == 0

"""`taxonomy diff`: what a pull request changes, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feldspar.cli.taxonomy import app
from feldspar.errors import TaxonomyError
from feldspar.taxonomy import LeafChange, diff_taxonomy


def git(folder: Path, *arguments: str) -> None:
    told = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for role in ("AUTHOR", "COMMITTER"):
        told |= {f"GIT_{role}_NAME": "a", f"GIT_{role}_EMAIL": "a@example.org"}
    subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env=os.environ | told,
        check=True,
        capture_output=True,
    )


def write(leaf: Path, *answers: str) -> None:
    leaf.mkdir(parents=True, exist_ok=True)
    seeds = "".join(f"- {{question: q{a}, answer: {a}}}\n" for a in answers)
    (leaf / "qna.yaml").write_text(f"seed_examples:\n{seeds}", encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "repository" / "taxonomy"
    for name in ("same", "grown", "gone", "moved", "documented"):
        write(root / "knowledge" / name, f"{name}1", f"{name}2")
    (root / "knowledge" / "documented" / "a.md").write_text("One.\n")
    git(tmp_path, "init", "--quiet", "-b", "main", str(tmp_path / "repository"))
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "one")
    git(root, "checkout", "--quiet", "-b", "mine")
    return root


def test_nothing_changed_is_nothing(tree: Path) -> None:
    assert diff_taxonomy(tree, "main") == []


def test_each_kind_of_change_is_told(tree: Path) -> None:
    knowledge = tree / "knowledge"
    write(knowledge / "grown", "grown1", "new", "newer")
    shutil.rmtree(knowledge / "gone")
    git(tree, "mv", "knowledge/moved", "knowledge/there")
    git(tree, "commit", "--quiet", "-m", "two")
    write(knowledge / "there", "moved1", "moved2", "moved3")
    (knowledge / "documented" / "a.md").write_text("Two.\n")
    write(knowledge / "untracked caf\u00e9", "x")
    (tree / ".gitignore").write_text("ignored/\n")
    write(knowledge / "ignored", "y")
    told = diff_taxonomy(tree, "main")
    assert told == [
        LeafChange(change="changed", path="knowledge/documented", files=("a.md",)),
        LeafChange(change="removed", path="knowledge/gone", num_removed=2),
        LeafChange(change="changed", path="knowledge/grown", num_added=2, num_removed=1),
        LeafChange(
            change="renamed", path="knowledge/there", old_path="knowledge/moved", num_added=1
        ),
        LeafChange(change="new", path="knowledge/untracked caf\u00e9", num_added=1),
    ]
    result = CliRunner().invoke(app, ["diff", "--base", "main", str(tree)])
    assert result.exit_code == 0
    assert "renamed knowledge/moved -> knowledge/there  1 seed more" in result.output
    assert result.output.endswith("1 new, 2 changed, 1 removed, 1 renamed leaves since main\n")


def test_what_the_base_did_meanwhile_does_not_count(tree: Path) -> None:
    git(tree, "checkout", "--quiet", "main")
    write(tree / "knowledge" / "theirs", "z")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "-m", "theirs")
    git(tree, "checkout", "--quiet", "mine")
    assert diff_taxonomy(tree, "main") == []


def test_a_broken_leaf_has_changed_too(tree: Path) -> None:
    (tree / "knowledge" / "same" / "qna.yaml").write_bytes(b"a: b: \xff")
    (change,) = diff_taxonomy(tree, "HEAD")
    assert (change.change, change.num_removed) == ("changed", 2)


def test_a_part_of_the_tree_is_compared_alone(tree: Path) -> None:
    write(tree / "knowledge" / "grown", "x")
    write(tree / "knowledge" / "same", "x")
    assert [c.path for c in diff_taxonomy(tree / "knowledge" / "grown", "main")] == ["."]


@pytest.mark.parametrize("base", ["nowhere", "--output=x", ""])
def test_an_unknown_base_says_so(tree: Path, base: str) -> None:
    with pytest.raises(TaxonomyError, match=r"fetch it first"):
        diff_taxonomy(tree, base)


def test_no_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(TaxonomyError, match=r"git repository"):
        diff_taxonomy(tmp_path, "main")


def test_links_and_other_repositories_are_on_neither_side(tree: Path) -> None:
    leaf = tree / "knowledge" / "same"
    (leaf / "link.md").symlink_to("qna.yaml")
    git(leaf, "init", "--quiet", "-b", "main", str(leaf / "inner"))
    (leaf / "inner" / "a.md").write_text("One.\n")
    git(leaf / "inner", "add", ".")
    git(leaf / "inner", "commit", "--quiet", "-m", "one")
    git(tree, "add", ".")
    git(tree, "commit", "--quiet", "-m", "two")
    git(tree, "branch", "later")
    assert diff_taxonomy(tree, "later") == []

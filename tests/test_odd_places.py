"""Places that are not what they seem: links, folders that cannot be used, a user without a home."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from feldspar.ahead.checks import Subject, found_by
from feldspar.ahead.machine import disk
from feldspar.config import Recipe
from feldspar.errors import DiskError
from feldspar.runs import cache_folder
from feldspar.taxonomy.places import find_places

RECIPE = Recipe.model_validate({"name": "r", "taxonomy": {"path": "t"}, "student": {"base": "b"}})
SUBJECT = Subject(recipe=RECIPE, named=RECIPE, run_path=None)


def test_a_linked_folder_with_a_leaf_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    leaf = tmp_path / "elsewhere" / "leaf"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").touch()
    (tmp_path / "taxonomy" / "knowledge").mkdir(parents=True)
    (tmp_path / "taxonomy" / "knowledge" / "linked").symlink_to(leaf.parent)
    with caplog.at_level(logging.WARNING):
        assert find_places(tmp_path / "taxonomy") == []
    assert "knowledge/linked: a link to a folder is not followed" in caplog.text


def test_a_cache_that_cannot_be_written_is_found_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "file" / "cache"))
    found = found_by("disk", disk, SUBJECT)
    assert found is not None
    assert found.state == "wrong"
    assert "the cache cannot be written: Not a directory" in found.says


def test_what_the_system_refuses_is_one_line_of_the_list() -> None:
    def look(_: Subject) -> str:
        raise PermissionError(13, "Permission denied", "a/b")

    found = found_by("taxonomy", look, SUBJECT)
    assert found is not None
    assert (found.state, found.says) == (
        "wrong",
        "Permission denied (a/b); see that it is there and can be used",
    )


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FELDSPAR_CACHE", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(DiskError, match="FELDSPAR_CACHE"):
        cache_folder()

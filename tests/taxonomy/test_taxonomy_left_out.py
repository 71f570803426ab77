"""Leaves that cannot be read, that are left out on purpose, or that hold what must not be sent."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import pytest

from feldspar.config import TaxonomyConfig
from feldspar.errors import TaxonomyError
from feldspar.taxonomy import check_taxonomy, read_readable, read_taxonomy

TOKEN = "ghp" + "_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path, "compositional_skills/a/good")
    write(tmp_path, "compositional_skills/a/bad", "a: b: c\n")
    write(tmp_path, "knowledge/b/gone", more="document: {path: gone.md}\n")
    return tmp_path


def write(root: Path, leaf: str, text: str = "", *, more: str = "", answer: str = "a") -> None:
    folder = root / leaf
    folder.mkdir(parents=True)
    seeds = "".join(f"- {{question: q{i}, answer: '{answer} {i}'}}\n" for i in range(5))
    whole = text or f"task_description: x\nseed_examples:\n{seeds}{more}"
    (folder / "qna.yaml").write_text(whole, encoding="utf-8")


def config(root: Path, **more: object) -> TaxonomyConfig:
    return TaxonomyConfig.model_validate({"path": str(root), **more})


def test_a_run_stops_at_a_bad_leaf_and_says_how_to_go_on_without(root: Path) -> None:
    with pytest.raises(TaxonomyError) as stopped:
        list(read_taxonomy(config(root)))
    skip = ["compositional_skills/a/bad", "knowledge/b/gone"]
    assert '`taxonomy.skip = ["compositional_skills/a/bad", "knowledge/b/gone"]`' in str(
        stopped.value
    )
    for skipped in (skip, ["compositional_skills/a/bad/", "knowledge"]):
        leaves = list(read_taxonomy(config(root, skip=skipped)))
        assert [leaf.path for leaf in leaves] == ["compositional_skills/a/good"]


def test_a_plan_is_made_of_what_can_be_read_and_names_the_rest(root: Path) -> None:
    leaves, left_out = read_readable(config(root))
    assert [leaf.path for leaf in leaves] == ["compositional_skills/a/good"]
    assert [line.split(": ")[1] for line in left_out] == [
        "compositional_skills/a/bad",
        "knowledge/b/gone",
    ]
    assert "FT" not in left_out[0]
    assert "gone.md" in left_out[1]
    with pytest.raises(TaxonomyError, match="no file or folder"):
        read_readable(config(root, leaves=["knowledge"]))


def test_skipping_what_is_not_there_is_an_error(root: Path) -> None:
    with pytest.raises(TaxonomyError, match="'compositional_skills/c', where no leaf is"):
        list(read_taxonomy(config(root, skip=["compositional_skills/c"])))
    with pytest.raises(TaxonomyError, match="keep none"):
        list(read_taxonomy(config(root, skip=["compositional_skills", "knowledge"])))


def test_paths_are_one_in_both_spellings_of_an_accent(tmp_path: Path) -> None:
    write(tmp_path, f"compositional_skills/{unicodedata.normalize('NFD', 'Fähren')}")
    name = f"compositional_skills/{unicodedata.normalize('NFC', 'Fähren')}"
    assert len(list(read_taxonomy(config(tmp_path, leaves=[name])))) == 1
    with pytest.raises(TaxonomyError, match="keep none"):
        list(read_taxonomy(config(tmp_path, skip=[name])))


def test_a_secret_stops_a_run_until_it_is_allowed(tmp_path: Path) -> None:
    write(tmp_path, "compositional_skills/a", answer=f"Use {TOKEN}.")
    (finding,) = (f for f in check_taxonomy(tmp_path) if f.code == "FT047")
    assert (finding.severity, finding.line) == ("error", 3)
    assert "a GitHub token (`ghp_…`), and 4 more" in finding.message
    assert TOKEN not in str(finding)
    with pytest.raises(TaxonomyError, match="GitHub token"):
        list(read_taxonomy(config(tmp_path)))
    assert len(list(read_taxonomy(config(tmp_path, allow_secrets=True)))) == 1


def test_personal_data_in_a_document_is_told_and_does_not_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "knowledge/a", more="document: {path: d.md}\n")
    text = "# Ferry\n\nIt leaves at nine.\nAsk ann@firm.org.\n"
    (tmp_path / "knowledge" / "a" / "d.md").write_text(text, encoding="utf-8")
    (finding,) = (f for f in check_taxonomy(tmp_path) if f.code == "FT048")
    assert finding.severity == "warning"
    assert "line 4 of `knowledge/a/d.md` holds what looks like an e-mail address" in finding.message
    with caplog.at_level(logging.WARNING):
        assert len(list(read_taxonomy(config(tmp_path)))) == 1
    assert "personal data" in caplog.text

"""Base replay that the base writes itself."""

import json
import logging
from pathlib import Path

import pytest
from tiny_base import STUDENT, save_base

from feldspar.config import BaseReplayConfig
from feldspar.config.load import BANK, place_paths
from feldspar.errors import RecipeError
from feldspar.mix.base_rows import read_prompts, sample_base
from feldspar.records import Checkpoint, Conversation
from feldspar.steps import Workspace


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sample(base: Checkpoint, seed: int = 1, **more: object) -> list[Conversation]:
    settings = {"from": "base", "num_rows": 6, "max_new_tokens": 12, **more}
    config = place_paths(BaseReplayConfig.model_validate(settings), Path(), {})
    return list(sample_base(Workspace(folder=Path()), base, config, student=STUDENT, seed=seed))


def test_the_base_asks_and_answers_itself_the_same_way_each_time(base):
    rows = sample(base)
    assert 0 < len(rows) <= 6
    assert len({row.messages[0].content for row in rows}) > 1
    assert all([m.role for m in row.messages] == ["user", "assistant"] for row in rows)
    assert all(m.content.strip() for row in rows for m in row.messages)
    assert {row.source for row in rows} == {"base replay"}
    assert sample(base) == rows
    assert sample(base, seed=2) != rows


def test_prompts_of_a_file_are_asked_in_turn(base, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("number 1\nnumber 2\n", encoding="utf-8")
    rows = sample(base, prompts=str(path))
    assert [row.messages[0].content for row in rows] == ["number 1", "number 2"] * 3
    assert len({row.messages[1].content for row in rows}) > 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_fewer_rows_than_prompts_are_of_the_whole_file(base, tmp_path, temperature):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"number {n}\n" for n in range(9)), encoding="utf-8")
    rows = sample(base, prompts=str(path), num_rows=4, temperature=temperature)
    asked = [row.messages[0].content for row in rows]
    assert asked == ["number 0", "number 2", "number 4", "number 6"]


def test_rows_without_text_are_left_out_and_counted(base, caplog):
    with caplog.at_level(logging.WARNING):
        rows = sample(base, num_rows=200, max_new_tokens=1)
    assert 100 < len(rows) < 200
    assert f"{200 - len(rows)} of 200 rows that the base was asked for have no text" in caplog.text
    assert all(m.content.strip() for row in rows for m in row.messages)


def test_where_prompts_are_missing_is_said(base, tmp_path: Path):
    with pytest.raises(RecipeError, match="prompts cannot be read"):
        sample(base, prompts=str(tmp_path / "gone.txt"))


def test_a_damaged_file_of_what_the_base_said_is_named_and_made_anew(base, cache, tmp_path, caplog):
    path = tmp_path / "prompts.txt"
    path.write_text("number 5\n", encoding="utf-8")
    before = set((cache / "base-replay").iterdir()) if (cache / "base-replay").exists() else set()
    rows = sample(base, prompts=str(path))
    (kept,) = set((cache / "base-replay").iterdir()) - before
    kept.write_bytes(kept.read_bytes()[:-9])
    assert sample(base, prompts=str(path)) == rows
    assert f"{kept}" in caplog.text
    assert "the base is asked again" in caplog.text


def test_what_the_base_said_is_kept_for_other_runs_whatever_their_share(base, cache, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("number 1\nnumber 2\nnumber 3\n", encoding="utf-8")
    rows = sample(base, prompts=str(path))
    (kept,) = (cache / "base-replay").iterdir()
    changed_at = kept.stat().st_mtime_ns
    assert sample(base, prompts=str(path), share=0.5) == rows
    assert kept.stat().st_mtime_ns == changed_at
    path.write_text("number 1\nnumber 2\nnumber 4\n", encoding="utf-8")
    assert sample(base, prompts=str(path)) != rows


def test_the_likeliest_answer_is_asked_for_once(base, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("number 1\nnumber 2\n", encoding="utf-8")
    rows = sample(base, prompts=str(path), temperature=0.0, num_rows=50)
    assert [row.messages[0].content for row in rows] == ["number 1", "number 2"]


def test_the_bank_is_of_many_kinds_and_asks_nothing_twice():
    path = Path(
        str(place_paths(BaseReplayConfig(drawn_from="base", prompts=BANK), Path(), {}).prompts)
    )
    questions = read_prompts(path)
    assert len(questions) > 500
    assert len({question.casefold() for question in questions}) == len(questions)
    assert len({json.loads(line)["kind"] for line in path.read_text().splitlines()}) > 20


def test_of_an_answer_that_was_cut_off_no_end_is_trained(base, tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("".join(f"number {n}\n" for n in range(40)), encoding="utf-8")
    short, long = (
        {
            row.messages[0].content: (row.messages[1].content, row.train_on)
            for row in sample(base, prompts=str(path), num_rows=40, max_new_tokens=longest)
        }
        for longest in (12, 150)
    )
    assert {train_on for _, train_on in short.values()} == {"answers", "unended"}
    for question, (text, train_on) in short.items():
        # The same tokens are drawn, as far as they go.
        assert long[question][0].startswith(text[:-1])
        assert (train_on == "answers") == (long[question] == (text, "answers"))

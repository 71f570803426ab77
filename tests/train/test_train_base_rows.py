"""Base replay that the base writes itself."""

import logging
from pathlib import Path

import pytest
from tiny_base import STUDENT, save_base

from feldspar.config import BaseReplayConfig
from feldspar.errors import RecipeError
from feldspar.mix.base_rows import sample_base
from feldspar.records import Checkpoint, Conversation
from feldspar.steps import Workspace


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save_base(tmp_path_factory.mktemp("base") / "base")


def sample(base: Checkpoint, seed: int = 1, **more: object) -> list[Conversation]:
    settings = {"from": "base", "num_rows": 6, "max_new_tokens": 12, **more}
    config = BaseReplayConfig.model_validate(settings)
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


def test_rows_without_text_are_left_out_and_counted(base, caplog):
    with caplog.at_level(logging.WARNING):
        rows = sample(base, num_rows=200, max_new_tokens=1)
    assert 100 < len(rows) < 200
    assert f"{200 - len(rows)} of 200 rows that the base was asked for have no text" in caplog.text
    assert all(m.content.strip() for row in rows for m in row.messages)


def test_where_prompts_are_missing_is_said(base, tmp_path: Path):
    with pytest.raises(RecipeError, match="prompts cannot be read"):
        sample(base, prompts=str(tmp_path / "gone.txt"))

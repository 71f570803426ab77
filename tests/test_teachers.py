"""A run goes on without its teacher where the answers it has are enough."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from feldspar.config import ErrorRates, Recipe, WorldConfig
from feldspar.errors import TeacherError
from feldspar.prepare import open_teachers
from feldspar.progress import SILENT
from feldspar.records import Message
from feldspar.world import start_teacher


@contextmanager
def served() -> Iterator[Recipe]:
    with start_teacher(WorldConfig(num_old=12, num_new=10), ErrorRates()) as url:
        yield Recipe.model_validate(
            {
                "taxonomy": {"path": "t"},
                "student": {"base": "b"},
                "teacher": {"endpoint": url, "max_retries": 0},
            }
        )


def ask(recipe: Recipe, folder: Path, text: str) -> str:
    async def asked() -> str:
        async with teachers.teacher as teacher:
            messages = [Message(role="user", content=text)]
            reply = await teacher.ask(messages, stage="", temperature=0, max_tokens=64)
            return reply.text

    met = folder / "teachers.json"
    placed = recipe.model_copy(update={"journal": str(folder / "journal.sqlite")})
    with open_teachers(placed, SILENT, met) as teachers:
        return asyncio.run(asked())


@pytest.mark.slow
def test_a_teacher_that_is_gone_answers_from_the_journal_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with served() as recipe:
        answer = ask(recipe, tmp_path, "### Question\nWhat is 2 + 3?")
    with caplog.at_level(logging.WARNING):
        assert ask(recipe, tmp_path, "### Question\nWhat is 2 + 3?") == answer
    assert "going on with its answers so far" in caplog.text
    with pytest.raises(TeacherError, match="is gone"):
        ask(recipe, tmp_path, "### Question\nWhat is 2 + 4?")


def test_a_teacher_never_met_is_an_error(tmp_path: Path) -> None:
    with served() as recipe:
        pass
    with pytest.raises(TeacherError, match="no teacher answers"):
        ask(recipe, tmp_path, "anything")

"""Log-probabilities that a teacher tells: each is asked for once, whatever ends the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from feldspar.config import TeacherConfig
from feldspar.endpoint.faults import Refused
from feldspar.models.model import Continuations, Heard, LogProb, Model
from feldspar.progress import Progress
from feldspar.teacher import Journal, Teacher


class Fitful(SimpleNamespace):
    """Tells the total of a continuation's ids, and will not read what is longer than it may be."""

    key = name = "fitful"
    longest = 9

    async def score(
        self, rows: list[Continuations], progress: Progress, heard: Heard
    ) -> list[list[LogProb]]:
        for number, row in enumerate(rows):
            for place, ids in enumerate(row.continuations):
                if len(ids) > self.longest:
                    raise Refused("too long")
                self.asked.append(list(ids))
                heard(number, place, LogProb(float(sum(ids)), len(ids)))
        return []


def rows_of(*continuations: list[list[int]]) -> list[Continuations]:
    return [Continuations([1], of_row) for of_row in continuations]


def scored(model: Any, folder: Path, rows: list[Continuations]) -> list[list[LogProb]]:
    with Journal(folder / "journal.sqlite") as journal:
        teacher = Teacher(cast(Model, model), TeacherConfig(), journal)
        return asyncio.run(teacher.score(rows, stage="exam"))


def test_what_came_before_a_fault_is_not_asked_for_again(tmp_path: Path) -> None:
    rows = rows_of([[2]], [[3], [4]], [[5], [6, 7, 8]], [[9]])
    model = Fitful(asked=[], longest=2)
    with pytest.raises(Refused):
        scored(model, tmp_path, rows)
    assert model.asked == [[2], [3], [4], [5]]
    longer = Fitful(asked=[])
    found = scored(longer, tmp_path, rows)
    assert longer.asked == [[6, 7, 8], [9]]
    assert [[one.total for one in of_row] for of_row in found] == [[2], [3, 4], [5, 21], [9]]


def test_what_stands_in_two_rows_is_asked_for_once(tmp_path: Path) -> None:
    model = Fitful(asked=[])
    found = scored(model, tmp_path, rows_of([[2], [3]], [[3], [2]], [[3]]))
    assert model.asked == [[2], [3]]
    assert found == [
        [LogProb(2, 1), LogProb(3, 1)],
        [LogProb(3, 1), LogProb(2, 1)],
        [LogProb(3, 1)],
    ]

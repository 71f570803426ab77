"""Questions to try on a run's result: what its exams ask and report."""

from __future__ import annotations

import hashlib
from pathlib import Path

from feldspar.evaluate.general.questions import general_items, halves
from feldspar.records import ExamItem, user_turn
from feldspar.runs import open_step

_EXAM_STEPS = ("own-exams", "leaf-exams")


def example_questions(run_path: Path, num_wanted: int) -> list[str]:
    """Half of what was taught, as the run's exams ask it, and half of general knowledge.

    Drawn by the questions alone, never by what was answered: the same ones each time, and all of
    those halves that are reported.
    """
    exams = [open_step(run_path, name) or () for name in _EXAM_STEPS]
    items = [item for exam in exams for item in exam if isinstance(item, ExamItem)]
    taught = [
        user_turn(item.question, item.context)
        for item in items
        if item.use == "report" and item.match != "choice" and not item.is_retention
    ]
    general = [item.ask[0] for item in halves(general_items())["report"]]
    num_general = max(num_wanted // 2, num_wanted - len(taught))
    return _drawn(taught, num_wanted - num_general) + _drawn(general, num_general)


def _drawn(questions: list[str], num: int) -> list[str]:
    return sorted(questions, key=lambda q: hashlib.sha256(q.encode()).hexdigest())[:num]

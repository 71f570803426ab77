"""A process to be killed: an exam of a served model, one call at a time."""

from pathlib import Path

from taught import CONFIG, item

from feldspar.config import TeacherConfig
from feldspar.evaluate.exams.checkpoints import evaluate_served
from feldspar.evaluate.served_examinee import ServedExaminee
from feldspar.steps import Workspace
from feldspar.teacher import Journal, open_teacher

NUM_ITEMS = 120


def main(url: str, folder: Path) -> None:
    items = [item(f"What is number {number}?", "It is 3.") for number in range(NUM_ITEMS)]
    with Journal(folder / "journal.sqlite") as journal:
        model = open_teacher(TeacherConfig(concurrency=1), url, journal)
        served = ServedExaminee(model)
        list(evaluate_served(Workspace(folder=folder), items, CONFIG, served=served, seed=1))

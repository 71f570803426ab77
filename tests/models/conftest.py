"""A tiny model in a folder; and lets these tests import the toys of other rooms' tests."""

import sys
from pathlib import Path

import pytest

for room in ("teacher", "prefer"):
    sys.path.insert(0, str(Path(__file__).parents[1] / room))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> str:
    """A model that answers `How is the river number 1?` with one of two sentences."""
    from toy_models import BAD, GOOD, teach, tiny_student

    from feldspar.student.model import save_checkpoint

    here = tmp_path_factory.mktemp("tiny-model")
    student = tiny_student(1)
    teach(student, (GOOD, BAD, BAD, GOOD, BAD), here / "training", 60)
    save_checkpoint(student, here / "toy", phase="base", step=0)
    return str(here / "toy")

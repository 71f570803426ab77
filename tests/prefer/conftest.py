"""The toy pair and policy, made once."""

from pathlib import Path

import pytest
from toy_models import BAD, GOOD, teach, tiny_student

from feldspar.student.model import save_checkpoint


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> dict[str, str]:
    """Model directories by role: policy, aligned, base."""
    here = tmp_path_factory.mktemp("toy")
    paths: dict[str, Path] = {}
    for role, seed in (("policy", 1), ("base", 2)):
        student = tiny_student(seed)
        # Answers go around by fives and things by tens, so a question tells little of its answer.
        teach(student, (GOOD, BAD, BAD, GOOD, BAD), here / role, 60)
        paths[role] = here / f"{role}-model"
        save_checkpoint(student, paths[role], phase="base", step=0)
        if role == "base":
            teach(student, (GOOD,), here / "aligned", 16)
            paths["aligned"] = here / "aligned-model"
            save_checkpoint(student, paths["aligned"], phase="aligned", step=0)
    return {role: str(path) for role, path in paths.items()}

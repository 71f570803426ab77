"""The recipe for documents of one's own, on real leaves and a real small model, with no teacher."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest
from tiny_run import ROOT, SHARED, feldspar

from feldspar.config import StudentConfig
from feldspar.records import Answer, Conversation, ExamItem
from feldspar.runs import open_step, read_rows
from feldspar.stats.intervals import Difference, paired_difference
from feldspar.student.model import load_student
from feldspar.student.scoring.log_probs import AnswerRow, answer_log_probs

BASE = SHARED / "data" / "models" / "tinystories-656k"
TAXONOMY = SHARED / "data" / "taxonomy" / "knowledge-with-docs"
LEAVES = ["knowledge/science/animals", "knowledge/crafts", "knowledge/biology"]
NUM_TRAINED_ROWS = 200

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BASE.is_dir(), reason=f"needs the shared model {BASE.name}"),
    pytest.mark.skipif(not TAXONOMY.is_dir(), reason=f"needs the shared taxonomy {TAXONOMY.name}"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("documents")
    settings = {
        "student.base": str(BASE),
        "student.device": "cpu",
        "taxonomy.path": str(TAXONOMY / "leaves"),
        "taxonomy.mirror": str(TAXONOMY / "docs"),
        "taxonomy.leaves": json.dumps(LEAVES),
        "journal": str(folder / "journal.sqlite"),
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    done = feldspar("run", str(ROOT / "recipes" / "my-documents.toml"), *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "my-documents"


def answers(run: Path, checkpoint: str) -> dict[str, Answer]:
    scores = open_step(run, "scores")
    assert scores is not None
    path = scores.folder / "answers" / f"{checkpoint}.jsonl.zst"
    return {answer.item: answer for answer in read_rows(path, Answer)}


def change(before: Sequence[float], after: Sequence[float]) -> Difference:
    return paired_difference(before, after, num_resamples=1000, seed=1)


def test_answers_to_exams_become_likelier(run: Path) -> None:
    before, after = answers(run, "base"), answers(run, "knowledge")
    exams = open_step(run, "leaf-exams")
    assert exams is not None
    items: list[ExamItem] = [item for item in exams if item.id in before]
    likelier = change(
        [before[item.id].log_likelihood for item in items],
        [after[item.id].log_likelihood for item in items],
    )
    for name, said in (("base", before), ("trained", after)):
        matched = [answer.is_right for answer in said.values() if answer.is_right is not None]
        print(f"{name}: {sum(matched)} of {len(matched)} exam answers match exactly")
    print(f"exam rows, nats a token: {likelier}")
    assert likelier.num_pairs >= 20
    assert likelier.interval.low > 0, likelier


def test_what_was_trained_on_becomes_likelier(run: Path) -> None:
    phases, trained = open_step(run, "phases"), open_step(run, "trained")
    assert phases is not None
    assert trained is not None
    [source] = phases.last().sources
    rows = [
        AnswerRow(messages=row.messages[:-1], answer=row.messages[-1].content)
        for row in islice(read_rows(Path(source.path), Conversation), NUM_TRAINED_ROWS)
    ]

    def per_token(path: str) -> list[float]:
        student = load_student(path, StudentConfig(base=path, device="cpu"))
        return [score.total / score.num_tokens for score in answer_log_probs(student, rows)]

    likelier = change(per_token(str(BASE)), per_token(trained.last().path))
    print(f"trained rows, nats a token: {likelier}")
    assert likelier.num_pairs == NUM_TRAINED_ROWS
    assert likelier.interval.low > 0, likelier

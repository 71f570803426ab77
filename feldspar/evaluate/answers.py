"""What a checkpoint says to exam items, and how likely it finds the right answers."""

import logging
from collections.abc import Sequence
from pathlib import Path

from feldspar.config import EvaluateConfig, StudentConfig
from feldspar.errors import TrainingError
from feldspar.evaluate.match import is_right
from feldspar.progress import SILENT, Progress
from feldspar.records import Answer, Checkpoint, ExamItem, Message, user_turn
from feldspar.runs import read_rows, write_rows
from feldspar.student.log_probs import AnswerLogProb, AnswerRow, answer_log_probs
from feldspar.student.model import Student, load_student
from feldspar.student.sample import Sampled, sample_answers

log = logging.getLogger(__name__)


def answer_exam(
    checkpoint: Checkpoint,
    items: Sequence[ExamItem],
    *,
    student: StudentConfig,
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
) -> list[Answer]:
    """Answers in the items' order: greedy text where an item can be matched, and for every item the
    reference's mean log-likelihood per token, in nats, its stop token left out.

    Without the stop token the figure is of what is said: a base that was never taught to stop is
    not marked down for it. Raises TrainingError for an answer that the tokenizer cannot write.
    """
    if not items:
        return []
    model = load_student(checkpoint.path, student)
    said = _sample(model, items, config, seed, progress)
    rows = [AnswerRow(messages=_asked(item), answer=item.reference, ended=False) for item in items]
    likelihoods = answer_log_probs(model, rows, progress=progress)
    return [
        Answer(
            item=item.id,
            exam=item.exam,
            leaf=item.leaf,
            text=said[item.id].text if item.id in said else "",
            is_right=is_right(said[item.id].text, item) if item.id in said else None,
            log_likelihood=_per_token(likelihood, item),
            ended=said[item.id].ended if item.id in said else True,
        )
        for item, likelihood in zip(items, likelihoods, strict=True)
    ]


def kept_answers(
    path: Path,
    checkpoint: Checkpoint,
    items: Sequence[ExamItem],
    *,
    student: StudentConfig,
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
) -> list[Answer]:
    """The answers stored at `path`, made and stored where they are not there for these items."""
    if path.exists():
        answers = list(read_rows(path, Answer))
        if [answer.item for answer in answers] == [item.id for item in items]:
            return answers
        log.warning("%s holds answers to other items; they are made anew", path)
    answers = answer_exam(
        checkpoint, items, student=student, config=config, seed=seed, progress=progress
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, answers)
    return answers


def _sample(
    model: Student,
    items: Sequence[ExamItem],
    config: EvaluateConfig,
    seed: int,
    progress: Progress,
) -> dict[str, Sampled]:
    matched = [item for item in items if item.match != "likelihood"]
    drawn = sample_answers(
        model,
        [_asked(item) for item in matched],
        keys=[item.id for item in matched],
        max_new_tokens=config.max_new_tokens,
        seed=seed,
        progress=progress,
    )
    return {item.id: answers[0] for item, answers in zip(matched, drawn, strict=True)}


def _per_token(likelihood: AnswerLogProb, item: ExamItem) -> float:
    if not likelihood.num_tokens:
        raise TrainingError(
            f"exam {item.exam!r}: the student's tokenizer has no token for the answer "
            f"{item.reference[:60]!r}; take the item out, or another base"
        )
    return likelihood.total / likelihood.num_tokens


def _asked(item: ExamItem) -> tuple[Message, ...]:
    return (Message(role="user", content=user_turn(item.question, item.context)),)

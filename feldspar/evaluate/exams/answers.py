"""What a model says to exam items, and how likely it finds the right answers."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from feldspar.config import EvaluateConfig
from feldspar.errors import TrainingError
from feldspar.evaluate.examinee import Conditions, Examinee, GivenAnswer, PosedQuestion
from feldspar.kept_rows import keep, kept_path, read_kept
from feldspar.keys import content_key
from feldspar.models.model import CannotScore
from feldspar.progress import SILENT, Progress
from feldspar.records import Answer, ExamItem, Message, user_turn
from feldspar.runs import read_rows, write_rows
from feldspar.student.scoring.log_probs import AnswerLogProb, AnswerRow
from feldspar.text.match import FORMS, is_right

STAGE = "exam-answer"
VERSION = 3
"""Of the way answers are made and matched: part of what they are known by."""
log = logging.getLogger(__name__)


def answer_exam(
    examinee: Examinee,
    items: Sequence[ExamItem],
    *,
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
) -> list[Answer]:
    """Answers in the items' order: greedy text where an item can be matched, and for every item the
    reference's mean log-likelihood per token, in nats, its stop token left out.

    Without the stop token the figure is of what is said: a base that was never taught to stop is
    not marked down for it. A model that returns no log-probabilities has none, and is not right or
    wrong where choices are weighed by them. Raises TrainingError for an answer that the tokenizer
    cannot write.
    """
    if not items:
        return []
    said = _sample(examinee, items, config, seed, progress)
    rows = [
        AnswerRow(messages=_asked(item), answer=text, ended=False)
        for item in items
        for text in (item.reference, *item.choices)
    ]
    try:
        likelihoods = iter(examinee.log_probs(rows, progress))
    except CannotScore as reason:
        log.warning(
            "%s: exams are scored without log-likelihoods and multiple choice: %s",
            examinee.name, reason,
        )  # fmt: skip
        return [_unscored(item, said.get(item.id)) for item in items]
    return [
        _answer(item, said.get(item.id), [next(likelihoods) for _ in range(1 + len(item.choices))])
        for item in items
    ]


def answer_texts(
    examinee: Examinee,
    items: Sequence[ExamItem],
    *,
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
) -> list[Answer]:
    """As `answer_exam`, by the texts alone: no log-likelihoods are asked for, so what is weighed by
    them is neither right nor wrong."""
    said = _sample(examinee, items, config, seed, progress)
    return [_unscored(item, said.get(item.id)) for item in items]


def is_judged(item: ExamItem, config: EvaluateConfig) -> bool:
    """Whether a judge says if it is right: only for the report, never to choose checkpoints by."""
    asked = item.match == "judge" or (item.match == "likelihood" and config.long_answers == "judge")
    return asked and item.use == "report"


def kept_answers(
    path: Path,
    examinee: Examinee,
    items: Sequence[ExamItem],
    *,
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
    base_cache: Path | None = None,
) -> list[Answer]:
    """The answers stored at `path`, made and stored where they are not there for these items.

    `base_cache`: where answers of a base that many runs begin with are kept.
    """
    if path.exists():
        answers = list(read_rows(path, Answer))
        if [answer.item for answer in answers] == [item.id for item in items]:
            return answers
        log.warning("%s holds answers to other items; they are made anew", path)
    if base_cache is None:
        answers = answer_exam(examinee, items, config=config, seed=seed, progress=progress)
    else:
        answers = base_answers(
            base_cache, examinee, items, config=config, seed=seed, progress=progress
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_rows(path, answers)
    return answers


def base_answers(
    cache_path: Path,
    examinee: Examinee,
    items: Sequence[ExamItem],
    *,
    config: EvaluateConfig,
    seed: int,
    progress: Progress = SILENT,
) -> list[Answer]:
    """As `answer_exam`, and kept under `cache_path` for every run and arm on this base: by exam and
    leaf, so that another exam asks for its own items alone.

    A file that is damaged is named, and its items are asked again.
    """
    groups: dict[tuple[str, str], list[ExamItem]] = {}
    for item in items:
        groups.setdefault((item.exam, item.leaf), []).append(item)
    found: dict[str, Answer] = {}
    missing: list[tuple[Path, list[ExamItem]]] = []
    for members in groups.values():
        key = content_key(VERSION, examinee.key, config.of_items(), members)
        path = kept_path(cache_path, key)
        kept = read_kept(path, Answer, "its items are asked again")
        if kept is None:
            missing.append((path, members))
        else:
            found |= {answer.item: answer for answer in kept}
    asked = [item for _, members in missing for item in members]
    answers = answer_exam(examinee, asked, config=config, seed=seed, progress=progress)
    found |= {answer.item: answer for answer in answers}
    for path, members in missing:
        keep(path, [found[item.id] for item in members])
    return [found[item.id] for item in items]


def _answer(
    item: ExamItem, said: GivenAnswer | None, likelihoods: Sequence[AnswerLogProb]
) -> Answer:
    """`likelihoods` are the reference's, then the other choices'."""
    answer = replace(_unscored(item, said), log_likelihood=_per_token(likelihoods[0], item))
    if item.match == "choice":
        texts = (item.reference, *item.choices)
        # Per character, as benchmarks' acc_norm has it; what is no likelier than another is wrong.
        weighed = [x.total / len(t) for x, t in zip(likelihoods, texts, strict=True)]
        right = all(weighed[0] > other for other in weighed[1:])
        text = texts[0] if right else texts[1 + weighed[1:].index(max(weighed[1:]))]
        return replace(answer, text=text, is_right=right)
    return answer


def _unscored(item: ExamItem, said: GivenAnswer | None) -> Answer:
    """What can be said by the text alone."""
    text = said.text if said is not None else ""
    return Answer(
        item=item.id,
        exam=item.exam,
        leaf=item.leaf,
        text=text,
        is_right=is_right(text, item) if item.match in FORMS else None,
        log_likelihood=None,
        ended=said.ended if said is not None else True,
    )


def _sample(
    examinee: Examinee,
    items: Sequence[ExamItem],
    config: EvaluateConfig,
    seed: int,
    progress: Progress,
) -> dict[str, GivenAnswer]:
    matched = [item for item in items if item.match in FORMS or is_judged(item, config)]
    questions = [
        PosedQuestion(item.id, _asked(item), f"the question {item.question[:60]!r} of {item.exam}")
        for item in matched
    ]
    how = Conditions(stage=STAGE, max_new_tokens=config.max_new_tokens, seed=seed)
    given = examinee.answer(questions, how, progress) if questions else []
    return {item.id: answer for item, answer in zip(matched, given, strict=True)}


def _per_token(likelihood: AnswerLogProb, item: ExamItem) -> float:
    if not likelihood.num_tokens:
        raise TrainingError(
            f"exam {item.exam!r}: the student's tokenizer has no token for the answer "
            f"{item.reference[:60]!r}; take the item out, or another base"
        )
    return likelihood.total / likelihood.num_tokens


def _asked(item: ExamItem) -> tuple[Message, ...]:
    return (Message(role="user", content=user_turn(item.question, item.context)),)

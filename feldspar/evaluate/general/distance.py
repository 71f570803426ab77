"""How far a model has moved from its base: the perplexity of general text, and the divergence on
general prompts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.evaluate.examinee import CheckpointExaminee, Conditions, PosedQuestion
from feldspar.evaluate.general.answers import STAGE
from feldspar.evaluate.general.questions import EXAM, GeneralItem
from feldspar.kept_rows import keep, kept_path, read_kept
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.records import KL, PERPLEXITY, Interval, Message, Score
from feldspar.runs import write_rows
from feldspar.stats.intervals import cluster_interval
from feldspar.student.scoring.log_probs import AnswerRow

TEXT, PROMPTS = "general text", "general prompts"
VERSION = 2
"""Of the way the base's answers are drawn: part of what they are kept under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseContinuation:
    """What the base said when it was let free, and how likely it found that."""

    item: str
    text: str
    ended: bool
    log_probability: float
    """Of all its tokens together, in nats."""
    num_tokens: int


def base_continuations(
    base: CheckpointExaminee,
    items: Sequence[GeneralItem],
    *,
    max_new_tokens: int,
    cache_path: Path,
    progress: Progress = SILENT,
) -> list[BaseContinuation]:
    """One answer of the base to each item's first wording, drawn at temperature 1; kept under
    `cache_path` as the exam's answers are."""
    asked = [[item.id, item.ask[0]] for item in items]
    key = content_key("continuations", VERSION, base.key, asked, max_new_tokens)
    path = kept_path(cache_path, key)
    kept = read_kept(path, BaseContinuation, "the base is let answer again")
    if kept is not None:
        return kept
    questions = [PosedQuestion(item.id, _messages(item), EXAM) for item in items]
    how = Conditions(stage=STAGE, max_new_tokens=max_new_tokens, seed=0, temperature=1.0)
    given = base.answer(questions, how, progress)
    rows = [
        AnswerRow(messages=question.messages, answer=answer.text, ended=answer.ended)
        for question, answer in zip(questions, given, strict=True)
    ]
    found = [
        BaseContinuation(
            item=item.id,
            text=answer.text,
            ended=answer.ended,
            log_probability=log_prob.total,
            num_tokens=log_prob.num_tokens,
        )
        for item, answer, log_prob in zip(items, given, base.log_probs(rows, progress), strict=True)
    ]
    keep(path, found)
    return found


class Measure(NamedTuple):
    """Where figures go, and how their intervals are drawn."""

    folder: Path
    num_resamples: int
    seed: int
    progress: Progress = SILENT


def divergence_score(
    examinee: CheckpointExaminee,
    items: Sequence[GeneralItem],
    said: Sequence[BaseContinuation],
    measure: Measure,
    *,
    is_base: bool = False,
) -> Score:
    """KL(base || model) in nats a token, estimated from what the base said: the mean of
    `log p_base - log p_model` over its tokens, each weighed alike.

    Unbiased but for texts whose tokens, read again, are not the drawn ones; and as a mean of
    differences it may come out below zero where the two hardly differ. Costs one pass over these
    answers; no model but this one is loaded, and the base is not asked a second time.
    """
    by_id = {item.id: item for item in items}
    rows = [
        AnswerRow(messages=_messages(by_id[one.item]), answer=one.text, ended=one.ended)
        for one in said
    ]
    totals = [one.log_probability for one in said]
    if not is_base:
        totals = [found.total for found in examinee.log_probs(rows, measure.progress)]
    per_token = [
        (one.item, (one.log_probability - total) / one.num_tokens, one.num_tokens)
        for one, total in zip(said, totals, strict=True)
        if one.num_tokens
    ]
    return _score(examinee, PROMPTS, KL, per_token, measure)


def perplexity_score(
    examinee: CheckpointExaminee, passages: Sequence[str], measure: Measure
) -> Score:
    """exp of the mean negative log-likelihood a token, over whole passages without any template;
    the first token of each is given. Comparable between models of one tokenizer alone."""
    log_probs = examinee.text_log_probs(passages, measure.progress)
    per_token = [
        (f"passage {number}", -one.total / one.num_tokens, one.num_tokens)
        for number, one in enumerate(log_probs, start=1)
        if one.num_tokens
    ]
    return _score(examinee, TEXT, PERPLEXITY, per_token, measure)


def _score(
    examinee: CheckpointExaminee,
    exam: str,
    metric: str,
    per_token: Sequence[tuple[str, float, int]],
    measure: Measure,
) -> Score:
    """A mean over all tokens; those of one item are drawn together for its interval."""
    total = sum(value * num_tokens for _, value, num_tokens in per_token)
    num_tokens = sum(num for _, _, num in per_token)
    mean = total / num_tokens
    low, high = cluster_interval(
        [[value] * num for _, value, num in per_token], measure.num_resamples, measure.seed
    )
    if metric == PERPLEXITY:
        mean, low, high = math.exp(mean), math.exp(low), math.exp(high)
    path = measure.folder / f"{exam}.jsonl.zst"
    write_rows(path, _written(exam, per_token))
    return Score(
        checkpoint=examinee.name,
        exam=exam,
        metric=metric,
        value=mean,
        interval=Interval(min(mean, low), max(mean, high)),
        num_items=len(per_token),
        settings=f"{num_tokens} tokens, {examinee.template if metric == KL else 'no template'}",
        answers_path=str(path),
    )


def _written(exam: str, per_token: Sequence[tuple[str, float, int]]) -> Iterator[BenchmarkItem]:
    for item, value, _ in per_token:
        yield BenchmarkItem(id=item, task=exam, question="", reference="", said="", value=value)


def _messages(item: GeneralItem) -> tuple[Message, ...]:
    return (Message(role="user", content=item.ask[0]),)

"""Answers that are too long to match, judged against the reference: right or wrong.

What a judge says that is neither is a judge error: counted apart, and no score.
"""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from feldspar.config import EvaluateConfig
from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.evaluate.examinee import file_name
from feldspar.evaluate.exams.answers import is_judged
from feldspar.evaluate.scores import Group, answers_paths, groups_of
from feldspar.progress import Progress, Task
from feldspar.records import JUDGE_ERRORS, Answer, ExamItem, Message, Score
from feldspar.runs import read_rows, write_rows
from feldspar.stats.intervals import proportion_interval
from feldspar.steps import Step, Workspace
from feldspar.teacher import VERDICT, Refused, Teacher, ask_judge

STAGE = "judge-exam"
METRIC = "judged right"
MAX_TOKENS = 1024
_PROMPT = """\
### Task
You check an answer to an exam question against a reference answer.

- The verdict is YES when the answer says all that the question asks for, as the reference has it,
  in whatever words, and says nothing false.
- The verdict is NO when it is wrong, contradicts itself, or leaves out what was asked for.

{context}### Question
{question}

### Reference
{reference}

### Answer
{answer}

### Reply format
Reply with two lines, the explanation in one or two sentences:
Explanation: why
Verdict: YES or NO"""
_FORGED = re.compile(r"^([ \t]*)(?=###(?!#))", re.MULTILINE)


def score_judged(
    workspace: Workspace,
    scores: Iterable[Score],
    items: Sequence[ExamItem],
    config: EvaluateConfig,
    *,
    judge: Teacher,
) -> Iterator[Score]:
    """The shares that `judge` finds right of the judged items, for everyone in `scores`.

    By exam, leaf, branch and whole, each with the share of judge errors next to it. What the judge
    said lies in `items/CHECKPOINT/`; it comes out of the journal where it was asked before.
    """
    judged = [item for item in items if is_judged(item, config)]
    for name, path in answers_paths(scores).items():
        texts = {answer.item: answer.text for answer in read_rows(path, Answer)}
        found = asyncio.run(_judge_all(judge, judged, texts, workspace.progress))
        by_id = {item.id: one for item, one in zip(judged, found, strict=True)}
        folder = workspace.folder / "items" / file_name(name)
        folder.mkdir(parents=True, exist_ok=True)
        for number, (group, members) in enumerate(groups_of(judged).items()):
            kept = folder / f"{number:04d}.jsonl.zst"
            of_group = [by_id[item.id] for item in members]
            write_rows(kept, of_group)
            yield from _scores(name, group, of_group, judge.key, kept)


JUDGED_STEP = Step("judged", score_judged, version=1)


def judge_prompt(item: ExamItem, answer: str) -> tuple[Message, ...]:
    """What the judge is shown; nothing in an answer can pass for a section."""
    context = f"### Context\n{_quoted(item.context)}\n\n" if item.context else ""
    text = _PROMPT.format(
        context=context,
        question=_quoted(item.question),
        reference=_quoted(item.reference),
        answer=_quoted(answer) or "(nothing)",
    )
    return (Message(role="user", content=text),)


async def _judge_all(
    judge: Teacher, items: Sequence[ExamItem], texts: dict[str, str], progress: Progress
) -> list[BenchmarkItem]:
    async def judged(item: ExamItem, task: Task) -> BenchmarkItem:
        value: float | None = None
        said = texts[item.id]
        try:
            found = await ask_judge(
                judge, judge_prompt(item, said), VERDICT, stage=STAGE, max_tokens=MAX_TOKENS
            )
            value = None if found.value is None else float(found.value)
        except Refused:
            pass
        task.advance(1)
        return BenchmarkItem(
            id=item.id,
            task=item.exam,
            question=item.question,
            reference=item.reference,
            said=said,
            value=value,
        )

    with progress.task("judging exams", len(items), "answers") as task:
        async with judge:
            return await asyncio.gather(*(judged(item, task) for item in items))


def _scores(
    name: str, group: Group, items: Sequence[BenchmarkItem], judge: str, path: Path
) -> Iterator[Score]:
    values = [item.value for item in items if item.value is not None]
    num_errors = len(items) - len(values)
    figures = [(METRIC, values)] if values else []
    for metric, of_metric in [*figures, (JUDGE_ERRORS, [1.0] * num_errors + [0.0] * len(values))]:
        yield Score(
            checkpoint=name,
            exam=group.exam,
            leaf=group.leaf,
            metric=metric,
            value=statistics.fmean(of_metric),
            interval=proportion_interval(round(sum(of_metric)), len(of_metric)),
            num_items=len(of_metric),
            settings=f"judge {judge}",
            answers_path=str(path),
        )


def _quoted(text: str) -> str:
    return _FORGED.sub(r"\1\\", text).strip()

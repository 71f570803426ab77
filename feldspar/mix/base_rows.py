"""Base replay without data of one's own: what the base itself says, sampled once."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from feldspar.config import BaseReplayConfig, StudentConfig
from feldspar.errors import RecipeError
from feldspar.kept_rows import keep, read_kept
from feldspar.keys import content_key
from feldspar.records import Checkpoint, Conversation, Message, TrainOn
from feldspar.runs import cache_folder
from feldspar.steps import Step, Workspace
from feldspar.student.inference.sample import Sampled, sample_answers, sample_questions
from feldspar.student.model import load_to_answer

log = logging.getLogger(__name__)

_SOURCE = "base replay"


def sample_base(
    workspace: Workspace,
    base: Checkpoint,
    config: BaseReplayConfig,
    *,
    student: StudentConfig,
    seed: int,
) -> Iterator[Conversation]:
    """Answers of the base to the prompts of a file, or to questions of its own.

    Its own questions are what it writes after the template's opening of a user's turn. Questions
    and answers without text are left out and counted; of an answer that was cut off no end is
    trained. What a base said once is kept for other runs. Raises RecipeError where nothing is left.
    """
    path = _kept_path(base, config, student, seed)
    rows = read_kept(path, Conversation, "the base is asked again")
    if rows is None:
        rows = list(_sample(workspace, base, config, student=student, seed=seed))
        keep(path, rows)
    yield from rows


def _kept_path(
    base: Checkpoint, config: BaseReplayConfig, student: StudentConfig, seed: int
) -> Path:
    """By what decides what the base says: how much of it a phase takes does not."""
    asked = config.model_copy(update={"share": 0.0})
    prompts = read_prompts(Path(config.prompts)) if config.prompts else None
    key = content_key(BASE_REPLAY_STEP.version, base, asked, prompts, student, seed)
    return cache_folder() / "base-replay" / f"{key[:32]}.jsonl.zst"


def _sample(
    workspace: Workspace,
    base: Checkpoint,
    config: BaseReplayConfig,
    *,
    student: StudentConfig,
    seed: int,
) -> Iterator[Conversation]:
    model = load_to_answer(base.path, student)
    keys = [f"{_SOURCE} {number}" for number in range(config.num_rows)]
    longest = config.max_new_tokens
    if config.prompts is None:
        asked = sample_questions(
            model,
            keys=keys,
            temperature=config.temperature,
            max_new_tokens=longest,
            seed=seed,
            progress=workspace.progress,
        )
    else:
        given = read_prompts(Path(config.prompts))
        # The likeliest answer is the same each time.
        num_asked = min(config.num_rows, len(given)) if not config.temperature else config.num_rows
        # Where there are fewer prompts than rows, each is answered several times; where there are
        # more, they are taken from all over the file, which may be sorted by kind.
        spread = max(1.0, len(given) / num_asked)
        asked = [given[int(number * spread) % len(given)] for number in range(num_asked)]
    questions = [question for question in asked if question.strip()]
    drawn = sample_answers(
        model,
        [(Message(role="user", content=question),) for question in questions],
        keys=keys[: len(questions)],
        temperature=config.temperature,
        max_new_tokens=longest,
        seed=seed,
        progress=workspace.progress,
    )
    rows = [
        _row(number, question, answer)
        for number, (question, (answer,)) in enumerate(zip(questions, drawn, strict=True))
        if answer.text.strip()
    ]
    _tell(len(rows), len(asked), base)
    yield from rows


BASE_REPLAY_STEP = Step("base-replay", sample_base, version=4)


def read_prompts(path: Path) -> list[str]:
    """Questions, one a line: plain, or JSON with `prompt`, `question`, or `messages`.

    Raises RecipeError naming file and line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: prompts cannot be read: {error}") from error
    is_json = path.suffix.lower() == ".jsonl"
    prompts = [
        _prompt(line, f"{path}:{number}") if is_json else line.strip()
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise RecipeError(f"{path}: holds no prompt; write one a line")
    return prompts


def _prompt(line: str, place: str) -> str:
    try:
        row = json.loads(line)
        found = row.get("prompt", row.get("question"))
        if found is None:
            found = next(m["content"] for m in row["messages"] if m["role"] == "user")
    except (ValueError, AttributeError, KeyError, TypeError, StopIteration):
        found = None
    if not isinstance(found, str) or not found.strip():
        raise RecipeError(f"{place}: no prompt; write `prompt`, `question`, or `messages`")
    return found


def _row(number: int, question: str, answer: Sampled) -> Conversation:
    turns = (
        Message(role="user", content=question),
        Message(role="assistant", content=answer.text),
    )
    train_on: TrainOn = "answers" if answer.ended else "unended"
    return Conversation(id=f"{_SOURCE}:{number}", source=_SOURCE, messages=turns, train_on=train_on)


def _tell(num_kept: int, num_asked: int, base: Checkpoint) -> None:
    if not num_kept:
        raise RecipeError(
            f"mix.base_replay: {base.path} says nothing in this template; name a file of "
            "`prompts`, or a `source` of general data"
        )
    if num_kept < num_asked:
        log.warning(
            "base replay: %d of %d rows that the base was asked for have no text",
            num_asked - num_kept,
            num_asked,
        )

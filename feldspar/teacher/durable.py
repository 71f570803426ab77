"""The teacher: a model whose answers are kept, so that the same thing is never paid for twice.

An answer is found by the content of its call (model and revision, messages, sampling parameters,
draw), first in the journal, then among the calls in flight, and only then from the model. Where the
model is computed and the stage do not count.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal

from feldspar.config import BudgetConfig, TeacherConfig
from feldspar.endpoint.calls import ChatCall, Completion, Completions, Usage, most_usage
from feldspar.endpoint.faults import NoAnswers, Refused
from feldspar.endpoint.openai_chat import without_reasoning
from feldspar.endpoint.replicas import ServersHealth
from feldspar.errors import TeacherError
from feldspar.models.model import CannotScore, Continuations, LogProb, Model
from feldspar.models.opening import find_model
from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.teacher.budget import Budget, BudgetSpent, Spent, cost_of
from feldspar.teacher.journal import Journal, Stored
from feldspar.teacher.listening import Exchange, tell

REFUSED = "refused"
"""Finish reason of a journalled refusal."""
SCORED = "log-probability"
"""Finish reason of what is no answer: a sum of log-probabilities, in nats."""
SCORED_AT_ONCE = 256
"""Prompts whose log-probabilities are asked for together."""
_Keyed = tuple[list[bytes], Continuations]
WATCHED_CALLS = 200
"""The failure budget is a part of this many calls, judged from the first 20 on."""
JUDGED_FROM_CALLS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer, its reasoning trace taken off; `cached` when it cost nothing this time."""

    text: str
    finish_reason: str
    """`stop`, or `length` when even double the room was too little."""
    prompt_tokens: int
    completion_tokens: int
    cached: bool


class _Call:
    """One durable call, and how its turn comes (`endpoint.Turn`)."""

    __slots__ = ("_teacher", "call", "is_needed", "key", "most", "stage", "urgency")

    def __init__(
        self,
        teacher: Teacher,
        messages: list[dict[str, str]],
        sampling: tuple[float, int, int],
        *,
        is_needed: bool = True,
        may_be_empty: bool = False,
    ) -> None:
        temperature, max_tokens, draw = sampling
        self.call = ChatCall(
            messages=messages,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=draw,
            may_be_empty=may_be_empty,
        )
        self._teacher = teacher
        self.most = Spent()
        """Set aside for it in the budget."""
        self.stage = ""
        self.urgency = 0
        self.is_needed = is_needed
        """Else its refusal does no harm, and is no failure."""
        self.key = self._content_key()

    def _content_key(self) -> bytes:
        sampling = (self.call.temperature, self.call.max_tokens, self.call.seed)
        content = json.dumps(
            [self._teacher.answers_key, self.call.messages, sampling], ensure_ascii=False
        )
        # A lone surrogate is no text, but it must not end a run either.
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()

    async def admit(self) -> None:
        await self._teacher.journal.room()
        if not self.most.calls:
            most = self._teacher.cost_of(most_usage(self.call))
            await self._teacher.budget.reserve(most)
            self.most = most

    def waste(self, usage: Usage) -> None:
        # The next try must be within the caps again.
        self._teacher.budget.settle(self.most, self._teacher.cost_of(usage)._replace(calls=0))
        self.most = Spent()

    def look_again(self) -> Completions | None:
        self.key = self._content_key()
        stored = self._teacher.journal.get(self.key)
        if stored is None or stored.finish_reason == REFUSED:
            return None
        reason: Literal["stop", "length"] = "length" if stored.finish_reason == "length" else "stop"
        usage = Usage(stored.prompt_tokens, stored.completion_tokens)
        return Completions((Completion(stored.text, reason),), usage)


def open_teacher(
    config: TeacherConfig,
    endpoint: str,
    journal: Journal,
    *,
    budget: Budget | None = None,
    progress: Progress = SILENT,
) -> Teacher:
    """Find the teacher behind a URL and what model it serves. Then `async with teacher:` and ask.

    `budget` may be shared with a judge. Raises TeacherError when nobody answers there, or with
    another model than the recipe's.
    """
    return Teacher(find_model(config, endpoint, progress), config, journal, budget=budget)


class Teacher:
    """One model, asked durably; entered in the loop that asks it.

    It may be entered again, in another loop too, and more than once at a time: a teacher may be
    its own judge.
    """

    def __init__(
        self,
        model: Model,
        config: TeacherConfig,
        journal: Journal,
        *,
        budget: Budget | None = None,
    ) -> None:
        self.config = config
        self.journal = journal
        self.budget = budget or Budget(BudgetConfig())
        self.num_asked = 0
        """Answers that the model gave, since this teacher was made."""
        self.num_cached = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self._model = model
        self._counted: set[bytes] = set()
        """Calls that the budget knows of, by the start of their keys."""
        self._running: dict[bytes, asyncio.Task[Stored]] = {}
        self._outcomes: deque[bool] = deque(maxlen=WATCHED_CALLS)
        self._last_failure = ""
        self._num_answered = 0
        """Since it was entered, those out of the journal included."""
        self._num_failed = self._num_refused = 0
        """Calls that failed each time; and those turned down, but not for their content."""
        self._num_entered = 0

    async def __aenter__(self) -> Teacher:
        self._num_entered += 1
        if self._num_entered == 1:
            self._num_answered = self._num_failed = self._num_refused = 0
            await self._model.__aenter__()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._num_entered -= 1
        if self._num_entered:
            return
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await self._model.__aexit__()
        if kind is None:
            self._check_answered()

    @property
    def bare_model(self) -> Model:
        """The model itself, for calls whose results are kept elsewhere."""
        return self._model

    @property
    def model(self) -> str:
        """The model's name."""
        return self._model.name

    @property
    def revision(self) -> str:
        return self._model.revision

    @property
    def key(self) -> str:
        """Model id and revision: what answers, and the steps made of them, are known by."""
        return self._model.key

    @property
    def answers_key(self) -> str:
        """As `key`, with what was found out about the parameters that the model takes."""
        return self._model.answers_key

    @property
    def place(self) -> str:
        """For messages: `at http://localhost:8000/v1`."""
        return self._model.place

    @property
    def concurrency(self) -> int:
        """Calls allowed in flight just now."""
        return self._model.concurrency

    @property
    def health(self) -> ServersHealth:
        """Of its servers just now."""
        return self._model.health

    def drain(self) -> None:
        """Nothing new is to begin: from here on the samples with the longest way to go come first,
        so that all end at about the same time. Holds until the teacher is left."""
        self._model.drain()

    def cost_of(self, usage: Usage) -> Spent:
        """What a call costs that takes so many tokens, at the recipe's prices."""
        return cost_of(usage.prompt_tokens, usage.completion_tokens, self.config)

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        stage: str,
        draw: int = 0,
        temperature: float,
        max_tokens: int,
        may_grow: bool = True,
        may_be_empty: bool = False,
        urgency: int = 0,
    ) -> Reply:
        """Ask once in a lifetime. An answer cut off by `max_tokens` is asked for with double room,
        where it `may_grow`. One without text is no answer, unless it `may_be_empty`.

        More urgent calls go first. Neither `urgency` nor `stage` is part of what is asked.
        Raises Refused when there will be no answer, TeacherError when there will be none at all,
        BudgetSpent when it may not be paid for.
        """
        texts = [{"role": message.role, "content": message.content} for message in messages]
        call = _Call(self, texts, (temperature, max_tokens, draw), may_be_empty=may_be_empty)
        reply = await self._ask_durably(call, stage, urgency)
        if reply.finish_reason == "length" and may_grow:
            roomier = _Call(self, texts, (temperature, 2 * max_tokens, draw), is_needed=False)
            # Where there is not more room, the cut-off answer is all we get.
            with suppress(Refused, BudgetSpent):
                reply = await self._ask_durably(roomier, stage, urgency)
        tell(
            Exchange(
                stage=stage,
                messages=tuple(messages),
                reply=reply.text,
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                cached=reply.cached,
            )
        )
        return reply

    async def score(
        self, rows: Sequence[Continuations], *, stage: str, progress: Progress = SILENT
    ) -> list[list[LogProb]]:
        """Log-probabilities of token ids, each kept like an answer: a row is asked for once.

        Raises CannotScore where this model tells none, Refused where it will not read a row,
        TeacherError where there is nobody to ask.
        """
        keys = [self._score_keys(row) for row in rows]
        found: dict[bytes, LogProb] = {}
        missing, wanted = list[_Keyed](), set[bytes]()
        for row, of_row in zip(rows, keys, strict=True):
            asked: dict[bytes, Sequence[int]] = {}
            for key, ids in zip(of_row, row.continuations, strict=True):
                stored = self.journal.get(key)
                if stored is not None:
                    found[key] = LogProb(float(stored.text), stored.completion_tokens)
                elif key not in wanted:
                    asked[key] = ids
            if asked:
                wanted.update(asked)
                missing.append((list(asked), Continuations(row.prompt, list(asked.values()))))
        # The first alone: it finds out whether and how this model tells them.
        starts = range(1, len(missing), SCORED_AT_ONCE)
        for part in [missing[:1], *(missing[i : i + SCORED_AT_ONCE] for i in starts)]:
            if part:
                await self._score_part(part, found, stage, progress)
        return [[found[key] for key in of_row] for of_row in keys]

    async def _score_part(
        self, part: Sequence[_Keyed], found: dict[bytes, LogProb], stage: str, progress: Progress
    ) -> None:
        """Ask for these; each is kept as it comes, whatever ends the others."""
        self.journal.check()
        commits: list[asyncio.Future[Stored]] = []

        def keep(number: int, place: int, one: LogProb) -> None:
            of_row, row = part[number]
            found[of_row[place]] = one
            num_read = len(row.prompt)
            self.budget.settle(Spent(), self.cost_of(Usage(num_read + one.num_tokens, 0)))
            kept = Stored(repr(one.total), SCORED, num_read, one.num_tokens)
            put = self.journal.put(of_row[place], kept, model=self.key, stage=stage)
            commits.append(asyncio.ensure_future(put))

        try:
            await self._model.score([row for _, row in part], progress, keep)
        except NoAnswers as error:
            if error.why == "address":
                raise CannotScore(f"knows no completions ({error.reason})") from error
            raise TeacherError(error.sentence("teacher")) from error
        finally:
            await asyncio.gather(*commits)

    def _score_keys(self, row: Continuations) -> list[bytes]:
        contents = [[self.key, SCORED, list(row.prompt), list(ids)] for ids in row.continuations]
        return [hashlib.sha256(json.dumps(one).encode()).digest() for one in contents]

    async def _ask_durably(self, call: _Call, stage: str, urgency: int) -> Reply:
        key = call.key
        stored = self.journal.get(key)
        is_cached = stored is not None
        if stored is None:
            task = self._running.get(key)
            if task is None:
                call.stage, call.urgency = stage, urgency
                task = asyncio.get_running_loop().create_task(self._pay(call))
                # By the key that it began with: a parameter that is given up changes it.
                self._running[key] = task
                task.add_done_callback(partial(self._forget, key))
            stored = await asyncio.shield(task)
        else:
            self.num_cached += 1
            self._num_answered += 1
            if key[:8] not in self._counted:
                self._counted.add(key[:8])
                self.budget.settle(Spent(), self._stored_cost(stored))
        if stored.finish_reason == REFUSED:
            raise Refused(stored.text, is_about_content=True)
        return Reply(
            text=without_reasoning(stored.text),
            finish_reason=stored.finish_reason,
            prompt_tokens=stored.prompt_tokens,
            completion_tokens=stored.completion_tokens,
            cached=is_cached,
        )

    def _forget(self, key: bytes, task: asyncio.Task[Stored]) -> None:
        """A call has ended. Who asked for it may have been told to stop before it failed, and then
        nobody else looks at what it raised."""
        self._running.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def _pay(self, call: _Call) -> Stored:
        """Get an answer within the budget, and commit it."""
        self._counted.add(call.key[:8])
        paid = Spent()
        try:
            stored = await self._get_answer(call)
            paid = self._stored_cost(stored)
            return stored
        finally:
            self.budget.settle(call.most, paid)

    def _stored_cost(self, stored: Stored) -> Spent:
        return self.cost_of(Usage(stored.prompt_tokens, stored.completion_tokens))

    async def _get_answer(self, call: _Call) -> Stored:
        """Ask the model, however long it takes, and commit what it says."""
        self.journal.check()
        try:
            answer = await self._model.complete(call.call, call)
        except NoAnswers as error:
            raise TeacherError(error.sentence("teacher")) from error
        except Refused as refused:
            # A call like any other for the budget, as it is when it is found in the journal.
            stored = None
            if refused.is_about_content:
                stored = await self._commit(call, Stored(refused.reason, REFUSED, 0, 0))
            if call.is_needed:
                self._num_failed += refused.gave_up
                self._num_refused += not (refused.gave_up or refused.is_about_content)
                self._note(False, refused.reason)
            if stored is None:
                raise
            return stored
        self._note(True)
        (choice, *_), usage = answer
        self._num_answered += 1
        self.num_asked += 1
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        return await self._commit(call, Stored(choice.text, choice.finish_reason, *usage))

    async def _commit(self, call: _Call, stored: Stored) -> Stored:
        return await self.journal.put(call.key, stored, model=self.key, stage=call.stage)

    def _note(self, is_answered: bool, reason: str = "") -> None:
        """Keep count of failures. Raises TeacherError beyond the budget."""
        self._outcomes.append(is_answered)
        self._last_failure = reason or self._last_failure
        num_failed = self._outcomes.count(False) if not is_answered else 0
        num_calls = len(self._outcomes)
        if num_calls >= JUDGED_FROM_CALLS and num_failed > self.config.failure_budget * num_calls:
            raise self._too_many(num_failed, f"the last {num_calls}")

    def _check_answered(self) -> None:
        """No step is done whose calls went unanswered, however few. Raises TeacherError."""
        num_unanswered = self._num_failed + (0 if self._num_answered else self._num_refused)
        num_calls = self._num_answered + self._num_failed + self._num_refused
        if num_unanswered > self.config.failure_budget * num_calls:
            raise self._too_many(num_unanswered, f"{num_calls}")

    def _too_many(self, num_failed: int, of: str) -> TeacherError:
        return TeacherError(
            f"the teacher {self.place} failed {num_failed} of {of} calls for good (last: "
            f"{self._last_failure}); mend the cause or raise `failure_budget`, then run again: "
            "every answer so far is kept"
        )

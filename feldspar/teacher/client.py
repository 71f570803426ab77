"""The teacher: asks a big model over the OpenAI protocol, and never the same thing twice.

An answer is found by the content of its call (model and revision, messages, sampling parameters,
draw), first in the journal, then among the calls in flight, and only then at the server. The
server's address and the stage do not count.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import openai

from feldspar.config import BudgetConfig, TeacherConfig
from feldspar.errors import TeacherError
from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.teacher.budget import (
    FEWEST_CHARACTERS_PER_TOKEN,
    Budget,
    BudgetSpent,
    Spent,
    cost_of,
)
from feldspar.teacher.completions import read_completion, without_reasoning
from feldspar.teacher.faults import (
    MENDABLE,
    Fault,
    Refused,
    read_fault,
    secret_in,
    without_secret,
)
from feldspar.teacher.governor import Governor, Outcome
from feldspar.teacher.journal import Journal, Stored
from feldspar.teacher.rate_limit import Pace
from feldspar.teacher.servers import Servers

STAGE_HEADER = "X-Feldspar-Stage"
REFUSED = "refused"
"""Finish reason of a journalled refusal."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
OPENING_TRIES = 3
WATCHED_CALLS = 200
"""The failure budget is a part of this many calls, judged from the first 20 on."""
JUDGED_FROM_CALLS = 20
CONNECT_SECONDS = 10.0


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
    """What is sent, and the key it is stored under."""

    __slots__ = ("draw", "key", "max_tokens", "messages", "most", "stage", "temperature", "urgency")

    def __init__(
        self, model_key: str, messages: list[dict[str, str]], sampling: tuple[float, int, int]
    ) -> None:
        self.messages = messages
        self.temperature, self.max_tokens, self.draw = sampling
        self.most = Spent()
        """Set aside for it in the budget."""
        self.stage = ""
        self.urgency = 0
        content = json.dumps([model_key, messages, sampling], ensure_ascii=False)
        # A lone surrogate is no text, but it must not end a run either.
        self.key = hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()


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
    with ExitStack() as stack:
        for tries in range(1, OPENING_TRIES + 1):
            try:
                model, revision = _find_model(config, endpoint)
                for other in config.endpoints:
                    _check_same(config, model, revision, endpoint, other)
                teacher = Teacher(config, endpoint, journal, model, revision)
                teacher.budget = budget or teacher.budget
                return teacher
            except MENDABLE as error:
                fault = without_secret(read_fault(error), secret_in(config.key_variable))
            if fault.kind == "locked out":
                raise _locked_out(config, endpoint)
            if tries == 1:
                waiting = progress.task(f"waiting for {endpoint}", OPENING_TRIES, "tries")
                task = stack.enter_context(waiting)
            task.advance(1)
            if fault.kind == "refused" or tries == OPENING_TRIES:
                break
            time.sleep(FIRST_PAUSE_SECONDS * tries)
    raise TeacherError(
        f"no teacher answers at {endpoint} ({fault.reason}); start the server, or mend `endpoint` "
        "in the recipe (a URL that ends in /v1, or `embedded`)"
    )


class Teacher:
    """One model behind one server. Made by `open_teacher`; entered in the loop that asks it.

    It may be entered again, in another loop too, and more than once at a time: a teacher may be
    its own judge.
    """

    def __init__(
        self, config: TeacherConfig, endpoint: str, journal: Journal, model: str, revision: str
    ) -> None:
        self.config = config
        self.endpoint = endpoint
        self.model = model
        self.revision = revision
        self.key: str = f"{model}@{revision}" if revision else model
        """Model id and revision: what answers, and the steps made of them, are known by."""
        self.num_asked = 0
        """Answers that the server gave, since this teacher was made."""
        self.num_cached = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.budget = Budget(BudgetConfig())
        self._counted: set[bytes] = set()
        """Calls that the budget knows of, by the start of their keys."""
        self._journal = journal
        self._governor = Governor(config.concurrency, config.max_concurrency)
        self._jitter = random.Random()
        self._running: dict[bytes, asyncio.Task[Stored]] = {}
        self._outcomes: deque[bool] = deque(maxlen=WATCHED_CALLS)
        self._last_failure = ""
        self._last_answer_time = float("-inf")
        self._servers = Servers((endpoint, *config.endpoints))
        self._requests = Pace(config.requests_per_minute)
        self._tokens = Pace(config.tokens_per_minute)
        self._num_entered = 0

    async def __aenter__(self) -> Teacher:
        self._num_entered += 1
        if self._num_entered > 1:
            return self
        self._governor.drain(False)
        for server in self._servers.all:
            timeout = openai.Timeout(self.config.timeout_seconds, connect=CONNECT_SECONDS)
            server.client = openai.AsyncOpenAI(
                base_url=server.url,
                api_key=secret_in(self.config.key_variable),
                max_retries=0,
                http_client=openai.DefaultAioHttpClient(timeout=timeout),
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._num_entered -= 1
        if self._num_entered:
            return
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for server in self._servers.all:
            client, server.client = server.client, None
            assert client is not None
            await client.close()

    @property
    def concurrency(self) -> int:
        """Calls allowed in flight just now."""
        return self._governor.limit

    def drain(self) -> None:
        """Nothing new is to begin: from here on the samples with the longest way to go come first,
        so that all end at about the same time. Holds until the teacher is left."""
        self._governor.drain()

    async def ask(
        self,
        messages: Sequence[Message],
        *,
        stage: str,
        draw: int = 0,
        temperature: float,
        max_tokens: int,
        may_grow: bool = True,
        urgency: int = 0,
    ) -> Reply:
        """Ask once in a lifetime. An answer cut off by `max_tokens` is asked for with double room,
        where it `may_grow`.

        More urgent calls go first. Neither `urgency` nor `stage` is part of what is asked.
        Raises Refused when there will be no answer, TeacherError when there will be none at all,
        BudgetSpent when it may not be paid for.
        """
        texts = [{"role": message.role, "content": message.content} for message in messages]
        call = _Call(self.key, texts, (temperature, max_tokens, draw))
        reply = await self._ask_durably(call, stage, urgency)
        if reply.finish_reason != "length" or not may_grow:
            return reply
        roomier = _Call(self.key, texts, (temperature, 2 * max_tokens, draw))
        try:
            return await self._ask_durably(roomier, stage, urgency)
        except (Refused, BudgetSpent):
            # More room than there is: the cut-off answer is all we get.
            return reply

    async def _ask_durably(self, call: _Call, stage: str, urgency: int) -> Reply:
        stored = self._journal.get(call.key)
        is_cached = stored is not None
        if stored is None:
            task = self._running.get(call.key)
            if task is None:
                call.stage, call.urgency = stage, urgency
                task = asyncio.get_running_loop().create_task(self._pay(call))
                self._running[call.key] = task
                task.add_done_callback(lambda _: self._running.pop(call.key, None))
            stored = await asyncio.shield(task)
        else:
            self.num_cached += 1
            if call.key[:8] not in self._counted:
                self._counted.add(call.key[:8])
                self.budget.settle(Spent(), self._cost_of(stored))
        if stored.finish_reason == REFUSED:
            raise Refused(stored.text)
        return Reply(
            text=without_reasoning(stored.text),
            finish_reason=stored.finish_reason,
            prompt_tokens=stored.prompt_tokens,
            completion_tokens=stored.completion_tokens,
            cached=is_cached,
        )

    async def _pay(self, call: _Call) -> Stored:
        """Get an answer within the budget, and commit it."""
        self._counted.add(call.key[:8])
        paid = Spent()
        try:
            stored = await self._get_answer(call)
            paid = self._cost_of(stored)
            return stored
        finally:
            self.budget.settle(call.most, paid)

    def _most_cost(self, call: _Call) -> Spent:
        num_characters = sum(len(message["content"]) for message in call.messages)
        prompt_tokens = num_characters // FEWEST_CHARACTERS_PER_TOKEN + 1
        return cost_of(prompt_tokens, call.max_tokens, self.config)

    def _cost_of(self, stored: Stored) -> Spent:
        return cost_of(stored.prompt_tokens, stored.completion_tokens, self.config)

    async def _get_answer(self, call: _Call) -> Stored:
        """Ask the server, however long it takes, and commit what it says."""
        began = time.monotonic()
        for attempt in range(self.config.max_retries + 1):
            answer = await self._try_once(call)
            if isinstance(answer, Stored):
                self._note(True)
                return await self._commit(call, answer)
            fault = answer
            if fault.kind == "locked out":
                raise _locked_out(self.config, self.endpoint)
            if fault.kind == "refused":
                break
            if attempt < self.config.max_retries:
                await asyncio.sleep(self._pause_seconds(attempt, fault))
        if fault.is_connection and self._last_answer_time < began:
            raise TeacherError(
                f"the teacher at {self.endpoint} is gone ({fault.reason}); start it again, then "
                "run again: every answer so far is kept"
            )
        self._note(False, fault.reason)
        if fault.is_about_content:
            # A call like any other, when it is met in the journal too.
            return await self._commit(call, Stored(fault.reason, REFUSED, 0, 0))
        raise Refused(fault.reason)

    async def _try_once(self, call: _Call) -> Stored | Fault:
        ticket = await self._governor.acquire(call.stage, call.urgency)
        outcome: Outcome = "failed"
        try:
            await self._wait_for_room(call)
            ticket = self._governor.begin(ticket)
            answer = await self._post(call)
            if isinstance(answer, Stored):
                outcome = "answered"
                self._tokens.give_back(call.most.tokens - self._cost_of(answer).tokens)
            elif answer.kind == "push back":
                outcome = "pushed back"
            return answer
        finally:
            self._governor.release(ticket, outcome)

    async def _wait_for_room(self, call: _Call) -> None:
        """In the budget and in the rates: only now, in order of urgency, so that what may be spent
        finishes samples."""
        most = self._most_cost(call)
        if not call.most.calls:
            await self.budget.reserve(most)
            call.most = most
        await self._requests.take(1)
        await self._tokens.take(most.tokens)

    async def _post(self, call: _Call) -> Stored | Fault:
        server = self._servers.begin()
        assert server.client is not None, "ask inside `async with teacher:`"
        # Posted as it is: the typed method spends as much time on checking the request and
        # modelling the reply as on all the rest.
        body = {
            "model": self.model,
            "messages": call.messages,
            "temperature": call.temperature,
            "max_tokens": call.max_tokens,
            "seed": call.draw,
        }
        options: openai.RequestOptions = {"headers": {STAGE_HEADER: call.stage}}
        answer: Stored | Fault = Fault("refused", "given up")
        try:
            reply = await server.client.post(
                "/chat/completions", cast_to=object, body=body, options=options
            )
            answer = read_completion(reply)
        except MENDABLE as error:
            answer = without_secret(read_fault(error), secret_in(self.config.key_variable))
        finally:
            self._servers.end(server, answer if isinstance(answer, Fault) else None)
        return answer

    async def _commit(self, call: _Call, stored: Stored) -> Stored:
        if stored.finish_reason != REFUSED:
            self._last_answer_time = time.monotonic()
            self.num_asked += 1
            self.prompt_tokens += stored.prompt_tokens
            self.completion_tokens += stored.completion_tokens
        return await self._journal.put(call.key, stored, model=self.key, stage=call.stage)

    def _note(self, is_answered: bool, reason: str = "") -> None:
        """Keep count of failures. Raises TeacherError beyond the budget."""
        self._outcomes.append(is_answered)
        self._last_failure = reason or self._last_failure
        num_failed = self._outcomes.count(False) if not is_answered else 0
        num_calls = len(self._outcomes)
        if num_calls >= JUDGED_FROM_CALLS and num_failed > self.config.failure_budget * num_calls:
            raise TeacherError(
                f"the teacher at {self.endpoint} failed {num_failed} of the last {num_calls} calls "
                f"for good (last: {self._last_failure}); mend the cause or raise `failure_budget`, "
                "then run again: every answer so far is kept"
            )

    def _pause_seconds(self, attempt: int, fault: Fault) -> float:
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**attempt)
        return max(fault.retry_after_seconds, longest * self._jitter.uniform(0.5, 1.0))


def _find_model(config: TeacherConfig, endpoint: str) -> tuple[str, str]:
    """Id and revision of the model to ask; the revision is the recipe's, else the server's."""
    with openai.OpenAI(
        base_url=endpoint,
        api_key=secret_in(config.key_variable),
        max_retries=0,
        timeout=CONNECT_SECONDS,
    ) as client:
        cards = {card.id: card for card in client.models.list()}
    model = config.model or next(iter(cards), None)
    if model is None:
        raise TeacherError(f"the teacher at {endpoint} serves no model; load one there")
    if model not in cards:
        there = ", ".join(list(cards)[:10])
        raise TeacherError(f"the teacher at {endpoint} has no model {model!r}; there are: {there}")
    revision = config.revision or getattr(cards[model], "revision", None) or ""
    return model, str(revision)


def _check_same(
    config: TeacherConfig, model: str, revision: str, endpoint: str, other: str
) -> None:
    """Raises TeacherError where another server has not the same model in the same revision."""
    found = _find_model(config.model_copy(update={"model": model}), other)
    if found != (model, revision):
        raise TeacherError(
            f"the teachers at {endpoint} and {other} have {model!r} in the revisions {revision!r} "
            f"and {found[1]!r}; take the one that is meant into `endpoints`, or set `revision`"
        )


def _locked_out(config: TeacherConfig, endpoint: str) -> TeacherError:
    return TeacherError(
        f"the teacher at {endpoint} does not take the key; put a valid one into the environment "
        f"variable {config.key_variable}"
    )

"""One model behind one or several servers: asked with retries, within limits, as one thing.

    endpoint = Endpoint(access, ["http://localhost:8000/v1"], "qwen")
    async with endpoint:
        answer = await endpoint.complete(ChatCall(...))

The one place where retries, replicas, rates, concurrency and a server's odd parameters meet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

from feldspar.endpoint import anthropic_messages, classify, openai_chat, openai_completions
from feldspar.endpoint.calls import (
    ChatCall,
    Completions,
    Json,
    PromptCall,
    Usage,
    most_usage,
)
from feldspar.endpoint.concurrency import Governor, Outcome
from feldspar.endpoint.faults import (
    Fault,
    NoAnswers,
    Refused,
    Why,
    secret_in,
    without_secret,
)
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.endpoint.parameters import PARAMETERS, Parameters
from feldspar.endpoint.protocol import ChatProtocol
from feldspar.endpoint.rate_limit import Pace
from feldspar.endpoint.replicas import Replicas, ServersHealth
from feldspar.endpoint.retry import Retry
from feldspar.endpoint.transport import HttpReply, Transport

T = TypeVar("T")

PROTOCOLS: dict[str, ChatProtocol] = {
    "openai": openai_chat.PROTOCOL,
    "anthropic": anthropic_messages.PROTOCOL,
}
STAGE_HEADER = "X-Feldspar-Stage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """How servers are asked, and how patiently."""

    protocol: Literal["openai", "anthropic"] = "openai"
    key_variable: str = "OPENAI_API_KEY"
    timeout_seconds: float = 300.0
    """Of one call, from its first byte out to its last byte in."""
    max_retries: int = 8
    concurrency: int = 0
    """Calls in flight; 0 finds the servers' limit, up to `max_concurrency`."""
    max_concurrency: int = 256
    """Of each server."""
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    is_proxied: bool = True
    """Whether by the environment's proxy: not where the run itself started the servers."""

    @property
    def headers(self) -> dict[str, str]:
        return PROTOCOLS[self.protocol].headers(secret_in(self.key_variable))


class Turn(Protocol):
    """Whose call it is. All of it may be left to `UNHURRIED`."""

    stage: str
    """Told to the server in a header, and told apart when its latency is watched."""
    urgency: int

    async def admit(self) -> None:
        """Awaited when the call is about to be sent; raises where it may not be paid for."""

    def waste(self, usage: Usage) -> None:
        """A reply that was no answer cost so much."""

    def look_again(self) -> Completions | None:
        """Called when the parameters that decide an answer have changed: an answer that is known
        under the new ones."""


class Unhurried:
    """A call of no stage, outside every budget."""

    stage = ""
    urgency = 0

    async def admit(self) -> None:
        pass

    def waste(self, usage: Usage) -> None:
        pass

    def look_again(self) -> Completions | None:
        return None


UNHURRIED = Unhurried()


async def _nothing() -> None:
    """Of servers that somebody else started, no more is known than that they do not answer."""


class Endpoint:
    """May be entered again, in another loop too, and more than once at a time."""

    def __init__(
        self,
        access: Access,
        servers: Sequence[str] | Replicas,
        model: str,
        *,
        check: Callable[[], Awaitable[None]] | None = None,
        place: str = "",
        transport: Transport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`servers` are URLs, or a pool that somebody else keeps. `check` is awaited when a
        connection was lost or nobody is in the pool: it returns when there is a server to ask, and
        raises NoAnswers where there will be none. `place`: what messages call it, where it is not
        its first URL. `transport`: what carries calls, where it is not HTTP; `clock` tells the same
        seconds as the loop's."""
        self.access = access
        self.model = model
        self._replicas = (
            servers
            if isinstance(servers, Replicas)
            else Replicas([url.rstrip("/") for url in servers], clock)
        )
        self.place = place or f"at {self._replicas.all[0].url}"
        self.parameters = Parameters(access.parameters)
        self._protocol = PROTOCOLS[access.protocol]
        self._check = check or _nothing
        self._clock = clock
        self._governor = Governor(access.concurrency, access.max_concurrency, clock)
        self._requests = Pace(access.requests_per_minute, clock)
        self._tokens = Pace(access.tokens_per_minute, clock)
        self._retry = Retry(access.max_retries, self.place)
        self._transport = transport or Transport(
            access.timeout_seconds, is_proxied=access.is_proxied
        )
        self._headers = access.headers
        self._num_entered = 0
        self._stopped: NoAnswers | None = None
        self._last_answer_time = float("-inf")
        self._trial = asyncio.Lock()
        self._was_tried = False

    async def __aenter__(self) -> Endpoint:
        self._num_entered += 1
        if self._num_entered == 1:
            self._stopped = None
            self._headers = self.access.headers
            self._trial = asyncio.Lock()
            self._governor.drain(False)
            await self._transport.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._num_entered -= 1
        if not self._num_entered:
            await self._transport.__aexit__()

    @property
    def concurrency(self) -> int:
        """Calls allowed in flight just now."""
        return self._governor.limit

    @property
    def health(self) -> ServersHealth:
        """Of its servers just now."""
        return self._replicas.health()

    @property
    def has_answered(self) -> bool:
        return self._last_answer_time > float("-inf")

    def drain(self) -> None:
        """Nothing new is to begin: from here on the least urgent calls come first, so that all end
        at about the same time. Holds until the endpoint is left."""
        self._governor.drain()

    async def complete(self, call: ChatCall | PromptCall, turn: Turn = UNHURRIED) -> Completions:
        """The answer, however often it has to be asked for.

        Raises Refused where there is none to this call, NoAnswers where there is none to any.
        """
        return await self._persist(
            lambda: self._admitted(call, turn, lambda: self._post(call, turn))
        )

    async def score(
        self, prompt: str | Sequence[int], way: Json, turn: Turn = UNHURRIED
    ) -> list[PromptToken] | None:
        """What the model gives the tokens of a prompt from the second on, asked for in one of
        `openai_completions.SCORE_WAYS`; None where the reply does not tell. Raises as `complete`.
        """
        call = PromptCall(prompt=prompt, max_tokens=1)
        body = openai_completions.score_body(self.model, prompt, way)

        def send() -> Awaitable[HttpReply | Fault]:
            return self._send(openai_completions.PATH, body, turn)

        reply = await self._persist(lambda: self._admitted(call, turn, send))
        return openai_completions.read_scores(reply.body, prompt)

    async def outputs(
        self, messages: Sequence[Mapping[str, str]], turn: Turn = UNHURRIED
    ) -> list[float] | None:
        """What a classifier makes of a conversation that ends with an answer; None where the reply
        does not tell. Raises as `complete`."""
        call = ChatCall(messages=messages, temperature=0.0, max_tokens=1)
        body = self.parameters.apply(classify.classify_body(self.model, messages))

        def send() -> Awaitable[HttpReply | Fault]:
            return self._send(classify.PATH, body, turn)

        reply = await self._persist(lambda: self._admitted(call, turn, send))
        return classify.read_outputs(reply.body)

    async def _persist(self, ask: Callable[[], Awaitable[T | Fault]]) -> T:
        began = self._clock()
        found = await self._retry.persist(ask)
        if not isinstance(found, Fault):
            return found
        if found.kind == "stop":
            raise self._stop(found.why, found.reason)
        if found.is_connection and self._last_answer_time < began:
            raise self._stop("gone", found.reason)
        if found.status in (404, 405) and not self.has_answered:
            raise self._stop("address", found.reason)
        raise Refused(
            found.reason,
            is_about_content=found.is_about_content,
            gave_up=found.kind != "refused",
        )

    def _stop(self, why: Why, reason: str) -> NoAnswers:
        """What ends all calls, those that wait for their turn included."""
        cure = f"the environment variable {self.access.key_variable}" if why == "key" else ""
        self._stopped = NoAnswers(self.place, why, reason, cure=cure)
        return self._stopped

    async def _admitted(
        self, call: ChatCall | PromptCall, turn: Turn, send: Callable[[], Awaitable[T | Fault]]
    ) -> T | Fault:
        """One try, when it is the call's turn and within the rates."""
        self._governor.fit(len(self._replicas.all))
        ticket = await self._governor.acquire(turn.stage, turn.urgency)
        outcome: Outcome = "failed"
        try:
            if self._stopped is not None:
                raise self._stopped
            # Only now, in order of urgency, so that what may be spent finishes samples.
            await turn.admit()
            most = most_usage(call).total
            await self._requests.take(1)
            await self._tokens.take(most)
            ticket = self._governor.begin(ticket)
            found = await send()
            if not isinstance(found, Fault):
                outcome = "answered"
                self._last_answer_time = self._clock()
                if isinstance(found, Completions):
                    self._tokens.give_back(most - found.usage.total)
                return found
            if found.usage.total:
                turn.waste(found.usage)
            if found.kind == "push back":
                outcome = "pushed back"
            if found.is_connection:
                await self._check()
            return found
        finally:
            self._governor.release(ticket, outcome)

    async def _send(self, path: str, body: Json, turn: Turn) -> HttpReply | Fault:
        server = self._replicas.begin()
        if server is None:
            return Fault("retry", "no server is up", is_connection=True)
        found: HttpReply | Fault = Fault("refused", "given up")
        try:
            headers = {**self._headers, STAGE_HEADER: turn.stage} if turn.stage else self._headers
            is_classified = path == classify.PATH
            url = classify.address(server.url) if is_classified else server.url + path
            reply = self._transport.post(url, body, headers)
            found = await server.unless_lost(reply)
        finally:
            self._replicas.end(server, found if isinstance(found, Fault) else None)
        if isinstance(found, Fault):
            return without_secret(found, secret_in(self.access.key_variable))
        return found

    async def _post(self, call: ChatCall | PromptCall, turn: Turn) -> Completions | Fault:
        if isinstance(call, ChatCall):
            return await self._post_chat(call, turn)
        body = openai_completions.completions_body(self.model, call)
        reply = await self._send(openai_completions.PATH, body, turn)
        if isinstance(reply, Fault):
            return reply
        return openai_completions.read_completions(call, reply.body)

    async def _post_chat(self, call: ChatCall, turn: Turn) -> Completions | Fault:
        """Again at once where the server is found not to take a parameter: that costs nothing."""
        while True:
            version, key = self.parameters.version, self.parameters.key
            found = await self._post_with(self.parameters, call, turn)
            if not isinstance(found, Fault) or found.kind != "refused":
                return found
            if self.parameters.version == version:
                if found.parameter:
                    name = self.parameters.give_up(found.parameter)
                    if not name:
                        return found
                    self.parameters.say(name, found.reason, self.place)
                else:
                    tried = await self._try_without(call, turn, found)
                    if tried is not None:
                        return tried
            if self.parameters.key != key and (known := turn.look_again()) is not None:
                return known

    async def _post_with(
        self, parameters: Parameters, call: ChatCall, turn: Turn
    ) -> Completions | Fault:
        body = parameters.apply(self._protocol.body(self.model, call))
        reply = await self._send(self._protocol.path, body, turn)
        return reply if isinstance(reply, Fault) else self._protocol.read(call, reply.body)

    async def _try_without(
        self, call: ChatCall, turn: Turn, fault: Fault
    ) -> Completions | Fault | None:
        """Whether a parameter is at fault where the server does not say: tried once, at the first
        call that it refuses, before it has answered any. None where another call found out."""
        if self.has_answered or fault.is_about_content or fault.status not in (400, 422):
            return fault
        version = self.parameters.version
        async with self._trial:
            if self.parameters.version != version:
                return None
            if self._was_tried:
                return fault
            for names in [*((name,) for name in PARAMETERS), PARAMETERS]:
                trial = self.parameters.without(names)
                found = await self._post_with(trial, call, turn)
                if not isinstance(found, Fault):
                    self.parameters.adopt(trial)
                    for name in names:
                        self.parameters.say(name, fault.reason, self.place)
                    return found
                if found.kind != "refused":
                    # What passes tells nothing of parameters: the call's next try finds out.
                    return found
            self._was_tried = True
        return fault

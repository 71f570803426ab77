"""How servers are asked: again where that may mend it, and with the cure where it will not."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import openai

from feldspar.endpoint.faults import (
    ErrorBody,
    Fault,
    Refused,
    fault_of,
    one_line,
    secret_in,
    without_secret,
)
from feldspar.endpoint.retry import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from feldspar.endpoint.transport import CONNECT_SECONDS
from feldspar.errors import TrainingError

MENDABLE = (openai.APIError, json.JSONDecodeError)


class NoAnswer(TrainingError):
    """A server stayed away, or failed each time."""

    def __init__(self, server: Server, reason: str) -> None:
        super().__init__(
            f"the server at {server.endpoint} does not answer ({reason}); start it, or mend its "
            "`endpoint` (a URL that ends in /v1), then run again: what there is so far is kept"
        )
        self.reason = reason


class Server(Protocol):
    """Where a server is, and how patient to be with it."""

    @property
    def endpoint(self) -> str: ...
    @property
    def key_variable(self) -> str: ...
    @property
    def timeout_seconds(self) -> float: ...


@asynccontextmanager
async def open_client(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    timeout = openai.Timeout(server.timeout_seconds, connect=CONNECT_SECONDS)
    async with openai.AsyncOpenAI(
        base_url=server.endpoint,
        api_key=secret_in(server.key_variable),
        max_retries=0,
        http_client=openai.DefaultAioHttpClient(timeout=timeout),
    ) as client:
        yield client


async def list_models(client: openai.AsyncOpenAI) -> dict[str, Any]:
    """The models that a server has, by their ids."""
    return {card.id: card async for card in client.models.list()}


async def post(client: openai.AsyncOpenAI, body: dict[str, object]) -> object:
    """The reply to a request for completions, as it came."""
    return await client.post("/completions", cast_to=object, body=body)


async def persist(server: Server, tries: int, ask: Callable[[], Awaitable[object]]) -> object:
    """Ask until there is an answer. Raises Refused, NoAnswer, or TrainingError for a key."""
    secret = secret_in(server.key_variable)
    reason = ""
    for attempt in range(tries):
        try:
            return await ask()
        except MENDABLE as error:
            fault = without_secret(read_fault(error), secret)
        reason = fault.reason
        if fault.why == "key":
            raise locked_out(server)
        if fault.kind == "refused":
            raise Refused(reason)
        if attempt < tries - 1:
            longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**attempt)
            await asyncio.sleep(max(fault.retry_after_seconds, longest * random.uniform(0.5, 1.0)))
    raise NoAnswer(server, reason)


def locked_out(server: Server) -> TrainingError:
    return TrainingError(
        f"the server at {server.endpoint} does not take the key; put a valid one into the "
        f"environment variable {server.key_variable}"
    )


def read_fault(error: Exception) -> Fault:
    """Sort an error of the client by what is to be done."""
    if isinstance(error, openai.APITimeoutError):
        return Fault("push back", "no answer in time", is_connection=True)
    if isinstance(error, openai.APIConnectionError):
        return Fault("retry", f"connection lost: {one_line(str(error))}", is_connection=True)
    if not isinstance(error, openai.APIStatusError):
        return Fault("retry", f"no readable answer: {one_line(str(error))}")
    fault = fault_of(error.status_code, ErrorBody(error.message))
    return fault._replace(reason=str(error.status_code)) if error.status_code >= 500 else fault

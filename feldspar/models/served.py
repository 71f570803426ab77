"""A model behind one or several URLs."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from feldspar.endpoint import retry
from feldspar.endpoint.calls import ChatCall, Completions, Json, PromptCall
from feldspar.endpoint.endpoint import UNHURRIED, Access, Endpoint, Turn
from feldspar.endpoint.faults import Fault, NoAnswers, Refused, secret_in, without_secret
from feldspar.endpoint.models_list import ListedModel, choose_model, list_models
from feldspar.endpoint.openai_completions import PromptToken, ways_for
from feldspar.endpoint.replicas import ServersHealth
from feldspar.endpoint.transport import CONNECT_SECONDS, Transport, run_apart
from feldspar.models.model import CannotScore, Continuations, Heard, LogProb, unheard
from feldspar.progress import SILENT, Progress

OPENING_TRIES = 3


class NotFound(Exception):
    """The wanted model is not there. The message is one line with the cure."""


def model_key(name: str, revision: str, parameters: Json) -> str:
    """`qwen`, `qwen@2`, `qwen@2 with {"top_k": 20}`: what decides answers, in one line."""
    key = f"{name}@{revision}" if revision else name
    return f"{key} with {json.dumps(parameters, sort_keys=True)}" if parameters else key


class ServedModel:
    """A model that servers compute. Made by `find_served` where it is to be looked for first."""

    def __init__(self, endpoint: Endpoint, card: ListedModel, revision: str = "") -> None:
        self.endpoint = endpoint
        self.card = card
        self.revision = revision or card.revision
        self.key = model_key(self.name, self.revision, endpoint.parameters.key)
        self._ways: dict[bool, Json] = {}
        """How the servers tell log-probabilities: of texts (True), and of token ids."""

    @property
    def name(self) -> str:
        return self.endpoint.model

    @property
    def answers_key(self) -> str:
        return model_key(self.name, self.revision, self.endpoint.parameters.key)

    @property
    def place(self) -> str:
        return self.endpoint.place

    @property
    def concurrency(self) -> int:
        return self.endpoint.concurrency

    @property
    def health(self) -> ServersHealth:
        return self.endpoint.health

    async def __aenter__(self) -> ServedModel:
        await self.endpoint.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.endpoint.__aexit__()

    def drain(self) -> None:
        self.endpoint.drain()

    async def complete(self, call: ChatCall | PromptCall, turn: Turn = UNHURRIED) -> Completions:
        return await self.endpoint.complete(call, turn)

    async def prompt_tokens(
        self, prompt: str | Sequence[int], turn: Turn = UNHURRIED
    ) -> list[PromptToken]:
        """How likely the model finds each token of a prompt from the second on.

        The first call finds out in which of the known ways this server tells that. Raises
        CannotScore where it tells in none, or leaves some out.
        """
        is_text = isinstance(prompt, str)
        known = self._ways.get(is_text)
        for way in ways_for(prompt) if known is None else (known,):
            try:
                found = await self.endpoint.score(prompt, way, turn)
            except Refused as refused:
                if known is not None or refused.gave_up:
                    raise
                continue
            if found is not None:
                self._ways[is_text] = way
                return found
        if known is None:
            raise CannotScore(
                f"tells no log-probabilities of a prompt given as {'text' if is_text else 'ids'}, "
                "by `prompt_logprobs` or by `echo` with `logprobs`; vLLM and `feldspar serve` do"
            )
        raise CannotScore("left log-probabilities of a prompt's tokens out of its answer")

    async def reward(self, messages: Sequence[Mapping[str, str]], turn: Turn = UNHURRIED) -> float:
        """What a scalar reward model makes of a conversation that ends with an answer. Raises
        CannotScore where it is none."""
        found = await self.endpoint.outputs(messages, turn)
        if found is None:
            raise CannotScore("returns no number for a conversation at /classify")
        if len(found) != 1:
            raise CannotScore(f"returns {len(found)} outputs, and a reward is one")
        return found[0]

    async def score(
        self,
        rows: Sequence[Continuations],
        progress: Progress = SILENT,
        heard: Heard = unheard,
    ) -> list[list[LogProb]]:
        pairs = [
            (number, place, row.prompt, ids)
            for number, row in enumerate(rows)
            for place, ids in enumerate(row.continuations)
        ]
        with progress.task("log-probabilities", len(pairs), "answers") as task:

            async def score_one(
                number: int, place: int, prompt: Sequence[int], ids: Sequence[int]
            ) -> LogProb:
                total = 0.0
                if ids:
                    tokens = (await self.prompt_tokens([*prompt, *ids]))[-len(ids) :]
                    total = math.fsum(token.log_prob for token in tokens)
                    if not math.isfinite(total):
                        raise CannotScore("tells log-probabilities that are no numbers")
                task.advance(1)
                found = LogProb(total, len(ids))
                heard(number, place, found)
                return found

            running = [asyncio.ensure_future(score_one(*pair)) for pair in pairs]
            try:
                found = iter(await asyncio.gather(*running))
            finally:
                for one in running:
                    one.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        return [[next(found) for _ in row.continuations] for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which model is looked for behind which URLs."""

    urls: Sequence[str]
    model: str | None = None
    """None takes the first that is listed."""
    revision: str = ""
    """Empty takes the one that the server tells."""
    who: str = "server"
    """What errors call it: `teacher`."""


def find_served(wanted: Wanted, access: Access, progress: Progress = SILENT) -> ServedModel:
    """Find the model behind its URLs; the same one, in one revision, behind each.

    Raises NoAnswers where nobody answers or the key is not taken, NotFound where it is not there.
    """
    return run_apart(_find(wanted, access, progress))


async def _find(wanted: Wanted, access: Access, progress: Progress) -> ServedModel:
    urls = [url.rstrip("/") for url in wanted.urls]
    async with Transport(CONNECT_SECONDS, is_proxied=access.is_proxied) as transport:
        card = await _find_card(transport, urls[0], wanted, access, progress)
        revision = wanted.revision or card.revision
        for other in urls[1:]:
            same = replace(wanted, model=card.id)
            found = await _find_card(transport, other, same, access, progress)
            if not wanted.revision and found.revision != revision:
                raise NotFound(
                    f"the {wanted.who}s at {urls[0]} and {other} have {card.id!r} in the revisions "
                    f"{revision!r} and {found.revision!r}; take the one that is meant into "
                    "`endpoints`, or set `revision`"
                )
    return ServedModel(Endpoint(access, urls, card.id), card, revision)


async def _find_card(
    transport: Transport, url: str, wanted: Wanted, access: Access, progress: Progress
) -> ListedModel:
    with ExitStack() as stack:
        for tries in range(1, OPENING_TRIES + 1):
            listing = await list_models(transport, url, access.headers)
            if not isinstance(listing, Fault):
                break
            fault = without_secret(listing, secret_in(access.key_variable))
            if fault.kind in ("stop", "refused") or tries == OPENING_TRIES:
                raise opening_fault(url, fault, access)
            if tries == 1:
                task = stack.enter_context(
                    progress.task(f"waiting for {url}", OPENING_TRIES, "tries")
                )
            task.advance(1)
            await asyncio.sleep(retry.FIRST_PAUSE_SECONDS * tries)
    assert not isinstance(listing, Fault), listing
    found, who = choose_model(listing, wanted.model, f"at {url}"), f"the {wanted.who} at {url}"
    match found.problem:
        case "none":
            raise NotFound(f"{who} serves no model; load one there")
        case "missing":
            raise NotFound(f"{who} has no model {wanted.model!r}; there are: {found.there}")
        case "unlisted":
            raise NotFound(
                f"{who} lists no models ({found.there}); mend its `endpoint` (a URL that ends "
                "in /v1), or name its `model`"
            )
    assert found.card is not None
    return found.card


def opening_fault(url: str, fault: Fault, access: Access) -> NoAnswers:
    """What is raised where a server is not found."""
    cure = f"the environment variable {access.key_variable}" if fault.why == "key" else ""
    return NoAnswers(f"at {url}", fault.why, fault.reason, cure=cure)

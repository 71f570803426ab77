"""A model of the reward pair that a server computes: vLLM, `feldspar serve`, or another that takes
token ids and tells the log-probabilities of a prompt.

Text is put into turns and tokens here, as for a local model, and sent as ids: the server's own
template and tokenizer are never used.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import openai

from feldspar.config import RewardServerConfig
from feldspar.endpoint.faults import Refused
from feldspar.errors import TrainingError
from feldspar.models.served import OPENING_TRIES
from feldspar.prefer.asking import list_models, open_client, persist, post
from feldspar.progress import SILENT, Progress
from feldspar.student.scoring.log_probs import AnswerLogProb
from feldspar.student.scoring.score import Tree
from feldspar.student.template.render import Template

_TRIAL = "Seven is a number between 6 and 8."
_MANNERS: tuple[dict[str, object], ...] = (
    {"prompt_logprobs": 1, "max_tokens": 1, "temperature": 0},
    {"echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0},
    {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0},
)
"""What a request for its prompt's log-probabilities says beside it: vLLM's way, the protocol's, and
that of servers which always write a token."""


class _Told(NamedTuple):
    """What a server says of a prompt's tokens from the second on; texts where it gives them."""

    log_probs: list[float]
    texts: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """One model of the pair behind a URL; its tokenizer and template are local."""

    config: RewardServerConfig
    model: str
    manner: dict[str, object]
    tokenizer: Any
    template: Template
    longest: float
    """Tokens of a prompt and its answer; infinite where neither files nor server say."""

    @property
    def name(self) -> str:
        return f"{self.model} at {self.config.endpoint}"

    def read(self, trees: Sequence[Tree], progress: Progress = SILENT) -> list[AnswerLogProb]:
        """Score every continuation, in order, several at a time; empty ones score 0.

        Raises TrainingError where the server stays away, or will not answer.
        """
        rows = [(list(tree.prompt), list(ids)) for tree in trees for ids in tree.continuations]
        return asyncio.run(self._read_all(rows, progress))

    async def _read_all(
        self, rows: Sequence[tuple[list[int], list[int]]], progress: Progress
    ) -> list[AnswerLogProb]:
        room = asyncio.Semaphore(self.config.concurrency)
        with progress.task("log-probabilities", len(rows), "answers") as task:
            async with open_client(self.config) as client:

                async def read(prompt: list[int], answer: list[int]) -> AnswerLogProb:
                    async with room:
                        total = await self._read_one(client, prompt, answer) if answer else 0.0
                    task.advance(1)
                    return AnswerLogProb(total, len(answer))

                running = [asyncio.create_task(read(*row)) for row in rows]
                try:
                    return await asyncio.gather(*running)
                finally:
                    for one in running:
                        one.cancel()
                    await asyncio.gather(*running, return_exceptions=True)

    async def _read_one(
        self, client: openai.AsyncOpenAI, prompt: list[int], answer: list[int]
    ) -> float:
        ids = [*prompt, *answer]
        try:
            reply = await persist(
                self.config,
                self.config.max_retries + 1,
                lambda: post(client, _body(self.model, ids, self.manner)),
            )
        except Refused as error:
            raise TrainingError(
                f"{self.name} refuses a prompt of {len(ids)} tokens ({error.reason}); lower "
                "prefer.max_new_tokens, or raise the server's limit"
            ) from error
        told = _read_told(reply, ids)
        if told is None or not all(map(math.isfinite, told.log_probs[-len(answer) :])):
            raise TrainingError(
                f"{self.name} left log-probabilities of a prompt's tokens out of its answer; see "
                "its log, then run again: what there is so far is kept"
            )
        return math.fsum(told.log_probs[-len(answer) :])


def connect(
    config: RewardServerConfig, tokenizer: Any, template: Template, longest: float
) -> ServedModel:
    """Find the model behind a URL, and how it tells log-probabilities.

    Raises TrainingError where nobody answers, where there is no such model, where it tells none of
    a prompt given as ids, and where it reads these ids as another text.
    """
    return asyncio.run(_connect(config, tokenizer, template, longest))


async def _connect(
    config: RewardServerConfig, tokenizer: Any, template: Template, longest: float
) -> ServedModel:
    async with open_client(config) as client:
        model, most = await _find_model(client, config)
        ids = tokenizer(_TRIAL, add_special_tokens=False)["input_ids"]
        for manner in _MANNERS:
            told = await _try(client, config, model, ids, manner)
            if told is not None:
                _check_text(config, told, tokenizer.decode(ids[1:]))
                return ServedModel(
                    config=config, model=model, manner=manner, tokenizer=tokenizer,
                    template=template, longest=min(longest, most),
                )  # fmt: skip
    raise TrainingError(
        f"the server at {config.endpoint} tells no log-probabilities of a prompt given as token "
        "ids, by `prompt_logprobs` or by `echo` with `logprobs`; vLLM and `feldspar serve` do, or "
        "leave the server out and the model is computed here"
    )


async def _find_model(client: openai.AsyncOpenAI, config: RewardServerConfig) -> tuple[str, float]:
    """Its id, and the tokens it reads where the server says so."""

    try:
        cards: Any = await persist(config, OPENING_TRIES, lambda: list_models(client))
    except Refused as error:
        raise TrainingError(
            f"the server at {config.endpoint} lists no models ({error.reason}); its `endpoint` is "
            "a URL that ends in /v1"
        ) from error
    model = config.model or next(iter(cards), None)
    if model not in cards:
        there = ", ".join(list(cards)[:10]) or "none"
        raise TrainingError(
            f"the server at {config.endpoint} has no model {model!r}; there are: {there}"
        )
    return str(model), float(getattr(cards[model], "max_model_len", None) or math.inf)


async def _try(
    client: openai.AsyncOpenAI,
    config: RewardServerConfig,
    model: str,
    ids: list[int],
    manner: dict[str, object],
) -> _Told | None:
    try:
        reply = await persist(
            config, OPENING_TRIES, lambda: post(client, _body(model, ids, manner))
        )
    except Refused:
        return None
    return _read_told(reply, ids)


def _check_text(config: RewardServerConfig, told: _Told, expected: str) -> None:
    if told.texts and _letters("".join(told.texts)) != _letters(expected):
        raise TrainingError(
            f"the server at {config.endpoint} reads the tokens of {expected!r} as "
            f"{''.join(told.texts)!r}: its tokenizer is another than the one named here; name the "
            "folder of the tokenizer that the served model has"
        )


def _letters(text: str) -> str:
    """What is left when the ways of writing spaces are put aside."""
    return "".join(c for c in text if c.isascii() and c.isalnum())


def _read_told(reply: object, ids: Sequence[int]) -> _Told | None:
    """None where the reply does not tell a log-probability of every token but the first."""
    choices = reply.get("choices") if isinstance(reply, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        return None
    by_token = choice.get("prompt_logprobs")
    if isinstance(by_token, list) and len(by_token) == len(ids):
        found = [
            entry.get(str(token)) if isinstance(entry, dict) else None
            for token, entry in zip(ids[1:], by_token[1:], strict=True)
        ]
        rows = [entry for entry in found if isinstance(entry, dict)]
        return _told(
            [row.get("logprob") for row in rows], [row.get("decoded_token") for row in rows], ids
        )
    echoed = choice.get("logprobs")
    if not isinstance(echoed, dict):
        return None
    log_probs, texts = echoed.get("token_logprobs"), echoed.get("tokens")
    if not isinstance(log_probs, list) or len(log_probs) - len(ids) not in (0, 1):
        return None
    texts = texts if isinstance(texts, list) else []
    return _told(log_probs[1 : len(ids)], texts[1 : len(ids)], ids)


def _told(log_probs: list[object], texts: list[object], ids: Sequence[int]) -> _Told | None:
    values = [float(value) for value in log_probs if isinstance(value, int | float)]
    if len(values) != len(ids) - 1:
        return None
    return _Told(values, [text for text in texts if isinstance(text, str)])


def _body(model: str, ids: list[int], manner: dict[str, object]) -> dict[str, object]:
    return {"model": model, "prompt": ids, **manner}

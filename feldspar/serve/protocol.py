"""The completions protocols as records, and how replies are written as JSON."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from feldspar.records import Message

FinishReason = Literal["stop", "length"]


class RequestError(Exception):
    """A request that cannot be served; it becomes an error object in OpenAI's shape.

    Who answers may raise it too, for example with status 400 where a prompt is too long.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds
        self.status = status
        self.message = message
        self.param = param
        self.code = code


class ModelCard(NamedTuple):
    """A model that the server lists; `revision` names the weights, or the code, behind the id."""

    id: str
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """How to sample: what chat and text requests have in common."""

    model: str
    n: int = 1
    """Choices wanted."""
    seed: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int | None = None
    """None: as far as the model goes."""
    stop: tuple[str, ...] = ()
    num_log_probs: int | None = None
    """Likeliest tokens to tell beside each token's log-probability; None tells neither."""
    stream: bool = False
    include_usage: bool = False
    """Whether a stream ends with what it cost."""
    stage: str = ""
    """The header X-Feldspar-Stage: which of a pipeline's stages is calling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest(SamplingOptions):
    """What to answer."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRequest(SamplingOptions):
    """What to go on from: texts, or token ids."""

    prompts: tuple[str | tuple[int, ...], ...]
    echo: bool = False
    """Whether the prompt comes back too, with its log-probabilities where these are asked for."""


class TokenScore(NamedTuple):
    """A token with its log-probability in nats; None for the first of a text."""

    text: str
    log_prob: float | None
    likeliest: tuple[tuple[str, float], ...] = ()


class Choice(NamedTuple):
    text: str
    finish_reason: FinishReason = "stop"
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """The choices of one call, with what it cost in tokens."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int


class TextPiece(NamedTuple):
    """Text of one choice as it comes; the last piece of a choice has a reason."""

    choice: int
    text: str
    num_tokens: int
    scores: tuple[TokenScore, ...] = ()
    finish_reason: FinishReason | None = None


class Pieces(NamedTuple):
    """An answer on its way. Closing `stream` ends the work for it."""

    prompt_tokens: int
    num_choices: int
    stream: AsyncGenerator[TextPiece]


async def collect(pieces: Pieces) -> ChatReply:
    """The whole reply, once all of it is there."""
    texts = [""] * pieces.num_choices
    scores: list[tuple[TokenScore, ...]] = [()] * pieces.num_choices
    reasons: list[FinishReason] = ["stop"] * pieces.num_choices
    num_tokens = 0
    async for piece in pieces.stream:
        texts[piece.choice] += piece.text
        scores[piece.choice] += piece.scores
        num_tokens += piece.num_tokens
        reasons[piece.choice] = piece.finish_reason or reasons[piece.choice]
    return ChatReply(
        choices=tuple(map(Choice, texts, reasons, scores)),
        prompt_tokens=pieces.prompt_tokens,
        completion_tokens=num_tokens,
    )


class ReplyHead(NamedTuple):
    """What every body of one answer says of it; `created` in seconds since 1970."""

    call_id: str
    model: str
    created: int
    is_chat: bool


def write_reply(reply: ChatReply, head: ReplyHead) -> bytes:
    """The body of an answer."""
    choices = []
    for index, choice in enumerate(reply.choices):
        row: dict[str, Any] = {"index": index, "finish_reason": choice.finish_reason}
        row["logprobs"] = _scores(choice.scores, head, 0) if choice.scores else None
        if head.is_chat:
            row["message"] = {"role": "assistant", "content": choice.text, "refusal": None}
        else:
            row["text"] = choice.text
        choices.append(row)
    usage = _usage(reply.prompt_tokens, reply.completion_tokens)
    return json.dumps(_body(head, choices, is_chunk=False) | {"usage": usage}).encode()


def write_piece(piece: TextPiece, head: ReplyHead, *, is_first: bool, offset: int) -> bytes:
    """One event of a stream; `offset` is where the piece begins in its choice's text."""
    row: dict[str, Any] = {"index": piece.choice, "finish_reason": piece.finish_reason}
    row["logprobs"] = _scores(piece.scores, head, offset) if piece.scores else None
    if head.is_chat:
        row["delta"] = {"role": "assistant"} if is_first else {}
        if piece.text or is_first:
            row["delta"] |= {"content": piece.text}
    else:
        row["text"] = piece.text
    return _event(_body(head, [row], is_chunk=True))


def write_stream_usage(head: ReplyHead, prompt_tokens: int, completion_tokens: int) -> bytes:
    """The event that ends a stream whose request wanted to know what it cost."""
    usage = _usage(prompt_tokens, completion_tokens)
    return _event(_body(head, [], is_chunk=True) | {"usage": usage})


def _body(head: ReplyHead, choices: list[dict[str, Any]], *, is_chunk: bool) -> dict[str, Any]:
    kind = "text_completion"
    if head.is_chat:
        kind = "chat.completion.chunk" if is_chunk else "chat.completion"
    return {
        "id": head.call_id,
        "object": kind,
        "created": head.created,
        "model": head.model,
        "choices": choices,
    }


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def _scores(scores: Sequence[TokenScore], head: ReplyHead, offset: int) -> dict[str, Any]:
    if head.is_chat:
        rows = []
        for score in scores:
            top = [_chat_score(text, log_prob) for text, log_prob in score.likeliest]
            rows.append(_chat_score(score.text, score.log_prob) | {"top_logprobs": top})
        return {"content": rows, "refusal": None}
    offsets = []
    for score in scores:
        offsets.append(offset)
        offset += len(score.text)
    # The first token of a text follows nothing: the protocol has null for it.
    tops = [None if s.log_prob is None else dict(reversed(s.likeliest)) for s in scores]
    return {
        "tokens": [score.text for score in scores],
        "token_logprobs": [score.log_prob for score in scores],
        "top_logprobs": tops,
        "text_offset": offsets,
    }


def _chat_score(text: str, log_prob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": log_prob, "bytes": list(text.encode())}


def write_error(error: RequestError) -> bytes:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    body = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return json.dumps({"error": body}).encode()


def write_models(models: Sequence[ModelCard]) -> bytes:
    return json.dumps({"object": "list", "data": [_model(card) for card in models]}).encode()


def write_model(card: ModelCard) -> bytes:
    return json.dumps(_model(card)).encode()


def _model(card: ModelCard) -> dict[str, object]:
    return {
        "id": card.id,
        "object": "model",
        "created": 0,
        "owned_by": "feldspar",
        "revision": card.revision,
    }

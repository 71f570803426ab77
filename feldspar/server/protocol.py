"""The chat-completions protocol as records, and how replies are written as JSON."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from feldspar.records import Message

FinishReason = Literal["stop", "length"]


class RequestError(Exception):
    """A request that cannot be served; it becomes an error object in OpenAI's shape.

    `complete` may raise it too, for example with status 400 where a prompt is too long.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


class ModelCard(NamedTuple):
    """A model that the server lists; `revision` names the weights, or the code, behind the id."""

    id: str
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """One call: what to answer, and how to sample."""

    model: str
    messages: tuple[Message, ...]
    n: int = 1
    """Choices wanted."""
    seed: int | None = None
    temperature: float = 1.0
    max_tokens: int | None = None
    """None: as far as the model goes."""
    stop: tuple[str, ...] = ()
    stage: str = ""
    """The header X-Feldspar-Stage: which of a pipeline's stages is calling."""


class Choice(NamedTuple):
    text: str
    finish_reason: FinishReason = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """The choices of one call, with what it cost in tokens."""

    choices: tuple[Choice, ...]
    prompt_tokens: int
    completion_tokens: int


def write_reply(reply: ChatReply, model: str, call_id: str, created: int) -> bytes:
    """The body of an answer; `created` in seconds since 1970."""
    body = {
        "id": call_id,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": choice.text, "refusal": None},
                "logprobs": None,
                "finish_reason": choice.finish_reason,
            }
            for index, choice in enumerate(reply.choices)
        ],
        "usage": {
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "total_tokens": reply.prompt_tokens + reply.completion_tokens,
        },
    }
    return json.dumps(body).encode()


def write_error(error: RequestError) -> bytes:
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    body = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return json.dumps({"error": body}).encode()


def write_models(models: Sequence[ModelCard]) -> bytes:
    rows = [
        {
            "id": card.id,
            "object": "model",
            "created": 0,
            "owned_by": "feldspar",
            "revision": card.revision,
        }
        for card in models
    ]
    return json.dumps({"object": "list", "data": rows}).encode()

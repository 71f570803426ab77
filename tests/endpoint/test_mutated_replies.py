"""Whatever is done to a reply, it is read as an answer or as a fault, and never ends a run."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from feldspar.endpoint.anthropic_messages import read_message
from feldspar.endpoint.calls import ChatCall, Completions, PromptCall
from feldspar.endpoint.faults import ErrorBody, Fault, fault_of, read_error_body, read_retry_after
from feldspar.endpoint.openai_chat import read_chat, without_reasoning
from feldspar.endpoint.openai_completions import read_completions, read_scores
from feldspar.teacher.journal import Stored, sound

NUM_MUTANTS = 3000
CHAT = ChatCall(messages=[{"role": "user", "content": "hi"}], temperature=0.0, max_tokens=9)
PROMPT = PromptCall(prompt=[1, 2, 3], max_tokens=9, num_choices=2)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "input_tokens": 3, "output_tokens": 2}
REPLIES: dict[str, tuple[Any, Callable[[Any], object]]] = {
    "chat": (
        {
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": "yes", "reasoning_content": "hm"},
                }
            ],
            "usage": USAGE,
        },
        lambda reply: read_chat(CHAT, reply),
    ),
    "message": (
        {
            "type": "message",
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}],
            "stop_reason": "end_turn",
            "usage": {**USAGE, "cache_read_input_tokens": 4},
        },
        lambda reply: read_message(CHAT, reply),
    ),
    "completions": (
        {
            "choices": [
                {"index": 1, "text": "b", "finish_reason": "length"},
                {"index": 0, "text": "a", "finish_reason": "stop"},
            ],
            "usage": USAGE,
        },
        lambda reply: read_completions(PROMPT, reply),
    ),
    "log-probabilities": (
        {
            "choices": [
                {
                    "logprobs": {
                        "tokens": ["a", "b", "c"],
                        "token_logprobs": [None, -0.5, -1.5],
                        "text_offset": [0, 1, 2],
                        "top_logprobs": [None, {"b": -0.5}, {"z": -0.1}],
                    }
                }
            ]
        },
        lambda reply: (read_scores(reply, [7, 8, 9]), read_scores(reply, "abc")),
    ),
    "vLLM's log-probabilities": (
        {
            "choices": [
                {
                    "prompt_logprobs": [
                        None,
                        {"8": {"logprob": -0.5, "rank": 1, "decoded_token": "b"}},
                        {"9": {"logprob": -0.5, "rank": 2, "decoded_token": "c"}},
                    ]
                }
            ]
        },
        lambda reply: (read_scores(reply, [7, 8, 9]), read_scores(reply, "abc")),
    ),
    "error": (
        {"error": {"message": "no `seed`", "param": "seed", "code": 422, "type": "invalid"}},
        lambda reply: fault_of(422, read_error_body(reply) or ErrorBody(), "3", ("seed",)),
    ),
    "FastAPI's error": (
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no"}]},
        lambda reply: fault_of(422, read_error_body(reply) or ErrorBody(), "inf", ("seed",)),
    ),
}
ODD = (
    *(None, True, False, 0, -1, 10**30, -(10**30), 0.5, math.nan, math.inf, "", "yes", "\ud83d"),
    *([], [None], ["yes"], {}, {"text": "yes"}, [[1]], {"content": [4]}, "\x00", "content_filter"),
)


def mutant(value: Any, dice: random.Random) -> Any:
    """A few of its parts replaced, taken away, or doubled."""
    value = copy.deepcopy(value)
    for _ in range(dice.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return dice.choice(ODD)
        holder, key = dice.choice(places)
        match dice.randrange(4):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case _:
                holder[key] = copy.deepcopy(dice.choice(ODD))
    return value


def _places(value: Any) -> Any:
    keys = (
        value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    )
    for key in list(keys):
        yield value, key
        yield from _places(value[key])


@pytest.mark.parametrize("kind", REPLIES)
def test_a_mutated_reply_is_an_answer_or_a_fault(kind: str) -> None:
    reply, read = REPLIES[kind]
    dice = random.Random(kind)
    for number in range(NUM_MUTANTS):
        odd = mutant(reply, dice)
        found = read(odd)
        if isinstance(found, Completions):
            for choice in found.choices:
                choice.text.encode()
                without_reasoning(choice.text)
                assert choice.finish_reason in ("stop", "length"), (number, odd)
            assert min(found.usage) >= 0, (number, odd)
            assert max(found.usage) < 10_000, (number, odd)
            assert all(type(tokens) is int for tokens in found.usage), (number, odd)
        elif isinstance(found, Fault):
            assert found.reason.isprintable(), (number, odd)
            assert found.kind in ("retry", "push back", "refused", "stop")
        else:
            assert isinstance(found, tuple)


def test_what_the_journal_keeps_can_be_kept() -> None:
    dice = random.Random(1)
    for _ in range(NUM_MUTANTS):
        text = "".join(chr(dice.choice((0, 65, 0xD83D, 0xDE00, 0x1F600))) for _ in range(9))
        stored = sound(Stored(text, text, dice.choice(ODD[3:7]), dice.choice(ODD[3:7])))
        json.dumps(stored).encode()
        stored.text.encode()
        assert all(0 <= count < 2**63 for count in stored[2:])


WISHES = ("", "soon", "-5", "nan", "1e400", "99999999999999", "\x00",
          "Wed, 99 Oct 99999 99:99:99 GMT", "Thu, 01 Jan 1970 00:00:00")  # fmt: skip


@pytest.mark.parametrize("value", WISHES)
def test_any_wish_to_wait_is_read(value: str) -> None:
    assert read_retry_after(value) >= 0


def told(log_probs: list[object], starts: list[object]) -> object:
    texts = ["t"] * len(log_probs)
    scored = {"token_logprobs": log_probs, "tokens": texts, "text_offset": starts}
    return {"choices": [{"logprobs": scored}]}


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -float("inf"), 1e300, 10**400, 0.5, -(10**7), "1", True]
)
def test_no_number_that_is_no_log_probability_is_taken_for_one(value: object) -> None:
    assert read_scores(told([None, value, -1.0], [0, 1, 2]), [7, 8, 9]) is None
    assert read_scores(told([None, value, -1.0], [0, 1, 2]), "abc") is None
    by_token = {"choices": [{"prompt_logprobs": [None, {"8": {"logprob": value}}]}]}
    assert read_scores(by_token, [7, 8]) is None


def test_places_that_are_not_those_of_the_prompts_letters_are_not_taken_for_them() -> None:
    sound = read_scores(told([None, -1.0, -2.0, -3.0], [0, 1, 2, 3]), "abc")
    assert sound is not None
    assert [token.log_prob for token in sound] == [-1.0, -2.0]
    for starts in ([0, 2, 1], [0, -1, 2], [0, 5, 9]):
        assert read_scores(told([None, -1.0, -2.0], list(starts)), "abc") is None

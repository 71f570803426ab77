"""An answer without text: none from a teacher, and a wrong one from a model that is examined."""

from dataclasses import replace

import pytest

from feldspar.endpoint.anthropic_messages import read_message
from feldspar.endpoint.calls import ChatCall, Completions
from feldspar.endpoint.faults import Fault
from feldspar.endpoint.openai_chat import read_chat

CALL = ChatCall(messages=[{"role": "user", "content": "Who?"}], temperature=0.0, max_tokens=8)


def openai_reply(reason="stop", **message):
    message = {"role": "assistant", "content": ""} | message
    return {"choices": [{"message": message, "finish_reason": reason}]}


def anthropic_reply(*parts, reason="end_turn"):
    return {"content": list(parts), "stop_reason": reason}


@pytest.mark.parametrize(
    ("read", "reply"), [(read_chat, openai_reply()), (read_message, anthropic_reply())]
)
def test_it_is_an_answer_where_it_may_be(read, reply):
    assert isinstance(read(CALL, reply), Fault)
    found = read(replace(CALL, may_be_empty=True), reply)
    assert isinstance(found, Completions)
    assert [(one.text, one.finish_reason) for one in found.choices] == [("", "stop")]


@pytest.mark.parametrize(
    ("read", "reply"),
    [
        (read_chat, openai_reply(reasoning_content="It is Tom.")),
        (read_chat, openai_reply(tool_calls=[{"id": "1"}])),
        (read_chat, openai_reply("tool_calls")),
        (read_message, anthropic_reply({"type": "thinking", "thinking": "Tom"})),
        (read_message, anthropic_reply(reason="tool_use")),
    ],
)
def test_what_was_thought_or_called_instead_is_no_answer(read, reply):
    assert isinstance(read(replace(CALL, may_be_empty=True), reply), Fault)

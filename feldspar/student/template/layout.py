"""Where the turns of a conversation stand: the lab template, or a base's own, taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import TemplateError

from feldspar.errors import TrainingError
from feldspar.records import Message
from feldspar.student.template.tokens import LAB

TEMPLATE_DATE = datetime(2024, 7, 26)
"""What a chat template that asks for today's date is told, so that rows do not depend on the day.
Llama 3's templates write it where they have no clock."""


_CLOCK = re.compile(r"""strftime_now\s*\(\s*(?P<mark>["'])(?P<format>.*?)(?P=mark)\s*\)""")


class TemplateRefusal(TrainingError):
    """A chat template cannot write turns of these roles as they would be trained."""


class TemplatePiece(NamedTuple):
    """Text of a prompt: the template's own, in which special tokens count, or someone's content."""

    text: str
    is_content: bool
    is_user: bool = False
    """Whether it is a user's content."""


class TemplateTurn(NamedTuple):
    """What stands before an answer, and the answer; None where it is still to be given."""

    prompt: tuple[TemplatePiece, ...]
    answer: str | None
    lead: str = ""
    """What the template writes between its generation prompt and the answer: trained with it."""
    tail: str = ""
    """What it writes between the answer and the stop token: trained with it too."""


Layout = Callable[[Sequence[Message], bool], list[TemplateTurn]]
"""(messages, answered) -> turns. Not answered: one open turn more, at the end."""


def lab_turns(messages: Sequence[Message], answered: bool) -> list[TemplateTurn]:
    """The stop token after each answer is not part of the pieces."""
    turns: list[TemplateTurn] = []
    pieces: list[TemplatePiece] = []
    for message in messages:
        if message.role != "assistant":
            pieces += [
                TemplatePiece(f"{LAB.of_role(message.role)}\n", False),
                TemplatePiece(message.content, True, message.role == "user"),
            ]
            pieces.append(TemplatePiece("\n", False))
            continue
        pieces.append(TemplatePiece(f"{LAB.assistant}\n", False))
        turns.append(TemplateTurn(tuple(pieces), message.content))
        pieces = [TemplatePiece("\n", False)]
    if not answered:
        turns.append(TemplateTurn((*pieces, TemplatePiece(f"{LAB.assistant}\n", False)), None))
    return turns


def lab_chat_template(*, bos: bool, system_prompt: str) -> str:
    """The lab template in Jinja, to be written into a tokenizer."""
    default = (
        "{% set given = namespace(system=false) %}{% for message in messages %}"
        "{% if message['role'] == 'system' and message['content'] %}"
        "{% set given.system = true %}{% endif %}{% endfor %}"
        "{% if not given.system %}"
        "{{ '" + LAB.system + "\\n' + " + _quoted(system_prompt) + " + '\\n' }}{% endif %}"
    )
    return (
        ("{{ bos_token }}" if bos else "")
        + (default if system_prompt else "")
        + "{% for message in messages %}{% if message['role'] == 'assistant' %}"
        "{{ '" + LAB.assistant + "\\n' + message['content'] + '" + LAB.stop + "' }}"
        "{% if not loop.last %}{{ '\\n' }}{% endif %}"
        "{% elif message['content'] or message['role'] != 'system' %}"
        "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}"
        "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + LAB.assistant + "\\n' }}{% endif %}"
    )


class OwnLayout:
    """Takes a base's chat template apart by rendering it with marks in place of the contents.

    So contents can be told from the template's text, whatever they spell. Templates that look at
    contents are rendered as for contents they have nothing to say about.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._skeleton = lru_cache(maxsize=256)(self._take_apart)
        self._special = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        self.asks_date = "strftime_now" in str(tokenizer.chat_template)
        self._complete()
        self.tail, self.stop_text = self._find_stop()
        padded = self._render([{"role": "user", "content": f" {_mark(0)} "}], generate=False)
        self._strips = f" {_mark(0)} " not in padded
        bos = tokenizer.bos_token
        self.writes_bos = bool(bos) and padded.startswith(bos)
        """Whether a conversation begins with the tokenizer's BOS, by the template itself."""
        self.lead = self._skeleton(("user", "assistant"), True)[-1].lead
        """What the template writes before an answer that its generation prompt lacks."""

    @property
    def key(self) -> str:
        """Of all that decides where turns stand."""
        parts = [self._tokenizer.chat_template, self._tokenizer.special_tokens_map]
        return json.dumps([*parts, *([TEMPLATE_DATE.isoformat()] if self.asks_date else [])])

    def __call__(self, messages: Sequence[Message], answered: bool) -> list[TemplateTurn]:
        while answered and messages and messages[-1].role != "assistant":
            messages = messages[:-1]
        if answered and not messages:
            return []
        contents = [m.content.strip() if self._strips else m.content for m in messages]
        skeleton = self._skeleton(tuple(m.role for m in messages), answered)
        filled = []
        for turn in skeleton:
            pieces = [
                TemplatePiece(contents[int(p.text)], True, messages[int(p.text)].role == "user")
                if p.is_content
                else p
                for p in turn.prompt
            ]
            answer = None if turn.answer is None else contents[int(turn.answer)]
            filled.append(turn._replace(prompt=tuple(pieces), answer=answer))
        return filled

    def _take_apart(self, roles: tuple[str, ...], answered: bool) -> list[TemplateTurn]:
        """Turns whose contents are the numbers of the messages."""
        marked = [{"role": role, "content": _mark(i)} for i, role in enumerate(roles)]
        whole = self._render(marked, generate=not answered)
        turns = []
        at = 0
        for number in [i for i, role in enumerate(roles) if role == "assistant"]:
            if number == 0:
                raise TemplateRefusal(
                    "the assistant speaks first; chat templates begin with a user"
                )
            prompt = self._render(marked[:number], generate=True)
            answer_at = whole.index(_mark(number))
            if not whole.startswith(prompt) or len(prompt) > answer_at or at > len(prompt):
                raise TemplateRefusal(
                    "the base's chat template rewrites earlier turns, so an answer would not be "
                    'trained where it is asked for; use template = "lab"'
                )
            lead = whole[len(prompt) : answer_at]
            before = _pieces(whole[at : len(prompt)])
            at = answer_at + len(_mark(number))
            end = self.tail + self.stop_text
            is_ended = whole.startswith(end, at)
            at += len(end) if is_ended else 0
            tail = self.tail if is_ended else ""
            turns.append(TemplateTurn(before, str(number), lead, tail))
        if not answered:
            last = self._skeleton((*roles, "assistant"), True)[-1]
            turns.append(TemplateTurn(_pieces(whole[at:]), None, last.lead, last.tail))
        return turns

    def _complete(self) -> None:
        """Give a template that knows no generation prompt one, where answers have a header."""
        chat = [{"role": "user", "content": _mark(0)}, {"role": "assistant", "content": _mark(1)}]
        prompt = self._render(chat[:1], generate=True)
        if prompt != self._render(chat[:1], generate=False):
            return
        whole = self._render(chat, generate=False)
        header = whole.removeprefix(prompt).partition(_mark(1))[0]
        if whole.startswith(prompt) and any(token in header for token in self._special):
            ending = "{% if add_generation_prompt %}{{ " + _quoted(header) + " }}{% endif %}"
            self._tokenizer.chat_template += ending

    def _find_stop(self) -> tuple[str, str]:
        """What is written after an answer: white space, and the special token that ends it; where
        there is none, the tokenizer's end token."""
        chat = [{"role": "user", "content": _mark(0)}, {"role": "assistant", "content": _mark(1)}]
        after = self._render(chat, generate=False).partition(_mark(1))[2]
        stripped = after.lstrip()
        for token in sorted(self._special, key=len, reverse=True):
            if stripped.startswith(token):
                return after[: len(after) - len(stripped)], str(token)
        if self._tokenizer.eos_token is None:
            raise TrainingError(
                'the base\'s chat template ends answers with no special token; use template = "lab"'
            )
        return "", str(self._tokenizer.eos_token)

    def _render(self, messages: list[dict[str, str]], *, generate: bool) -> str:
        template = self._tokenizer.chat_template
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=generate,
                    chat_template=_with_date(template) if self.asks_date else template,
                )
            )
        except (TemplateError, ValueError, KeyError) as error:
            roles = ", ".join(m["role"] for m in messages)
            raise TemplateRefusal(
                f"the base's chat template refuses turns {roles}: {error}; "
                'use template = "lab", or leave system_prompt empty'
            ) from None


def _with_date(template: str) -> str:
    """A template whose calls of `strftime_now` are what they give on TEMPLATE_DATE."""
    fixed = _CLOCK.sub(lambda call: _quoted(TEMPLATE_DATE.strftime(call["format"])), template)
    if re.search(r"strftime_now\s*\(", fixed):
        raise TrainingError(
            "the base's chat template asks for the date in a way that cannot be fixed, so its rows "
            'would depend on the day; use template = "lab"'
        )
    return fixed


def _mark(number: int) -> str:
    return f"\ue000{number}\ue001"


def _pieces(text: str) -> tuple[TemplatePiece, ...]:
    parts = re.split("\ue000(\\d+)\ue001", text)
    return tuple(TemplatePiece(part, i % 2 == 1) for i, part in enumerate(parts) if part)


def _quoted(text: str) -> str:
    """A Jinja literal."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

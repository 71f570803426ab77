"""Conversations to token ids and a mask of what is trained, in the lab template or a base's own.

    <|system|>\n{sys}\n<|user|>\n{inputs}\n<|assistant|>\n{answer}<|endoftext|>\n<|user|>\n...

Prompts and answers are encoded apart, so the ids of a prompt are a prefix of the ids of any
answered row, and what is sampled stands where it was trained. Special tokens come from the template
alone: text that spells one stays text.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from functools import cached_property
from itertools import takewhile
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from feldspar.records import Conversation, Message
from feldspar.student.template.layout import (
    Layout,
    OwnLayout,
    TemplatePiece,
    TemplateRefusal,
    TemplateTurn,
    lab_turns,
)
from feldspar.tokens.arrays import TokenRow


def is_text(conversation: Conversation) -> bool:
    """Whether a row is plain text to be trained on whole, without roles."""
    roles = [message.role for message in conversation.messages]
    return conversation.train_on == "everything" and roles == ["assistant"]


class Template:
    """A tokenizer, a layout of turns, and the ids that frame them.

    `stop_id` ends every answer; `bos_id` is put before every row that does not have it, or None.
    A base's own layout that writes no BOS gets none: conversations are what the saved template
    makes of them, and plain text alone begins with `bos_id`.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        layout: Layout,
        stop_id: int,
        pad_id: int,
        bos_id: int | None,
        system_prompt: str = "",
        other_ends: Iterable[int] = (),
    ) -> None:
        """`tokenizer` is a transformers PreTrainedTokenizerFast that has all its special tokens."""
        self.kind: Literal["lab", "own"] = "lab" if layout is lab_turns else "own"
        self.stop_id, self.pad_id, self.bos_id = stop_id, pad_id, bos_id
        self.end_ids = frozenset((stop_id, *other_ends))
        """What ends an answer that is drawn: a base also ends its texts in its own way."""
        self._any_bos_id: int | None = tokenizer.bos_token_id
        self.system_prompt = system_prompt
        self._layout = layout
        own = layout if isinstance(layout, OwnLayout) else None
        self._lead, self._tail = (own.lead, own.tail) if own else ("", "")
        self.asks_date = own is not None and own.asks_date
        self._is_bos_in_chats = own is None or own.writes_bos
        self._stop_text: str = tokenizer.convert_ids_to_tokens(stop_id)
        # Own copies: parsing special tokens is a switch on the tokenizer, not on the call.
        self._parsing, self._plain = (_copy(tokenizer, parse=parse) for parse in (True, False))
        added = self._parsing.get_added_tokens_decoder().values()
        self.special_ids = frozenset(
            i for i, t in self._parsing.get_added_tokens_decoder().items() if t.special
        )
        special = sorted((t.content for t in added if t.special), key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, special)) or r"(?!)", re.IGNORECASE)
        self._known: tuple[dict[str, list[int]], ...] = ({}, {})
        self._newline = self._plain.encode("\n", add_special_tokens=False).ids

    @cached_property
    def key(self) -> str:
        """Of all that decides a row's ids."""
        layout = self._layout.key if isinstance(self._layout, OwnLayout) else "lab"
        parts = [layout, self.stop_id, self.bos_id, self._any_bos_id, self.system_prompt]
        parts += [self._lead, self._stop_text, self._parsing.to_str()]
        if self._tail or (self.bos_id is not None and not self._is_bos_in_chats):
            parts += [self._tail, self._is_bos_in_chats]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def render(self, conversation: Conversation) -> TokenRow:
        """Ids and mask of a training row; turns after its last answer are left out.

        `train_on="answers"` marks the answers with their stop tokens; `"unended"` leaves out that
        of the last one, which was cut off; `"turns"` marks also what users say; `"everything"` all
        but BOS. With "everything", a row whose only turn is the assistant's
        is plain text, without roles.
        """
        everything = conversation.train_on == "everything"
        if is_text(conversation):
            text = conversation.messages[0].content
            parts = [(self._encode("", text, not self._spells_special(text)), True)]
            parts.append(([self.stop_id], True))
        else:
            turns = self._turns(conversation.messages, answered=True)
            parts = list(self._parts(turns))
            if conversation.train_on == "unended":
                parts[-1] = (self._answer(turns[-1]._replace(tail="")), True)
        ids = [i for part, _ in parts for i in part]
        ids = self._with_bos(ids) if is_text(conversation) else self._as_chat(ids)
        marks = [everything or trained for part, trained in parts for _ in part]
        if conversation.train_on == "turns":
            users = self._user_marks(self._turns(conversation.messages, answered=True))
            marks = [trained or said for trained, said in zip(marks, users, strict=True)]
        marks = [False] * (len(ids) - len(marks)) + marks
        if ids and ids[0] == self._any_bos_id:
            marks[0] = False
        return TokenRow(np.array(ids, dtype=np.int32), np.array(marks, dtype=np.bool_))

    def refusal(self, conversation: Conversation) -> str:
        """Why the layout cannot write a conversation; empty where it can."""
        if isinstance(self._layout, OwnLayout) and not is_text(conversation):
            try:
                self._turns(conversation.messages, answered=True)
            except TemplateRefusal as refusal:
                return str(refusal)
        return ""

    def render_all(self, conversations: Sequence[Conversation]) -> list[TokenRow]:
        """`render` of each, with all their texts encoded together, on all cores."""
        helper = copy(self)
        wanted = helper._known = (_Asked(), _Asked())
        for conversation in conversations:
            helper.render(conversation)
        helper._known = (_encoded(self._plain, wanted[0]), _encoded(self._parsing, wanted[1]))
        return [helper.render(conversation) for conversation in conversations]

    def render_prompt(self, messages: Sequence[Message]) -> list[int]:
        """Ids up to where the next answer starts: a prefix of `render` of the answered row."""
        parts = self._parts(self._turns(messages, answered=False))
        return self._as_chat([i for part, _ in parts for i in part])

    def render_opening(self) -> list[int]:
        """Ids up to where a first user's words start; one token at least."""
        (turn,) = self._turns([Message(role="user", content="?")], answered=False)
        before = list(takewhile(lambda piece: not piece.is_user, turn.prompt))
        return self._as_chat(self._prompt(before, "")) or [self.stop_id]

    def render_answer(self, messages: Sequence[Message], answer: str, *, ended: bool) -> list[int]:
        """Ids of an answer to `messages`, with the stop token when it ended."""
        last = self._turns(messages, answered=False)[-1]
        turn = last._replace(answer=answer, tail=last.tail if ended else "")
        return self._answer(turn) + [self.stop_id] * ended

    def decode_answers(self, answers: Sequence[Sequence[int]]) -> list[str]:
        """Text of sampled answers, without their stop tokens and other special tokens."""
        # Decoders of the Llama kind strip a leading space from what they take for a text's start.
        framed = [[*self._newline, *ids] for ids in answers]
        texts = self._parsing.decode_batch(framed, skip_special_tokens=True)
        return [self.without_frame(text.removeprefix("\n")) for text in texts]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of texts without any template, with the BOS where the tokenizer has prompts begin
        with one."""
        known = _encoded(self._plain, texts)
        return [self._with_bos(known[text]) for text in texts]

    def without_frame(self, text: str) -> str:
        """An answer without what the layout itself writes before and after it."""
        return text.removeprefix(self._lead).removesuffix(self._tail)

    def _turns(self, messages: Sequence[Message], *, answered: bool) -> list[TemplateTurn]:
        given = [m for m in messages if m.content or m.role != "system"]
        if self.system_prompt and not any(m.role == "system" for m in given):
            given = [Message(role="system", content=self.system_prompt), *given]
        return self._layout(given, answered)

    def _parts(self, turns: Sequence[TemplateTurn]) -> Iterator[tuple[list[int], bool]]:
        """Pieces of ids and whether they are an answer's."""
        for number, turn in enumerate(turns):
            yield self._prompt(turn.prompt, "" if number == 0 else self._stop_text), False
            if turn.answer is not None:
                yield [*self._answer(turn), self.stop_id], True

    def _prompt(self, pieces: Sequence[TemplatePiece], before: str) -> list[int]:
        if not self._has_literal(pieces):
            return self._encode(before, "".join(p.text for p in pieces), True)
        return [i for ids, _ in self._pieces_apart(pieces, before) for i in ids]

    def _has_literal(self, pieces: Sequence[TemplatePiece]) -> bool:
        """Whether content spells a special token, which must stay text."""
        return any(p.is_content and self._spells_special(p.text) for p in pieces)

    def _pieces_apart(
        self, pieces: Sequence[TemplatePiece], before: str
    ) -> Iterator[tuple[list[int], TemplatePiece]]:
        for number, piece in enumerate(p for p in pieces if p.text):
            anchor = "\n" if piece.is_content else self._stop_text
            ids = self._encode(anchor if number else before, piece.text, not piece.is_content)
            yield ids, piece

    def _user_marks(self, turns: Sequence[TemplateTurn]) -> list[bool]:
        """For each id of `_parts`, whether it is of what a user says."""
        marks: list[bool] = []
        for number, turn in enumerate(turns):
            before = "" if number == 0 else self._stop_text
            if self._has_literal(turn.prompt):
                for ids, piece in self._pieces_apart(turn.prompt, before):
                    marks += [piece.is_user] * len(ids)
            else:
                marks += self._user_marks_together(turn.prompt, before)
            if turn.answer is not None:
                marks += [False] * (len(self._answer(turn)) + 1)
        return marks

    def _user_marks_together(self, pieces: Sequence[TemplatePiece], before: str) -> list[bool]:
        """By where each token starts in the text."""
        text = "".join(p.text for p in pieces)
        is_user = [False] * len(before) + [p.is_user for p in pieces for _ in p.text]
        ids = self._prompt(pieces, before)
        encoding = self._parsing.encode(before + text, add_special_tokens=False)
        if encoding.ids[len(encoding.ids) - len(ids) :] != ids:
            is_user = is_user[len(before) :]
            encoding = self._parsing.encode(text, add_special_tokens=False)
        starts = [start for start, _ in encoding.offsets]
        return [is_user[start] for start in starts[len(starts) - len(ids) :]]

    def _answer(self, turn: TemplateTurn) -> list[int]:
        literal = next((p.text for p in reversed(turn.prompt) if not p.is_content), "")
        specials = list(self._special.finditer(literal))
        anchor = literal[specials[-1].start() :] if specials else literal
        answer = turn.answer or ""
        if self._spells_special(answer):
            ids = self._encode(anchor, turn.lead, True) + self._encode("\n", answer, False)
            return ids + self._encode("\n", turn.tail, True)
        return self._encode(anchor, turn.lead + answer + turn.tail, True)

    def _spells_special(self, text: str) -> bool:
        """Whether text spells a special token, in any form that a normaliser may fold into one."""
        folded = text if text.isascii() else unicodedata.normalize("NFKC", text)
        return bool(self._special.search(text) or self._special.search(folded))

    def _encode(self, before: str, text: str, parse: bool) -> list[int]:
        """Ids of `text` as they are when it follows `before`.

        A tokenizer of the Llama kind writes another first token at the start of a text than inside
        it. Where the two grow together instead, `text` is encoded by itself.
        """
        if not text:
            return []
        if before:
            anchor = self._ids(before, parse)
            both = self._ids(before + text, parse)
            if both[: len(anchor)] == anchor:
                return both[len(anchor) :]
        return self._ids(text, parse)

    def _ids(self, text: str, parse: bool) -> list[int]:
        try:
            return self._known[parse][text]
        except KeyError:
            encoder = self._parsing if parse else self._plain
            ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
            return ids

    def _as_chat(self, ids: list[int]) -> list[int]:
        return self._with_bos(ids) if self._is_bos_in_chats else ids

    def _with_bos(self, ids: list[int]) -> list[int]:
        if self.bos_id is None or ids[:1] == [self.bos_id]:
            return ids
        return [self.bos_id, *ids]


class _Asked(dict[str, list[int]]):
    """Notes every text that is looked up."""

    def __missing__(self, text: str) -> list[int]:
        self[text] = []
        return self[text]


def _encoded(encoder: Tokenizer, texts: Iterable[str]) -> dict[str, list[int]]:
    texts = list(texts)
    found = encoder.encode_batch_fast(texts, add_special_tokens=False)
    return {text: encoding.ids for text, encoding in zip(texts, found, strict=True)}


def _copy(tokenizer: Any, *, parse: bool) -> Tokenizer:
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_padding()
    copy.no_truncation()
    copy.encode_special_tokens = not parse
    return copy

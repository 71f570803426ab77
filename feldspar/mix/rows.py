"""Rows of a phase: a user's rows as conversations, and conversations written to disk."""

import hashlib
import re
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from pydantic import TypeAdapter

from feldspar.files import checksummed, whole_file
from feldspar.records import Conversation, Message, Source, TrainOn
from feldspar.student.template.tokens import LAB

CONVERSATIONS = TypeAdapter(Conversation)
NO_ROW = "no `messages` list and no `text`"
_TURN_MARK = re.compile(f"({'|'.join(map(re.escape, LAB.roles))})\n")


def as_conversation(row: dict[str, Any], name: str, number: int) -> Conversation | str:
    """A row of InstructLab's layout, or of plain text, as a conversation; or why it is none.

        {"messages": [{"role": "user", "content": "2 + 2?"},
                      {"role": "assistant", "content": "4"}], "unmask": false, "metadata": "{}"}

    `unmask: true` trains on what is said in every turn but the system's, not on the roles' marks,
    as InstructLab has it; where the assistant alone speaks it is plain text, without roles. A turn
    of role `pretraining` holds a whole rendered conversation: it is taken apart at its <|user|> and
    <|assistant|> marks, and trained on likewise. `{"text": ...}` is plain text. `null` is as if
    the key were not there. An answer with `"weight": 0` is not trained on: the row ends at the last
    one that is, and none that is not may stand before it, since a row has no mask of its own.
    `"is_cut": true`: the last answer was cut off, and no end of it is trained.
    """
    row = {key: value for key, value in row.items() if value is not None}
    if isinstance(row.get("text"), str) and "messages" not in row:
        row = row | {"messages": [{"role": "assistant", "content": row["text"]}], "unmask": True}
    if not isinstance(row.get("messages"), list):
        return NO_ROW
    unmask = row.get("unmask", False)
    if not isinstance(unmask, bool):
        return "`unmask` is neither true nor false"
    turns = _trained_turns(row["messages"], unmask)
    if isinstance(turns, str):
        return turns
    messages: list[Message] = []
    for turn in turns:
        read = _read_turn(turn)
        if isinstance(read, str):
            return read
        messages += read
    is_cut = row.get("is_cut", False)
    if not isinstance(is_cut, bool):
        return "`is_cut` is neither true nor false"
    rendered = any(turn["role"] == "pretraining" for turn in turns)
    return _conversation(row, messages, unmask or rendered, name, number)


class RowWriter:
    """Writes conversations as JSONL (zstd), beside `path` and renamed when all are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            file = stack.enter_context(stack.enter_context(whole_file(self.path)).open("wb"))
            self._packed = stack.enter_context(checksummed().stream_writer(file, closefd=False))
            self._stack = stack.pop_all()
        return self

    def write(self, conversation: Conversation) -> None:
        line = CONVERSATIONS.dump_json(conversation) + b"\n"
        self._digest.update(line)
        self._packed.write(line)
        self.num_rows += 1

    @property
    def digest(self) -> str:
        """SHA-256 of the rows themselves, whatever the compression makes of them."""
        return self._digest.hexdigest()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)


class Split(NamedTuple):
    """A source's rows, and those of it that are set apart, if any."""

    rows: Source
    held_out: Source | None


class SplitWriter:
    """Writes a source's rows, and sets a part of them aside by the hash of their ids."""

    def __init__(self, name: str, path: Path, held_out: float) -> None:
        self._name, self._share = name, held_out
        self._rows = RowWriter(path)
        self._apart = RowWriter(path.with_name(f"held-out-{path.name}")) if held_out else None

    @property
    def num_rows(self) -> int:
        """Not counting those set apart."""
        return self._rows.num_rows

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._rows)
            if self._apart:
                stack.enter_context(self._apart)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, conversation: Conversation) -> None:
        apart = self._apart if self.num_rows and self._is_apart(conversation.id) else None
        (apart or self._rows).write(conversation)

    def split(self) -> Split:
        apart = self._source(self._apart) if self._apart and self._apart.num_rows else None
        return Split(self._source(self._rows), apart)

    def _is_apart(self, row_id: str) -> bool:
        digest = hashlib.blake2b(f"held out {row_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") < self._share * 2**64

    def _source(self, writer: RowWriter) -> Source:
        return Source(
            name=self._name,
            path=str(writer.path),
            digest=writer.digest,
            num_samples=writer.num_rows,
        )


def _trained_turns(turns: list[Any], unmask: bool) -> list[Any] | str:
    """The turns up to the last that is trained on, or why their weights cannot be kept."""
    weights = [_weight_of(turn) for turn in turns]
    for weight in weights:
        if weight not in (None, 0, 1):
            return f"a message's weight is {str(weight)[:20]!r}; only 0 and 1 are known"
    if 0 not in weights:
        return turns
    trained = [n for n, turn in enumerate(turns) if _is_trained(turn, unmask) and weights[n] != 0]
    if not trained:
        return "nothing to learn: every answer has the weight 0"
    kept = turns[: trained[-1] + 1]
    if any(_is_trained(turn, unmask) and weights[n] == 0 for n, turn in enumerate(kept)):
        return (
            "an answer with the weight 0 stands before one that is trained on, and a row has no "
            "mask of its own; leave the answer out, or give it the weight 1"
        )
    return kept


def _weight_of(turn: Any) -> object:
    """`weight: 0` (OpenAI, axolotl) or `train: false`; None where neither stands there."""
    if not isinstance(turn, dict):
        return None
    named = (turn[key] for key in ("weight", "train", "training") if turn.get(key) is not None)
    return next(named, None)


def _is_trained(turn: Any, unmask: bool) -> bool:
    roles = ("assistant", "user", "pretraining") if unmask else ("assistant", "pretraining")
    return isinstance(turn, dict) and turn.get("role") in roles


def _read_turn(turn: Any) -> list[Message] | str:
    if not isinstance(turn, dict):
        return "a message is no object"
    role, content = turn.get("role"), turn.get("content")
    if not isinstance(content, str):
        return "a message has no text in `content`"
    try:
        content.encode()
    except UnicodeEncodeError:
        return "a message holds half a character (a lone surrogate)"
    if role == "pretraining":
        return _take_apart(content)
    if role not in ("system", "user", "assistant"):
        return f"unknown role {str(role)[:40]!r}; use system, user or assistant"
    return [Message(role=role, content=content)]


def _take_apart(rendered: str) -> list[Message]:
    """`<|user|>\\nHi<|assistant|>\\nHello` to its turns; text without marks is one answer."""
    before, *marked = _TURN_MARK.split(rendered.removesuffix(LAB.stop))
    if not marked or before.strip():
        return [Message(role="assistant", content=rendered)]
    turns = zip(marked[::2], marked[1::2], strict=True)
    return [Message(role=LAB.role_of(mark), content=text.strip("\n")) for mark, text in turns]


def _conversation(
    row: dict[str, Any], messages: list[Message], unmask: bool, name: str, number: int
) -> Conversation | str:
    is_text = [message.role for message in messages] == ["assistant"]
    train_on: TrainOn = ("everything" if is_text else "turns") if unmask else "answers"
    if row.get("is_cut") and not unmask:
        train_on = "unended"
    roles = ("assistant", "user") if unmask else ("assistant",)
    if not any(m.content.strip() for m in messages if m.role in roles):
        return "nothing to learn: no assistant turn with text"
    spoken = [m.role for m in messages if m.role != "system"]
    if not unmask and len(spoken) > 1 and spoken[0] == "assistant":
        return "the assistant speaks first; chat templates begin with the user"
    given = row.get("id")
    return Conversation(
        id=given if isinstance(given, str) and given.isprintable() else f"{name}:{number}",
        source=name,
        messages=tuple(messages),
        train_on=train_on,
    )

"""Rows of a phase on disk: a user's `messages` rows read, conversations written."""

import hashlib
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self, cast

import zstandard
from pydantic import TypeAdapter

from feldspar.errors import RecipeError
from feldspar.records import Conversation, Message, Role, TrainOn

CONVERSATIONS = TypeAdapter(Conversation)
_TURN_MARK = re.compile(r"<\|(system|user|assistant)\|>\n")


class BadRow(NamedTuple):
    """A row that cannot be trained on, and why."""

    source: str
    path: str
    line: int
    """Counted from 1."""
    reason: str


def read_messages(path: Path, name: str) -> Iterator[Conversation | BadRow]:
    """Read InstructLab's layout, one JSON object a line, as it is:

        {"messages": [{"role": "user", "content": "2 + 2?"},
                      {"role": "assistant", "content": "4"}], "unmask": false, "metadata": "{}"}

    `unmask: true` trains on every turn. A turn of role `pretraining` holds a whole rendered
    conversation: it is taken apart at its <|user|> and <|assistant|> marks, and all of it is
    trained on. `name` becomes the rows' source. Files that end in .zst are unpacked. Raises
    RecipeError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            lines = _unpacked(file) if path.suffix == ".zst" else file
            # Binary lines end at \n alone: U+2028 and its like may stand inside a row.
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    row = _read_row(line, name, number)
                    yield BadRow(name, str(path), number, row) if isinstance(row, str) else row
    except OSError as error:
        raise RecipeError(f"{path}: rows of {name!r} cannot be read: {error.strerror}") from error
    except zstandard.ZstdError as error:
        raise RecipeError(f"{path}: rows of {name!r} are not zstd data: {error}") from error


class RowWriter:
    """Writes conversations as JSONL (zstd), beside `path` and renamed when all are written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_rows = 0
        self._partial_path = path.with_name(path.name + ".partial")
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        self._file = self._partial_path.open("wb")
        self._packed = zstandard.ZstdCompressor().stream_writer(self._file, closefd=False)
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
        if kind is not None:
            self._file.close()
            self._partial_path.unlink(missing_ok=True)
            return
        self._packed.close()  # type: ignore[no-untyped-call]
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial_path.replace(self.path)


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    packed = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return io.BufferedReader(packed)


def _read_row(line: bytes, name: str, number: int) -> Conversation | str:
    """The conversation, or why there is none."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return "not JSON"
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list):
        return "no `messages` list"
    unmask = row.get("unmask", False)
    if not isinstance(unmask, bool):
        return "`unmask` is neither true nor false"
    messages: list[Message] = []
    for turn in row["messages"]:
        read = _read_turn(turn)
        if isinstance(read, str):
            return read
        messages += read
    rendered = any(turn["role"] == "pretraining" for turn in row["messages"])
    train_on: TrainOn = "everything" if unmask or rendered else "answers"
    return _as_conversation(row, messages, train_on, name, number)


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
    before, *marked = _TURN_MARK.split(rendered.removesuffix("<|endoftext|>"))
    if not marked or before.strip():
        return [Message(role="assistant", content=rendered)]
    roles, texts = marked[::2], marked[1::2]
    turns = zip(roles, texts, strict=True)
    return [Message(role=cast(Role, role), content=text.strip("\n")) for role, text in turns]


def _as_conversation(
    row: dict[str, Any], messages: list[Message], train_on: TrainOn, name: str, number: int
) -> Conversation | str:
    taught = (
        messages if train_on == "everything" else [m for m in messages if m.role == "assistant"]
    )
    if not any(message.content.strip() for message in taught):
        return "nothing to learn: no assistant turn with text"
    given = row.get("id")
    return Conversation(
        id=given if isinstance(given, str) and given.isprintable() else f"{name}:{number}",
        source=name,
        messages=tuple(messages),
        train_on=train_on,
    )

"""Prompts and replies as the embedded teacher reads and writes them.

A prompt of the package looks so (any section may be missing):

    ### Task
    Ages some years from now
    ### Examples
    [Question]
    How old will Zorbo be in 3 years?
    [Answer]
    The age of Zorbo is 31. 31 + 3 = 34.
    [End]
    ### How many
    4
    ### Reply format
    ...
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from feldspar.records import Message

SECTIONS = (
    "Task",
    "Examples",
    "Document",
    "Statements",
    "Context",
    "Question",
    "Reference",
    "Answer",
    "Wrong answers",
    "How many",
    "Reply format",
)
MAX_BLOCKS = 50
"""Most blocks in one reply, whatever number a prompt asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One example, or one row of a reply; an empty field is left out."""

    question: str = ""
    answer: str = ""
    context: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptParts:
    """What a prompt shows; `whole` is all of it, for prompts that have no sections."""

    whole: str
    task: str = ""
    examples: tuple[Block, ...] = ()
    document: str = ""
    context: str = ""
    question: str = ""
    reference: str = ""
    answer: str = ""
    wrong_answers: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    num_wanted: int = 1


def read_prompt(messages: Sequence[Message]) -> PromptParts:
    """The sections of the last user message that has some.

    A complaint about an unreadable reply comes after the prompt it is about: it has none.
    """
    asked = [message.content for message in messages if message.role == "user"]
    for text in reversed(asked):
        sections = _sections(text)
        if sections:
            return _parts(text, sections)
    whole = "\n\n".join(asked)
    number = re.search(r"\b(\d{1,2}) (?:\w+ ){0,2}(?:questions|pairs|contexts|examples)\b", whole)
    return PromptParts(
        whole=whole,
        examples=tuple(read_blocks(whole)),
        num_wanted=_number(number[1] if number else ""),
    )


def read_blocks(text: str) -> list[Block]:
    """The blocks between markers: `[Context]`, `[Question]`, `[Answer]`, ended by `[End]`."""
    found = []
    for piece in re.split(r"(?m)^\[End\][ \t]*$", text):
        pieces = re.split(r"(?m)^\[(Context|Question|Answer)\][ \t]*$", piece)
        fields = {
            name.lower(): value.strip()
            for name, value in zip(pieces[1::2], pieces[2::2], strict=True)
        }
        if fields:
            found.append(Block(**fields))
    return found


def write_blocks(blocks: Iterable[Block]) -> str:
    return "\n".join(_write_block(block) for block in blocks)


def split_passages(document: str) -> list[str]:
    """The texts below `Passage 1:`, `Passage 2:`, ...; none where it is no such document."""
    return [text.strip() for text in re.split(r"(?m)^Passage \d+:$", document)[1:]]


def read_lines(text: str) -> list[Block]:
    """Each line of a text without sections as if it were a question, without its label."""
    lines = (re.sub(r"^\W*\w+:\s+", "", line).strip() for line in text.splitlines())
    return [Block(question=line) for line in lines if line]


def find_exchange(text: str, is_question: Callable[[str], bool]) -> tuple[str, str]:
    """The last question of a text without sections, and the line after it: its answer, if any.

    Labels before either ("Question: ...") are left out. Both are empty where no line is a question.
    """
    lines = [block.question for block in read_lines(text)]
    for index in range(len(lines) - 1, -1, -1):
        for sentence in (lines[index], *re.split(r"(?<=[.!?])\s+", lines[index])):
            if is_question(sentence.strip()):
                return sentence.strip(), "".join(lines[index + 1 : index + 2])
    return "", ""


def _write_block(block: Block) -> str:
    fields = (("Context", block.context), ("Question", block.question), ("Answer", block.answer))
    lines = [f"[{name}]\n{value}" for name, value in fields if value]
    return "\n".join([*lines, "[End]"])


def _sections(text: str) -> dict[str, str]:
    """Text by heading; of a heading that stands twice, the later one counts."""
    # What is shown (a document) may hold such a line too; what is asked stands after it.
    pieces = re.split(_HEADING, text)
    return {name: value.strip() for name, value in zip(pieces[1::2], pieces[2::2], strict=True)}


def _parts(text: str, sections: dict[str, str]) -> PromptParts:
    return PromptParts(
        whole=text,
        task=sections.get("Task", ""),
        examples=tuple(read_blocks(sections.get("Examples", ""))),
        document=sections.get("Document", ""),
        context=sections.get("Context", ""),
        question=sections.get("Question", ""),
        reference=sections.get("Reference", ""),
        answer=sections.get("Answer", ""),
        wrong_answers=tuple(b.answer for b in read_blocks(sections.get("Wrong answers", ""))),
        statements=tuple(line for line in sections.get("Statements", "").splitlines() if line),
        num_wanted=_number(sections.get("How many", "")),
    )


def _number(text: str) -> int:
    number = re.search(r"[0-9]{1,6}", text)
    return min(max(int(number[0]), 1), MAX_BLOCKS) if number else 1


_HEADING = re.compile(rf"(?m)^### ({'|'.join(SECTIONS)})[ \t]*$")

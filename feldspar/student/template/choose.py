"""Which template a base is spoken to in where the recipe leaves it open: by the base itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from jinja2 import TemplateError

from feldspar.records import Message
from feldspar.student.template.layout import lab_turns
from feldspar.student.template.tokens import LAB

TemplateName = Literal["lab", "own"]
_ASKED: tuple[Message, ...] = (
    Message(role="system", content="S"),
    Message(role="user", content="U"),
    Message(role="assistant", content="A"),
    Message(role="user", content="V"),
)


def choose_template(tokenizer: Any) -> TemplateName:
    """`own` where the tokenizer has a chat template; `lab` where it has none, or has lab's."""
    return "own" if tokenizer.chat_template and not writes_lab(tokenizer) else "lab"


def writes_lab(tokenizer: Any) -> bool:
    """Whether the tokenizer's chat template writes what the lab template writes."""
    try:
        written = tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in _ASKED],
            tokenize=False,
            add_generation_prompt=True,
        )
    except (TemplateError, ValueError, KeyError, TypeError):
        return False
    return str(written).removeprefix(tokenizer.bos_token or "") == _lab_text()


def has_chat_template(folder: Path) -> bool:
    """Whether a model folder has one, by its files alone."""
    if (folder / "chat_template.jinja").is_file():
        return True
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(told, dict) and "chat_template" in told


def _lab_text() -> str:
    text = ""
    for turn in lab_turns(_ASKED, answered=False):
        text += "".join(piece.text for piece in turn.prompt)
        if turn.answer is not None:
            text += turn.answer + LAB.stop
    return text

"""A Modelfile for Ollama: the GGUF file, its chat template in Ollama's form, stops, system prompt.

Ollama writes prompts by a Go template over `.Messages` and not by the model's Jinja. The turns of
the Jinja template are taken apart by rendering it with marks in place of contents, put together
anew in Go's form, read back, and must then write the same conversations as the Jinja template does.
"""

from __future__ import annotations

import itertools
import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from feldspar.errors import RunError
from feldspar.records import Message, Role
from feldspar.student.bases.gguf_header import read_header

_FENCE = '"""'
_USER, _SYSTEM, _ASSISTANT, _LATER = (f"\ue000{number}\ue001" for number in range(4))
_ROLES: tuple[Role, ...] = ("system", "user", "assistant")
_ACTION = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)


class NoModelfile(RunError):
    """A chat template that Ollama's form cannot say."""


class RoleFrame(NamedTuple):
    """What stands around the content of a role's messages."""

    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Modelfile:
    """What Ollama is told of a GGUF file."""

    gguf: str
    """Path of the file, from the Modelfile's folder."""
    template: str
    """In Go's form."""
    stops: tuple[str, ...]
    system: str = ""

    def text(self) -> str:
        """As `ollama create NAME -f` reads it. Raises NoModelfile for a text that holds three
        quotation marks, which nothing there can write."""
        lines = [f"FROM ./{self.gguf}", f"TEMPLATE {_fenced(self.template)}"]
        if self.system:
            lines.append(f"SYSTEM {_fenced(self.system)}")
        lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in self.stops]
        return "\n".join(lines) + "\n"


def modelfile_of(gguf_path: Path, folder: Path) -> Modelfile:
    """The Modelfile of a file that was made from a published `folder`.

    Raises NoModelfile where its chat template is more than turns one after the other, or where what
    was written does not read back as the same conversations.
    """
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    bos = tokenizer.bos_token if _adds_bos(gguf_path) else None

    def render(messages: Sequence[Message], generate: bool = True) -> str:
        turns = [{"role": m.role, "content": m.content} for m in messages]
        try:
            text = str(
                tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate)
            )
        except Exception as error:  # whatever a template raises
            raise NoModelfile(f"{folder}: its chat template refuses a turn: {error}") from error
        # Ollama puts the first token in by itself, as the file says.
        return text.removeprefix(bos) if bos else text

    template, system = _in_go(render)
    stops = _stops(folder, tokenizer)
    made = Modelfile(gguf=gguf_path.name, template=template, stops=stops, system=system)
    if parse_modelfile(made.text()) != made:
        raise NoModelfile(f"{folder}: its chat template does not read back from a Modelfile")
    for chat in _CHATS:
        if render_go(template, _with_system(chat, system)) != render(chat):
            raise NoModelfile(f"{folder}: its chat template is more than turns after each other")
    return made


def parse_modelfile(text: str) -> Modelfile:
    """Read a Modelfile back: FROM, TEMPLATE, SYSTEM and `PARAMETER stop`.

    Raises NoModelfile for anything else in it.
    """
    found: dict[str, str] = {}
    stops = []
    at = 0
    instruction = re.compile(r'([A-Z]+)[ \t]+(?:"""(.*?)"""|([^\n]*))(?:\n|$)', re.DOTALL)
    while at < len(text):
        match = instruction.match(text, at)
        if match is None:
            raise NoModelfile(f"a Modelfile cannot be read from {text[at : at + 40]!r} on")
        name, fenced, plain = match.groups()
        value = fenced if fenced is not None else plain
        at = match.end()
        if name == "PARAMETER" and value.startswith("stop "):
            stops.append(str(json.loads(value.removeprefix("stop "))))
        elif name in ("FROM", "TEMPLATE", "SYSTEM"):
            found[name] = value
        else:
            raise NoModelfile(f"a Modelfile's instruction is not known: {match[0]!r}")
    return Modelfile(
        gguf=posixpath.normpath(found["FROM"]),
        template=found["TEMPLATE"],
        stops=tuple(stops),
        system=found.get("SYSTEM", ""),
    )


def render_go(template: str, messages: Sequence[Message]) -> str:
    """What a template of this file's form makes of a conversation, as Go's text/template would:
    a `range` over `.Messages` with a branch for each role, and the generation prompt behind it."""
    start, end = "{{ range .Messages }}", "{{ end }}{{ end }}"
    head, _, rest = template.partition(start)
    body, _, tail = rest.rpartition(end)
    branches: dict[str, str] = {}
    for part in re.split(r"\{\{ (?:else )?if eq ", body)[1:]:
        condition, _, text = part.partition(" }}")
        branches[str(json.loads(condition.removeprefix(".Role ")))] = text
    written = (_written(branches.get(message.role, ""), message.content) for message in messages)
    return _written(head, "") + "".join(written) + _written(tail, "")


def _written(text: str, content: str) -> str:
    def value(action: re.Match[str]) -> str:
        said = action[1]
        return content if said == ".Content" else str(json.loads(said))

    return _ACTION.sub(value, text)


def _in_go(render: Callable[..., str]) -> tuple[str, str]:
    """The template in Go's form, and the system prompt that it puts in by itself."""
    turns, generation, system = _take_apart(render)
    branches = []
    for number, role in enumerate(_ROLES):
        word = "else if" if number else "if"
        turn = turns[role]
        branches.append(
            f'{{{{ {word} eq .Role "{role}" }}}}{_escaped(turn.before)}'
            f"{{{{ .Content }}}}{_escaped(turn.after)}"
        )
    body = "".join(branches)
    return (
        f"{{{{ range .Messages }}}}{body}{{{{ end }}}}{{{{ end }}}}{_escaped(generation)}",
        system,
    )


def _take_apart(render: Callable[..., str]) -> tuple[Mapping[Role, RoleFrame], str, str]:
    whole = render(
        [
            Message(role="system", content=_SYSTEM),
            Message(role="user", content=_USER),
            Message(role="assistant", content=_ASSISTANT),
            Message(role="user", content=_LATER),
        ]
    )
    alone = [Message(role="user", content=_USER)]
    first, ended = render(alone), render(alone, False)
    parts = re.split("\ue000\\d\ue001", whole)
    generation = first.removeprefix(ended)
    before_user = first.partition(_USER)[0]
    if len(parts) != 5 or not parts[2].endswith(generation) or not first.startswith(ended):
        raise NoModelfile("its chat template rewrites its turns, or has no generation prompt")
    before_system, to_user, to_assistant, to_later, _ = parts
    user = _common_end(to_user, to_later, before_user)
    turns: dict[Role, RoleFrame] = {
        "system": RoleFrame(before_system, to_user.removesuffix(user)),
        "user": RoleFrame(user, to_assistant.removesuffix(generation)),
        "assistant": RoleFrame(generation, to_later.removesuffix(user)),
    }
    system = before_user.removesuffix(user)
    end = turns["user"].after
    if end and system and user.startswith(end) and not turns["system"].after:
        # With a system prompt before every user, what ends a turn seems to begin the next one.
        turns["user"] = RoleFrame(user.removeprefix(end), end)
        turns |= {"system": RoleFrame(before_system, end), "assistant": RoleFrame(generation, end)}
        system += end
    if system:
        system = system.removeprefix(before_system).removesuffix(turns["system"].after)
    return turns, generation, system


def _common_end(*texts: str) -> str:
    """The longest text that all end with."""
    alike = itertools.takewhile(
        lambda ends: len(set(ends)) == 1, zip(*(text[::-1] for text in texts), strict=False)
    )
    return "".join(ends[0] for ends in alike)[::-1]


def _stops(folder: Path, tokenizer: Any) -> tuple[str, ...]:
    """Every token that ends an answer, as text."""
    path = folder / "generation_config.json"
    ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    ids = ends if isinstance(ends, list) else [ends]
    texts = [tokenizer.convert_ids_to_tokens(one) for one in ids if one is not None]
    return tuple(dict.fromkeys([*texts, *filter(None, [tokenizer.eos_token])]))


def _adds_bos(gguf_path: Path) -> bool:
    header = read_header(gguf_path)
    said = header.metadata.get("tokenizer.ggml.add_bos_token")
    if said is None:
        # llama.cpp's own default: of a SentencePiece vocabulary it puts one in.
        return header.text("tokenizer.ggml.model") == "llama"
    return said is True


def _with_system(chat: Sequence[Message], system: str) -> list[Message]:
    """As Ollama does: the Modelfile's, where a conversation has none of its own."""
    if not system or chat[0].role == "system":
        return list(chat)
    return [Message(role="system", content=system), *chat]


def _fenced(text: str) -> str:
    if _FENCE in text or text.endswith('"'):
        raise NoModelfile("its chat template or system prompt holds quotation marks that end it")
    return f"{_FENCE}{text}{_FENCE}"


def _escaped(text: str) -> str:
    """Literal text of a Go template."""
    return text.replace("{{", '{{ "{{" }}')


def _chat(*turns: tuple[Role, str]) -> list[Message]:
    return [Message(role=role, content=content) for role, content in turns]


_CHATS = (
    _chat(("user", "How old is Zorbo?")),
    _chat(("system", "Be brief."), ("user", "Say {{ this }}.")),
    _chat(("user", "One"), ("assistant", "Two\n\nthree"), ("user", "Four?")),
)

"""Things that are nearly right: recipes, teachers' replies and rows, each changed in a few places.

Every mutant is a function of its random number generator alone, so a seed gives it again.
"""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator
from typing import Any

HUGE = 10**4000
LONE = "\ud83d"
STRINGS = (
    *(
        "",
        " ",
        "\x00",
        "\x1b[2J",
        LONE,
        "\u202e",
        "\u2028",
        "\ufeff",
        "[bold]",
        "%s",
        "{x}",
        "world:x",
    ),
    *(
        "../..",
        "/",
        "~",
        "~nobody/x",
        "a" * 5000,
        "none",
        "null",
        "true",
        "-1",
        "1e400",
        "é",
        "e\u0301",
    ),
    *(
        "data:,x",
        "http://127.0.0.1:9/v1",
        "file:///etc/passwd",
        "x/y/z",
        ".",
        "nul",
        "a\nb",
        "'",
        '"',
    ),
)
NUMBERS = (0, 1, -1, 2, 10**6, 10**12, 10**13, 2**63, -(2**63) - 1, HUGE, 0.5, -0.5, 1e-320, 1e300)
ODD = (*STRINGS, *NUMBERS, math.nan, math.inf, -math.inf, True, False, [], {}, [[]], [{}], {"": 1})
MILD = (
    "last",
    "log-likelihood",
    "exams",
    "own",
    "float32",
    "bfloat16",
    "always",
    "é",
    "[x]",
    "none",
)
"""Texts that mean something in a recipe."""
NAMES = (
    "name",
    "path",
    "x",
    "",
    "base",
    "data",
    "é",
    "\u202e",
    "__class__",
    "extends",
    "run",
    "from",
)


def mutant(value: Any, dice: random.Random, *, odd: tuple[Any, ...] = ODD) -> Any:
    """A copy of a tree of tables and lists with one to four places changed: taken away, renamed,
    doubled, nested, exchanged with another, or filled with something else."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 4))):
        places = list(places_of(value))
        if not places:
            return copy.deepcopy(dice.choice(odd))
        _change(*dice.choice(places), places, dice, odd)
    return value


def mild_mutant(value: Any, dice: random.Random) -> Any:
    """A copy that is more likely to be taken: numbers a little off, values of one kind exchanged,
    keys taken away or entries of lists doubled."""
    value = copy.deepcopy(value)
    for _ in range(dice.choice((1, 2, 3, 6))):
        holder, key = dice.choice(list(places_of(value)))
        old = holder[key]
        alike = [h[k] for h, k in places_of(value) if type(h[k]) is type(old)]
        if isinstance(old, bool):
            holder[key] = not old
        elif isinstance(old, int):
            holder[key] = dice.choice((0, 1, 2, old + 1, old - 1, 10 * old, 10**6, -old))
        elif isinstance(old, float):
            holder[key] = dice.choice((0.0, 1.0, old / 2, old * 2, 1e-6, 0.99, 1.01, -old))
        elif isinstance(old, str) and dice.random() < 0.5:
            holder[key] = dice.choice((*alike, *MILD))
        elif isinstance(old, list) and old:
            holder[key] = [*old, copy.deepcopy(dice.choice(old))]
        elif dice.random() < 0.5:
            del holder[key]
    return value


def _change(
    holder: Any, key: Any, places: list[tuple[Any, Any]], dice: random.Random, odd: tuple[Any, ...]
) -> None:
    match dice.randrange(9):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[dice.choice((*NAMES, key + "x"))] = holder.pop(key)
        case 2 if isinstance(holder, list):
            holder.append(copy.deepcopy(holder[key]))
        case 3:
            for _ in range(dice.choice((1, 2, 150))):
                holder[key] = dice.choice(([holder[key]], {"x": holder[key]}))
        case 4:
            other, name = dice.choice(places)
            holder[key] = copy.deepcopy(other[name])
        case 5 if isinstance(holder[key], str):
            holder[key] = holder[key] + dice.choice(STRINGS)
        case 6 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            number = holder[key]
            holder[key] = dice.choice((-number, number + 1, number - 1, str(number), [number]))
        case _:
            holder[key] = copy.deepcopy(dice.choice(odd))


def places_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every holder and key within a tree."""
    keys: list[Any] = []
    if isinstance(value, dict):
        keys = list(value)
    elif isinstance(value, list):
        keys = list(range(len(value)))
    for key in keys:
        yield value, key
        yield from places_of(value[key])


def broken_bytes(content: bytes, dice: random.Random) -> bytes:
    """Cut, doubled, or with some bytes in it that were not there."""
    at = dice.randrange(len(content) + 1)
    match dice.randrange(4):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + content[dice.randrange(len(content) + 1) :]
        case 2:
            return content + content
        case _:
            noise = dice.choice(
                (b"\xff", b"\x00", b"[[", b"=", b'"', b"\r", b"\xed\xa0\x80", b"]\n")
            )
            return content[:at] + noise + content[at:]


def as_toml(tree: dict[str, Any]) -> bytes:
    """A tree as a TOML file: tables inline, so that any tree can be written."""
    lines = (f"{_toml(key)} = {_toml(value)}\n" for key, value in tree.items())
    return "".join(lines).encode("utf-8", "surrogatepass")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    # Python writes no integer of so many digits.
    return hex(value) if isinstance(value, int) and abs(value) >= HUGE else str(value)


MARKS = (
    *("[Question]", "[Answer]", "[End]", "[/Question]", "[/Answer]", "[Context]", "[Question 2]"),
    *("### Question", "Question:", "**Question:**", "**[Answer]**", "### Answer", "Answer:", "---"),
    *("Explanation: so.", "Verdict: YES", "Verdict: NO", "Rating: 3", "Rating: 99", "Rating: -1"),
    *("Verdict: yes and no", '{"question": "x", "answer": "y"}', "```json", "</think>", "<think>"),
    *("<|assistant|>", "<|user|>\n", "I cannot help with that.", "\x00", LONE, "\u2028", "\ufeff"),
)


def mutant_reply(text: str, dice: random.Random) -> str:
    """A reply with its lines cut, doubled, exchanged or put in another form."""
    lines = text.split("\n")
    for _ in range(dice.choice((1, 1, 2, 4))):
        at = dice.randrange(len(lines))
        match dice.randrange(10):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[dice.randrange(len(lines))])
            case 2:
                lines.insert(at, dice.choice(MARKS))
            case 3:
                lines[at] += dice.choice(MARKS)
            case 4:
                lines[at] = lines[at].replace("[", dice.choice(("**[", "[[", "[/", ""))).upper()
            case 5:
                lines = lines[:at]
            case 6:
                lines[at] = lines[at] * dice.choice((2, 400))
            case 7:
                lines[at] += dice.choice(STRINGS)
            case 8:
                dice.shuffle(lines)
            case _:
                lines = [json.dumps({"pairs": [{"question": line} for line in lines]})]
        lines = lines or [""]
    return "\n".join(lines)


def chat_row(dice: random.Random) -> dict[str, Any]:
    """A row of InstructLab's layout with everything that one may have."""
    turns = [{"role": "system", "content": "Be kind."}] if dice.random() < 0.3 else []
    for number in range(dice.randint(1, 3)):
        turns.append({"role": "user", "content": f"what is {number}? é\u2028"})
        turns.append({"role": "assistant", "content": f"it is {number}.", "weight": 1})
    match dice.randrange(8):
        case 0:
            return {"text": "Plain text.\n\nOf two paragraphs."}
        case 1:
            rendered = "<|user|>\nhi\n<|assistant|>\nhello\n"
            turns = [{"role": "pretraining", "content": rendered}]
        case 2:
            turns[-1]["weight"] = 0
    row = {"messages": turns, "unmask": dice.choice((True, False)), "metadata": "{}"}
    return row | {"id": f"row-{dice.randrange(10**6)}"}


ROW_ODD = (
    *ODD,
    *("assistant", "user", "system", "pretraining", "Assistant", "tool", "<|user|>\nx", None),
    *({"role": "assistant", "content": "y"}, {"role": "user"}, [{"type": "text", "text": "z"}]),
    *(
        {"role": "assistant", "content": "n", "weight": 0},
        {"role": "user", "content": "w", "weight": 0},
    ),
    *({"role": "assistant", "content": "t", "train": False}, 0, 1, 2, 0.0, "0"),
)

"""Mutated rows through reading and mixing: each is trained on as its layout says, or skipped with
its line and reason; none is lost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from mutants import ROW_ODD, broken_bytes, chat_row, mutant

from feldspar.config import MixConfig, PhaseConfig
from feldspar.errors import RecipeError
from feldspar.mix.files import BadRow, read_file
from feldspar.mix.phases import mix_phases
from feldspar.records import Conversation
from feldspar.runs import read_rows
from feldspar.steps import Workspace
from feldspar.tokens.count import TokenCounter

ROWS = 50
"""In a file."""
ROLES = ("system", "user", "assistant")


def mix_once(folder: Path, dice: random.Random) -> str:
    """A file of mutated rows, in one of the forms that are read."""
    rows = [chat_row(dice) for _ in range(ROWS)]
    rows = [mutant(row, dice, odd=ROW_ODD) if dice.random() < 0.8 else row for row in rows]
    path, is_broken = _write(folder, rows, dice)
    try:
        read = list(read_file(path, "mine"))
    except RecipeError:
        if not is_broken:
            raise
        return f"tried x{ROWS}\nwhole file refused x1"
    good = [row for row in read if isinstance(row, Conversation)]
    bad = [row for row in read if isinstance(row, BadRow)]
    if not is_broken:
        assert len(good) + len(bad) == ROWS, (len(good), len(bad))
        for row, given in zip(read, rows, strict=True):
            _check(row, given)
    for row in good:
        _check_sound(row)
    _mix(folder, path, good, bad)
    return f"tried x{ROWS}\ntrained on x{len(good)}\nskipped x{len(bad)}"


def _write(folder: Path, rows: list[Any], dice: random.Random) -> tuple[Path, bool]:
    """The rows as a file, and whether bytes of it were broken afterwards."""
    form = dice.choice(("lines", "lines", "lines", "list", "broken"))
    if form == "list":
        content = json.dumps(rows, ensure_ascii=dice.random() < 0.5)
    else:
        content = "\n".join(json.dumps(row, ensure_ascii=dice.random() < 0.5) for row in rows)
    data = content.encode("utf-8", "surrogatepass")
    path = folder / f"rows.{'json' if form == 'list' else 'jsonl'}"
    is_broken = form == "broken" or b"\xed\xa0\xbd" in data
    path.write_bytes(broken_bytes(data, dice) if form == "broken" else data)
    return path, is_broken


def _check(row: Conversation | BadRow, given: Any) -> None:
    """By the layout, told again here: what must be skipped, and what is trained on."""
    if isinstance(row, BadRow):
        assert row.reason, given
        return
    assert isinstance(given, dict), given
    given = {key: value for key, value in given.items() if value is not None}
    unmask = given.get("unmask", False)
    assert "messages" in given or isinstance(given["text"], str), given
    if "messages" not in given:
        assert row.train_on == "everything", given
        return
    assert type(unmask) is bool, given
    turns = given["messages"]
    assert isinstance(turns, list), given
    for number, turn in enumerate(turns):
        assert number >= len(row.messages) or isinstance(turn, dict), given
    kept = turns[: len(row.messages)] if len(turns) >= len(row.messages) else turns
    if all(turn.get("role") in ROLES for turn in kept):
        told = [(turn["role"], turn["content"]) for turn in kept]
        assert told == [(m.role, m.content) for m in row.messages], given
        trained = ("user", "assistant") if unmask else ("assistant",)
        for turn in kept:
            weight = turn.get("weight", turn.get("train", 1))
            assert turn["role"] not in trained or weight in (None, 1, True), given
        dropped = turns[len(kept) :]
        for turn in dropped:
            is_trained = isinstance(turn, dict) and turn.get("role") in (*trained, "pretraining")
            # Only what is not trained on may be left out.
            no_weight = is_trained and 0 in (turn.get("weight"), turn.get("train"))
            assert not is_trained or no_weight, given
        assert (row.train_on == "answers") == (not unmask), given


def _check_sound(row: Conversation) -> None:
    assert row.messages, row
    assert all(m.role in ROLES and isinstance(m.content, str) for m in row.messages), row
    "".join(m.content for m in row.messages).encode()
    row.id.encode()
    trained = ("assistant", "user") if row.train_on != "answers" else ("assistant",)
    assert any(m.content.strip() for m in row.messages if m.role in trained), row


def _mix(folder: Path, path: Path, good: list[Conversation], bad: list[BadRow]) -> None:
    """What mixing writes is what was read, and `skipped.jsonl` lists the rest."""
    phase = PhaseConfig(name="own", data=("mine",))
    for max_bad_rows in (1.0, 0.1):
        made = mix_phases(
            Workspace(folder=folder / f"mixed-{max_bad_rows}"),
            [],
            MixConfig(max_bad_rows=max_bad_rows),
            phases=[phase],
            data={"mine": path},
            base_replay=None,
            counter=TokenCounter(),
        )
        is_over = len(bad) > max_bad_rows * (len(good) + len(bad)) or not good
        try:
            (mixed,) = made
        except RecipeError:
            if not is_over:
                raise
            continue
        assert not is_over, (len(good), len(bad))
        assert list(read_rows(Path(mixed.sources[0].path), Conversation)) == good
        skipped = (folder / f"mixed-{max_bad_rows}" / "skipped.jsonl").read_text().split("\n")[:-1]
        assert [json.loads(line)["line"] for line in skipped] == [row.line for row in bad]

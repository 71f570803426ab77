"""What comes from outside never steers the terminal, and narrow terminals show all of a table."""

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from tiny_run import from_a_shell

from feldspar.cli.main import _PrintableFormatter
from feldspar.cli.terminal import escaped, print_table

HOSTILE = "a\x1b]0;title\x07b\x1b[31m\x9bc\r\n[bold]d[/bold]"


def printed(table: Table, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(console, table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def phases() -> Table:
    table = Table(title="Training")
    for column in ("phase", "rows/epoch", "rows/step", "steps/epoch", "epochs", "steps", "time"):
        table.add_column(column, no_wrap=column != "phase")
    table.add_row("knowledge-short", "8", "32", "1", "4", "4", "-")
    table.caption = "tokens a row: 41"
    return table


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_every_name_and_figure_can_be_read_at_each_width(width: int) -> None:
    lines = printed(phases(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert any("knowledge-short" in line for line in lines)
    assert "steps/epoch" in " ".join(lines)
    assert any("tokens a row: 41" in line for line in lines)
    assert "…" not in "".join(lines)


def test_a_narrow_terminal_names_the_figures_below_the_row() -> None:
    lines = [line.rstrip() for line in printed(phases(), 60).splitlines()]
    assert lines[:2] == ["Training", "knowledge-short"]
    assert lines[2] == "    rows/epoch 8, rows/step 32, steps/epoch 1, epochs 4,"
    assert lines[3] == "    steps 4"


def test_names_from_outside_are_neither_markup_nor_escapes() -> None:
    table = Table(title=escaped(HOSTILE))
    table.add_column("exam")
    table.add_row(escaped(HOSTILE))
    for width in (20, 200):
        shown = printed(table, width)
        assert "\x1b" not in shown
        assert "\x9b" not in shown
        assert "\r" not in shown
    assert "[bold]d[/bold]" in printed(table, 200)


def test_warnings_are_printable_too() -> None:
    record = logging.LogRecord("x", logging.WARNING, "x", 1, "server: %s", (HOSTILE,), None)
    shown = _PrintableFormatter("%(levelname)s: %(message)s").format(record)
    assert shown.startswith("WARNING: server: a")
    assert not set(shown) & {"\x1b", "\x9b", "\x07", "\r"}


@pytest.mark.slow
def test_init_and_export_speak_json(tmp_path: Path, tiny: Path) -> None:
    made = json.loads(from_a_shell("init", "new", "--json", cwd=tmp_path).stdout)
    assert all((tmp_path / path).is_file() for path in made["files"])
    out = str(tmp_path / "data")
    done = from_a_shell("export-data", str(tiny), "--out", out, "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert Path(told["path"]).is_dir()
    assert told["num_rows"] > 0

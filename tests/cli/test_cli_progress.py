"""Progress where there is no terminal: plain lines, now and then, and one at the end."""

import pytest

from feldspar.cli import progress
from feldspar.cli.progress import PlainLines, make_progress


def test_a_task_ends_with_its_count_and_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainLines().task("train skills", 4, "steps", done=1) as task:
        for _ in range(3):
            task.advance(1, loss=0.51234)
    shown = capsys.readouterr()
    assert shown.out == ""
    [line] = shown.err.splitlines()
    assert line.startswith("train skills: 4/4 steps, ")
    assert "/s, took 0.0 s" in line
    assert line.endswith("loss 0.5123")


def test_a_line_every_few_seconds_names_rate_and_eta(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    with PlainLines().task("samples", 10, "samples") as task:
        task.advance(5)
        line = capsys.readouterr().err
    assert line.startswith("samples: 5/10 samples, ")
    assert "eta 0 s" in line


def test_a_task_of_unknown_length_has_no_eta(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PLAIN_LINE_SECONDS", 0.0)
    with PlainLines().task("exams", None, "leaves") as task:
        task.advance(2)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("exams: 2 leaves, ")
    assert "eta" not in first
    assert "took" in last


def test_where_standard_error_is_no_terminal_lines_are_plain() -> None:
    assert isinstance(make_progress(), PlainLines)

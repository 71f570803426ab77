"""The tables that a run ends with: nothing that was measured is left to the report alone."""

import io

from rich.console import Console

from feldspar.cli.tables import score_tables
from feldspar.records import Interval, Score


def score(exam: str, metric: str, value: float, checkpoint: str = "base") -> Score:
    return Score(
        checkpoint=checkpoint,
        exam=exam,
        metric=metric,
        value=value,
        interval=Interval(value - 0.1, value + 0.1),
        num_items=10,
    )


def printed(*scores: Score) -> str:
    console = Console(file=io.StringIO(), width=100)
    console.print(*score_tables(scores), sep="\n")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_published_benchmarks_stand_there_with_intervals_each_by_its_metric() -> None:
    text = printed(
        score("mmlu", "acc", 0.31),
        score("mmlu", "acc", 0.42, "skills"),
        score("mmlu: anatomy", "acc", 0.77),
        score("mt-bench", "rating", 6.5, "owner/model"),
        score("mt-bench: untouched", "rating", 6.25, "owner/model"),
        score("mt-bench: turn 1", "rating", 7.77, "owner/model"),
        score("mt-bench", "judge errors", 0.0),
        score("skills exam: untouched", "accuracy", 0.79),
    )
    assert "Published benchmarks" in text
    (mmlu,) = [line.split() for line in text.splitlines() if "mmlu, acc" in line]
    assert mmlu == ["mmlu,", "acc", "10", "0.31", "±0.10", "0.42", "±0.10", "-"]
    assert "mt-bench, rating" in text
    assert "mt-bench: untouched, rating" in text
    assert "6.50 ±0.10" in text
    assert "owner/model" in text
    # Parts are the report's, and what did not happen is no table.
    assert "7.7" not in text
    assert "Judge errors" not in text


def test_judge_errors_are_told_where_there_are_any() -> None:
    text = printed(
        score("long", "judged right", 0.5),
        score("long", "judge errors", 0.25),
        score("other", "judged right", 0.5),
        score("other", "judge errors", 0.0),
    )
    errors = text[text.index("Judge errors") :]
    assert "0.25 ±0.10" in errors
    assert "other" not in errors


def test_names_are_neither_markup_nor_commands_to_the_terminal() -> None:
    text = printed(score("[red]mine[/red]\x1b[2J", "accuracy", 0.31, "[b]phase"))
    assert r"[red]mine[/red]\x1b[2J" in text
    assert "[b]phase" in text
    assert "\x1b" not in text

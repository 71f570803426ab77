"""`feldspar chat`: Ctrl-C ends an answer between two tokens, and the chat goes on."""

import io
import signal
from collections.abc import Generator
from typing import Any

import pytest
from rich.console import Console

from feldspar.cli.talk import _answer, _try


class Counting:
    """Says one number after another, and whether it was let go."""

    base: object | None = None
    name = "counting"
    max_tokens = 300
    interrupts = False

    def __init__(self) -> None:
        self.num_said = self.num_forgotten = 0
        self.was_closed = False

    def forget(self) -> None:
        self.num_forgotten += 1

    def answers_apart(self, questions: list[str], room: int) -> list[tuple[str, str | None]]:
        if self.interrupts:
            raise KeyboardInterrupt
        return [(f"said in {room}", "the base" if self.base else None) for _ in questions]

    def answers(self, _: str) -> Generator[tuple[str, str | None], None, None]:
        said = ""
        try:
            for number in range(20):
                said += f"{number} "
                self.num_said += 1
                yield said, said if self.base else None
        finally:
            self.was_closed = True


class Impatient(Console):
    """Presses Ctrl-C when it has printed so many times."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        super().__init__(file=io.StringIO(), width=80)

    def print(self, *things: Any, **how: Any) -> None:
        super().print(*things, **how)
        self.patience -= 1
        if self.patience == 0:
            signal.raise_signal(signal.SIGINT)

    @property
    def text(self) -> str:
        assert isinstance(self.file, io.StringIO)
        return self.file.getvalue()


@pytest.mark.parametrize("patience", [3, 10])
def test_ctrl_c_ends_the_answer_and_nothing_else(patience: int) -> None:
    before = signal.getsignal(signal.SIGINT)
    partner, console = Counting(), Impatient(patience)
    _answer("count", partner, console)  # type: ignore[arg-type]
    assert (partner.num_said, partner.was_closed) == (patience, True)
    assert console.text.endswith(f"{patience - 1} \n(stopped)\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_an_answer_that_ends_by_itself_says_nothing_of_a_stop() -> None:
    partner, console = Counting(), Impatient(-1)
    partner.base = partner
    _answer("count", partner, console)  # type: ignore[arg-type]
    assert partner.num_said == 20
    assert "18 19" in console.text
    assert "stopped" not in console.text


def test_questions_that_are_tried_are_asked_apart_and_shown_beside_their_answers() -> None:
    partner, console = Counting(), Impatient(-1)
    _try(["What is [bold]7[/bold]?"], partner, console)  # type: ignore[arg-type]
    assert console.text == "> What is [bold]7[/bold]?\nsaid in 80\n"
    partner.base = partner
    _try(["one", "two"], partner, console)  # type: ignore[arg-type]
    assert "asking 2 questions of both models" in console.text
    assert console.text.index("> one") < console.text.index("> two")
    assert (partner.num_said, partner.num_forgotten) == (0, 0)


def test_ctrl_c_ends_the_questions_that_are_tried() -> None:
    partner, console = Counting(), Impatient(-1)
    partner.interrupts = True
    _try(["one", "two"], partner, console)  # type: ignore[arg-type]
    assert console.text.endswith("(stopped)\n")

"""`feldspar chat`: talk to a run's result."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot
from feldspar.cli.terminal import escaped
from feldspar.text.printable import on_one_line, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, RenderableType

    from feldspar.serve.chat import Conversationalist

HELP = (
    "Type a question. /try asks a question of the run's exams, /why shows what taught the last "
    "answer, /base puts the base beside, /system TEXT sets the system prompt, /reset forgets what "
    "was said, /quit or Ctrl-D ends; Ctrl-C stops an answer."
)

NUM_EXAMPLES = 100
"""Questions that `/try` has."""
TRY_TOKENS = 80
"""Room for an answer to one of them: exams ask for short ones."""
_ROOM_FOR_CTRL_C = 2
"""Columns left free: a terminal echoes `^C`, which on a full line would begin another."""


def chat(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Room for one answer.")] = 300,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    beside_base: Annotated[
        bool, typer.Option("--beside-base", help="Show the base's answers beside.")
    ] = False,
    num_tried: Annotated[
        int,
        typer.Option("--try", min=0, help="First ask so many questions of the run's exams."),
    ] = 0,
    runs: RunsRoot = RUNS,
) -> None:
    """Talk to the result of a run."""
    from rich.console import Console

    from feldspar.evaluate.examples import example_questions
    from feldspar.runs import find_run
    from feldspar.serve.chat import Conversationalist

    console = Console()
    path = find_run(run, runs)
    partner = Conversationalist(path, max_tokens, temperature)
    if beside_base:
        partner.bring_base()
    tried = example_questions(path, num_tried)
    _try(tried, partner, console)
    console.print(escaped(f"{partner.name}. {HELP}"), style="dim", highlight=False)
    untried = (q for q in example_questions(path, NUM_EXAMPLES) if q not in tried)
    while True:
        try:
            line = console.input("[bold]> [/bold]").strip()
        except EOFError:
            return
        except KeyboardInterrupt:
            console.print("Ctrl-D ends", style="dim")
            continue
        if line in ("/quit", "/exit"):
            return
        if line == "/try":
            another = next(untried, None)
            if another is None:
                console.print("the exams' questions are used up", style="dim")
            else:
                _try([another], partner, console)
        elif line.startswith("/"):
            _obey(line, partner, console)
        elif line:
            _answer(line, partner, console)


def _try(questions: Sequence[str], partner: Conversationalist, console: Console) -> None:
    """Ask them all at once, each as a conversation of its own: what came before would change the
    answers."""
    from rich.text import Text

    if len(questions) > 1:
        of_both = " of both models" if partner.base else ""
        console.print(f"asking {len(questions)} questions{of_both}", style="dim", highlight=False)
    try:
        answers = partner.answers_apart(questions, min(partner.max_tokens, TRY_TOKENS))
    except KeyboardInterrupt:
        console.print("(stopped)", style="dim")
        return
    for question, (ours, base) in zip(questions, answers, strict=True):
        console.print(Text(printable(f"> {question}"), style="bold"))
        if base is None:
            console.print(Text(printable(ours)))
        else:
            console.print(_side_by_side(partner, ours, base, console.width - _ROOM_FOR_CTRL_C))


def _obey(line: str, partner: Conversationalist, console: Console) -> None:
    command, _, rest = line.partition(" ")
    if command == "/reset":
        partner.forget()
        console.print("a new conversation", style="dim")
    elif command == "/system":
        partner.instruct(rest.strip())
        told = "system prompt set" if rest.strip() else "the recipe's own system prompt"
        console.print(f"{told}; a new conversation", style="dim")
    elif command == "/base":
        if partner.base is None:
            partner.bring_base()
            console.print("the base answers beside", style="dim")
        else:
            partner.base = None
            console.print("the base has left", style="dim")
    elif command == "/why":
        _explain(partner, console)
    else:
        console.print(HELP, style="dim", highlight=False)


def _answer(line: str, partner: Conversationalist, console: Console) -> None:
    """Show the answer as it comes. Ctrl-C stops it, and the chat goes on."""
    from contextlib import closing

    with closing(partner.answers(line)) as answers, _listening_for_ctrl_c() as is_pressed:
        until_stopped = _until(answers, is_pressed)
        if partner.base is None:
            _print_as_it_comes((ours for ours, _ in until_stopped), console)
        else:
            _print_beside(until_stopped, partner, console)
    if is_pressed():
        console.print("(stopped)", style="dim")


@contextmanager
def _listening_for_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Tells whether it was pressed, so that an answer ends between two tokens and not within one.

    Pressed again, it interrupts as ever.
    """
    import signal

    num_pressed = 0

    def press(*_: object) -> None:
        nonlocal num_pressed
        num_pressed += 1
        if num_pressed > 1:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: num_pressed > 0
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGINT, before)


def _until(
    answers: Iterator[tuple[str, str | None]], is_pressed: Callable[[], bool]
) -> Iterator[tuple[str, str | None]]:
    for both in answers:
        yield both
        if is_pressed():
            return


def _print_as_it_comes(answers: Iterator[str], console: Console) -> None:
    shown = 0
    for text in answers:
        part = printable(text[shown:])
        console.print(part, end="", markup=False, highlight=False, soft_wrap=True)
        shown = len(text)
    console.print()


def _print_beside(
    answers: Iterator[tuple[str, str | None]], partner: Conversationalist, console: Console
) -> None:
    from rich.live import Live

    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        for ours, base in answers:
            table = _side_by_side(partner, ours, base or "", console.width - _ROOM_FOR_CTRL_C)
            live.update(table, refresh=True)


def _side_by_side(partner: Conversationalist, ours: str, base: str, width: int) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    assert partner.base is not None
    table = Table(width=width)
    for name in (partner.base.name, partner.name):
        table.add_column(Text(on_one_line(name), style="dim"), ratio=1)
    table.add_row(Text(printable(base)), Text(printable(ours)))
    return table


def _explain(partner: Conversationalist, console: Console) -> None:
    from rich.text import Text

    found = partner.why()
    if not found:
        console.print("nothing was said yet, or this run has no samples", style="dim")
    for sample, likeness, seeds in found:
        console.print(Text(on_one_line(f"{likeness:.2f}  {sample.leaf}"), style="bold"))
        console.print(Text(printable(f"      asked: {sample.question}")))
        console.print(Text(printable(f"      answer: {sample.answer}")))
        for seed in seeds:
            asked = printable(f"      from seed, line {seed.line}: {seed.question}")
            console.print(Text(asked, style="dim"))

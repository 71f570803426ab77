"""`feldspar chat`: talk to a run's result."""

from __future__ import annotations

from typing import Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot

HELP = "Type a question; /new forgets what was said; /quit or Ctrl-D ends."


def chat(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    max_tokens: Annotated[int, typer.Option(min=1, help="Room for one answer.")] = 300,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    runs: RunsRoot = RUNS,
) -> None:
    """Talk to the result of a run."""
    from rich.console import Console

    from feldspar.publish import Conversationalist
    from feldspar.runs import find_run

    console = Console()
    partner = Conversationalist(find_run(run, runs), max_tokens, temperature)
    console.print(f"{partner.name}. {HELP}", style="dim", highlight=False)
    while True:
        try:
            line = console.input("[bold]> [/bold]").strip()
        except EOFError:
            return
        if line in ("/quit", "/exit"):
            return
        if line == "/new":
            partner.forget()
        elif line:
            console.print(partner.answer(line), markup=False, highlight=False)

"""What is started to serve a model, and one running copy of it, whichever engine placed it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from feldspar.endpoint.faults import NoAnswers

LAST_LINES = 3
"""Of what a server said that an error shows."""
MAX_LINE = 200

EngineName = Literal["local", "ray"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is started, and how long it is waited for."""

    command: str
    """With `{port}`, `{host}`, `{model}` and `{replica}` (0, 1, ...) to be filled in. No shell
    reads it."""
    model: str
    """What `{model}` is, and what the server is expected to call it."""
    log_folder: Path
    num_replicas: int = 1
    seconds: float = 900.0
    """From where a copy has its place to its first answer."""
    called: str | None = None
    """The only name, or root as vLLM has it, that a model may have to be asked; `{model}` and the
    like are filled in. None: also another one, where the server has one alone."""
    log_name: str = "server"
    cure: str = "mend the `command`, then run again: every answer so far is kept"
    engine: EngineName = "local"
    gpus_each: int = 0
    nodes_each: int = 1

    def words(self, values: Mapping[str, str]) -> list[str]:
        """The command with `values` filled in."""
        return [filled(word, values) for word in shlex.split(self.command)]

    def log_path(self, number: int) -> Path:
        """Where what a replica says is written."""
        name = self.log_name if self.num_replicas == 1 else f"{self.log_name}-{number}"
        return self.log_folder / f"{name}.log"

    def error(self, log_path: Path, fault: str) -> NoAnswers:
        """What is raised for a server, with its last words."""
        return NoAnswers(
            f"that was started for {self.model or 'the recipe'}",
            "ended",
            f"{fault}; its last words: {last_lines(log_path)}; all of them: {log_path}",
            cure=self.cure,
        )


class Server(Protocol):
    """One copy of the command: one process, or one on each of its nodes."""

    log_path: Path

    @property
    def url(self) -> str | None:
        """Ends in /v1; None while it has no place yet."""
        ...

    @property
    def placed_at(self) -> float | None:
        """When its process was started, by the monotonic clock; None while it waits for room."""
        ...

    @property
    def status(self) -> int | None:
        """Of one that has ended; None while it runs."""
        ...

    @property
    def is_draining(self) -> bool:
        """Whether its node is to be taken away: it answers what it has, and gets nothing new."""
        ...

    def fill(self, word: str) -> str:
        """A word of the recipe with this server's model, port and number in it."""
        ...

    def look(self) -> None:
        """Find out how it is. Never waits."""
        ...

    def let_go(self) -> None:
        """Have it end."""
        ...

    def wait(self) -> None:
        """Wait until it has, once it was let go."""
        ...


class ServerEngine(Protocol):
    """What places servers."""

    is_replaced: bool
    """Whether a server that ends is started again, and calls begin with the first that is up."""

    def launch(self, start: Start, number: int) -> Server:
        """Start one replica, or ask for its place. Raises NoAnswers where nothing can be."""
        ...

    def room(self) -> str:
        """For messages: what there is, `8 GPUs, 0 of them free`."""
        ...


def filled(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(name, value)
    return word


def last_lines(path: Path) -> str:
    """The end of a log on one line; `none` where nothing was said."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    said = [" ".join(line.split())[:MAX_LINE] for line in text.split("\n") if line.strip()]
    return " | ".join(said[-LAST_LINES:]) or "none"

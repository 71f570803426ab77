"""Servers as processes of this machine.

The guard between us and a server (`child_guard`) ends the server's whole session when we let go or
are gone, however that came.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from typing import ClassVar

from feldspar.models import child_guard
from feldspar.models.server import Start, filled


class LocalServer:
    """One process and its address."""

    is_draining = False

    def __init__(self, start: Start, number: int, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.log_path = start.log_path(number)
        self.placed_at = time.monotonic()
        self._values = {
            "{model}": start.model,
            "{port}": str(port),
            "{host}": "127.0.0.1",
            "{replica}": str(number),
        }
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as said:
            self.process = subprocess.Popen(
                # By its file and alone, so that it starts at once and whatever else is installed.
                [sys.executable, "-I", child_guard.__file__, *start.words(self._values)],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the run: the server goes on until the run lets go of it.
                start_new_session=True,
            )

    @property
    def status(self) -> int | None:
        return self.process.poll()

    def fill(self, word: str) -> str:
        return filled(word, self._values)

    def look(self) -> None:
        pass

    def let_go(self) -> None:
        """Have the guard end it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def wait(self) -> None:
        self.process.wait()


class LocalEngine:
    """Starts them next to the run. What ends is not started again: what it died of, it would die
    of again, on a machine whose owner sits in front of it."""

    is_replaced = False
    _given: ClassVar[set[int]] = set()

    def launch(self, start: Start, number: int) -> LocalServer:
        return LocalServer(start, number, self._free_port())

    def room(self) -> str:
        return "this machine"

    def _free_port(self) -> int:
        """One that nobody has, and that no server of ours was given, for whichever role."""
        while True:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = int(probe.getsockname()[1])
            if port not in self._given:
                self._given.add(port)
                return port

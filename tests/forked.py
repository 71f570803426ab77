"""Processes to be killed, forked from one that has torch loaded: loading it takes seconds."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

# The process that is forked is on one thread: it has imported these, and computes nothing.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("pytest", "feldspar.flow", "feldspar.student.fit"),
        *("feldspar.train.phases", "feldspar.prefer.rounds", "feldspar.world.build"),
        *("feldspar.cli.main", "transformers.models.llama.modeling_llama"),
    ]
)


class Place(NamedTuple):
    """Where a process runs, and the files that it writes its outputs to."""

    cwd: Path
    environment: Mapping[str, str]
    files: tuple[str, str]


class Forked:
    """A function in a process and a session of its own, handled as a `subprocess.Popen`.

    Its exit code is what the function returns or exits with, and -N where signal N killed it.
    """

    def __init__(
        self,
        function: Callable[..., int | None],
        *arguments: object,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder = tempfile.mkdtemp()
        weakref.finalize(self, shutil.rmtree, folder)
        files = (f"{folder}/out", f"{folder}/err")
        for file in files:
            Path(file).touch()
        self._out, self._err = map(Path, files)
        place = Place(cwd or Path.cwd(), dict(environment or os.environ), files)
        self._process = CONTEXT.Process(target=_enter, args=(place, function, arguments))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def out(self) -> str:
        """Standard output so far."""
        return self._out.read_text(encoding="utf-8")

    def said(self) -> str:
        """Standard error so far."""
        return self._err.read_text(encoding="utf-8")

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"it runs after {timeout} seconds; it said: {self.said()}")
        return self._process.exitcode

    def succeed(self) -> None:
        """To its end, which has to be a good one."""
        code = self.wait()
        assert code == 0, self.said()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and standard error, when it has ended."""
        self.wait(timeout)
        return self.out(), self.said()

    def completed(self) -> subprocess.CompletedProcess[str]:
        out, said = self.communicate()
        return subprocess.CompletedProcess([], self.wait(), out, said)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def _enter(
    place: Place, function: Callable[..., int | None], arguments: tuple[object, ...]
) -> None:
    # A collection of garbage looks at what this process makes, and not at all of torch.
    gc.freeze()
    os.setsid()
    # Ignored where the tests were started in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, file in enumerate(place.files, 1):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(place.environment)
    os.chdir(place.cwd)
    sys.exit(function(*arguments))

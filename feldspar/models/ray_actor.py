"""What runs on a node of a Ray cluster for one server: it starts the command, watches and ends it.

Sent to the nodes as text, so that they need Ray and the command, and not this package: only the
standard library and Ray are imported.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
from typing import IO, NamedTuple

MOST_BYTES = 1 << 18
"""Of a log, in one look."""
END_SECONDS = 20.0
"""For the guard to end the command, which it gives 15."""


class NodePorts(NamedTuple):
    """Where on its node a process will listen, before it is started."""

    port: int
    meeting_port: int
    """For the processes of several nodes to meet at."""
    node_id: str
    gpus: str
    """Those that Ray gave it, `2,3`."""


class NodeLook(NamedTuple):
    status: int | None
    said: bytes
    """What came since the last look."""


class ReplicaActor:
    """One process on one node. Killed with its worker, it takes the command along: the guard sees
    its pipe close."""

    def __init__(self, guard_source: str) -> None:
        self._guard_source = guard_source
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (it lives as long as the actor)
        self._num_read = 0
        self._process: subprocess.Popen[bytes] | None = None

    def where(self) -> NodePorts:
        import ray

        with socket.socket() as one, socket.socket() as other:
            one.bind(("", 0))
            other.bind(("", 0))
            ports = one.getsockname()[1], other.getsockname()[1]
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return NodePorts(*ports, ray.get_runtime_context().get_node_id(), gpus)

    def begin(self, words: list[str]) -> int:
        """Start the command; gives the guard's process id."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", self._guard_source, *words],
            stdin=subprocess.PIPE,
            stdout=self._log.fileno(),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self._process.pid

    def look(self) -> NodeLook:
        status = None if self._process is None else self._process.poll()
        said = os.pread(self._log.fileno(), MOST_BYTES, self._num_read)
        self._num_read += len(said)
        return NodeLook(status, said)

    def end(self) -> bool:
        """Have the guard end it; whether it did in time."""
        if self._process is None:
            return True
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

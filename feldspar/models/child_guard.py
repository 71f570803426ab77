"""Runs a command, and ends all of it when whoever started this process lets go or is gone.

    python -I child_guard.py vllm serve ...

Standard input is held open by the starter and never written to. The command gets a session of its
own, so that its children end with it. Only the standard library: it is run as a file.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

POLL_SECONDS = 0.2
_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux."""
STOP_SECONDS = 15.0
"""For the command to end by itself when it is told to."""


def main(command: list[str]) -> int:
    """Gives the command's status; 128 and more where a signal ended it, as shells do."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_guard if sys.platform == "linux" else None,
        )
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    try:
        while process.poll() is None and _is_held(parent):
            pass
    finally:
        _end(process)
    code = process.returncode
    return 128 - code if code < 0 else code


def _end_with_guard() -> None:
    """The command ends where this process is killed itself, as Ray does with a lost worker's
    children."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGTERM)


def _is_held(parent: int) -> bool:
    """Whether the starter is there: of one that was killed, a fork may still hold the pipe."""
    ready, _, _ = select.select([0], [], [], POLL_SECONDS)
    return not ready and os.getppid() == parent


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole session to end, and see that it does."""
    for number, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
        if not _is_there(process, number):
            return
        until = time.monotonic() + seconds
        while time.monotonic() < until and _is_there(process, 0):
            time.sleep(0.05)


def _is_there(process: subprocess.Popen[bytes], number: int) -> bool:
    """Send a signal, 0 for none, to the command and its children; False where none is left."""
    process.poll()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

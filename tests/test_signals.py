"""What ends a program from outside: as Ctrl-C does, with one line, and the same command goes on."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from pathlib import Path

import pytest
from tiny_run import is_one_line, write_recipe

from feldspar.cli.main import INTERRUPTED
from feldspar.serve import ChatReply, ChatRequest, ModelCard, listening, make_app

INTERRUPT = "feldspar: interrupted; nothing is lost, the same command goes on"
PATIENCE_SECONDS = 200
COMMAND = [sys.executable, "-m", "feldspar.cli.main"]


class Silent:
    """A teacher that takes calls and never answers."""

    def __init__(self) -> None:
        self.asked = threading.Event()

    async def complete(self, request: ChatRequest) -> ChatReply:
        self.asked.set()
        await asyncio.sleep(10 * PATIENCE_SECONDS)
        raise AssertionError


@contextmanager
def in_thread(serving: AbstractAsyncContextManager[str]) -> Iterator[str]:
    loop = asyncio.new_event_loop()
    ready, stop, urls = threading.Event(), asyncio.Event(), []

    async def serve() -> None:
        async with serving as url:
            urls.append(url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    ready.wait(10)
    try:
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE_SECONDS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("command", ["generate", "calibrate"])
def test_asking_ends_on_each_signal_with_one_line(
    tmp_path: Path, tiny: Path, number: signal.Signals, command: str
) -> None:
    if command == "calibrate" and number is not signal.SIGTERM:
        pytest.skip("the way is the same")
    write_recipe(tmp_path)
    teacher = Silent()
    with in_thread(listening(make_app([ModelCard("silent")], teacher.complete))) as url:
        process = subprocess.Popen(
            [*COMMAND, command, "recipe.toml", "--set", f"teacher.endpoint={url}"],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            # As a background job of a shell begins.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
            env={**os.environ, "COLUMNS": "80"},
        )
        try:
            asked = teacher.asked.wait(PATIENCE_SECONDS)
            process.send_signal(number)
            _, said = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert asked, said
    assert process.returncode == INTERRUPTED, said
    assert is_one_line(said), said
    assert said.splitlines()[-1] == INTERRUPT


@pytest.mark.slow
def test_a_server_that_is_stopped_says_so_and_no_more(tmp_path: Path, tiny: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "serve", str(tiny), "--port", "0"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        process.kill()
    assert first.startswith("http://127.0.0.1:"), said
    assert said.splitlines()[-1] == "stopped"
    assert "Traceback" not in said
    assert process.returncode == 0

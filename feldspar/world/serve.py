"""The embedded teacher as a process: served on this machine, ended with whoever started it.

    python -m feldspar.world.serve --port 0 --world '{"seed": 1}' --errors '{"wrong_fact": 0.1}'

It prints one line of JSON when it listens ({"url": ..., "model": ..., "revision": ...}) and ends
when its standard input closes, which also happens when its parent is killed.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import IO, NamedTuple

from feldspar.children import child_environment, module_command
from feldspar.config import ErrorRates, WorldConfig
from feldspar.errors import TeacherError
from feldspar.serve.app import listening, make_app
from feldspar.serve.protocol import ChatReply, ChatRequest, ModelCard
from feldspar.world.brain import Brain
from feldspar.world.stages import find_stage
from feldspar.world.truth import World

MODEL = "feldspar-world"
START_SECONDS = 30.0
STOP_SECONDS = 5.0


@contextmanager
def start_teacher(world: WorldConfig | None, rates: ErrorRates) -> Iterator[str]:
    """Start the teacher in a process of its own; gives its URL, and stops it after the block.

    Raises TeacherError where it does not come up.
    """
    with tempfile.TemporaryFile() as said:
        process = _start(world, rates, said)
        try:
            yield _wait_for_url(process, said)
        finally:
            _stop(process)


class EmbeddedTeacher(NamedTuple):
    """Where an embedded teacher listens, and who it is."""

    url: str
    model: str
    revision: str


@asynccontextmanager
async def serving(
    world: WorldConfig | None, rates: ErrorRates, port: int = 0
) -> AsyncIterator[EmbeddedTeacher]:
    """Serve on 127.0.0.1 while the block runs; port 0 takes a free one.

    Raises TeacherError where the port is taken.
    """
    brain = Brain(world_of(world), rates)
    card = ModelCard(MODEL, brain.revision)

    async def complete(request: ChatRequest) -> ChatReply:
        stage = request.stage or find_stage(request.messages)
        return brain.complete(dataclasses.replace(request, stage=stage))

    async with AsyncExitStack() as stack:
        try:
            url = await stack.enter_async_context(listening(make_app([card], complete), port=port))
        except OSError as error:
            why = f"port {port} cannot be listened on: {error.strerror}"
            raise TeacherError(f"{why}; name another with --port, or 0 for any") from error
        yield EmbeddedTeacher(url, card.id, card.revision)


def world_of(config: WorldConfig | None) -> World | None:
    """The world of a recipe. Raises TeacherError where it asks for more entities than names."""
    if config is None:
        return None
    try:
        return World.make(config.seed, config.num_old, config.num_new)
    except ValueError as error:
        raise TeacherError(f"[world] num_old, num_new: {error}") from None


def _start(world: WorldConfig | None, rates: ErrorRates, said: IO[bytes]) -> subprocess.Popen[str]:
    command = [*module_command("feldspar.world.serve"), "--errors", rates.model_dump_json()]
    if world is not None:
        command += ["--world", world.model_dump_json()]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=said,
        text=True,
        env=child_environment(),
        # Ctrl-C is for the run: the teacher goes on until the run lets go of it.
        start_new_session=True,
    )


def _wait_for_url(process: subprocess.Popen[str], said: IO[bytes]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if ready else ""
    if not line:
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
        why = lines[-1] if ready else f"it was not ready after {START_SECONDS:.0f} s"
        raise TeacherError(f"the embedded teacher did not start: {why}")
    return str(json.loads(line)["url"])


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


async def _serve_while_held(world: WorldConfig | None, rates: ErrorRates, port: int) -> None:
    """Serve until standard input closes, or until another process has become the parent."""
    released = asyncio.Event()
    loop = asyncio.get_running_loop()
    parent = os.getppid()

    def read() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            released.set()

    async with serving(world, rates, port) as teacher:
        sys.stdout.write(json.dumps(teacher._asdict()) + "\n")
        sys.stdout.flush()
        loop.add_reader(0, read)
        # A process forked from the parent may hold the pipe open after the parent was killed.
        while os.getppid() == parent and not released.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(released.wait(), timeout=1.0)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m feldspar.world.serve")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--world", type=WorldConfig.model_validate_json, default=None)
    parser.add_argument("--errors", type=ErrorRates.model_validate_json, default=ErrorRates())
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_serve_while_held(options.world, options.errors, options.port))
    except TeacherError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])

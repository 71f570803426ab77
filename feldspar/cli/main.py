"""The command line. Each command imports what it needs when it runs, so `--help` stays quick."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from feldspar.errors import DiskError, FeldsparError, disk_fault

INTERRUPTED = 130
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_ENDING = ("SIGTERM", "SIGHUP")
"""What Slurm, systemd, containers and a closed terminal send; Windows has only the first."""

app = typer.Typer(
    name="feldspar",
    help="Teach an open language model new knowledge and skills from a folder of examples, "
    "without washing out what it already knows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class _PrintableFormatter(logging.Formatter):
    """What a server or a file says must not steer the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        from feldspar.text.printable import on_one_line

        return on_one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """A traceback that is logged keeps its lines."""
        from feldspar.text.printable import printable

        return printable(super().format(record))


def _show_version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(version("feldspar"))
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Tracebacks and debug logs; may stand anywhere.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    handler = logging.StreamHandler()
    form = "%(levelname)s %(name)s: %(message)s" if debug else "%(levelname)s: %(message)s"
    handler.setFormatter(_PrintableFormatter(form))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    logging.getLogger("feldspar.notices").setLevel(logging.INFO)
    for noisy in (
        "httpx",
        "httpx2",
        "httpcore",
        "httpcore2",
        "openai",
        "aiohttp.access",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)


WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
"""How torch's threads wait for each other: some microseconds awake, which small operations need,
and then asleep; those that spin on starve whatever else is running (benchmarks/LOG.md)."""
_IDLE_SPINS = "20000"
_IDLE_SHARE = 0.25
"""Of the cores, that others may keep busy where nothing else is running."""
_LOAD = Path("/proc/loadavg")


def _waiting() -> dict[str, str]:
    """WAITING, and longer awake where nobody is starved by it."""
    is_idle = _num_running() < _IDLE_SHARE * (os.cpu_count() or 1)
    return WAITING | {"GOMP_SPINCOUNT": _IDLE_SPINS} if is_idle else WAITING


def _num_running() -> float:
    """Threads of others that run or could just now; where the system does not say so, the last
    minute's load, which also counts what has ended since."""
    try:
        found = []
        for _ in range(3):
            time.sleep(0.002)
            # `0.20 0.18 0.12 1/80 11206`: one of 80 runs, which is this one.
            found.append(int(_LOAD.read_text().split()[3].partition("/")[0]) - 1)
        return sorted(found)[1]
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return float("inf")


def main() -> None:
    """Run the command line; what a user can mend is one line on standard error."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if len(arguments) < len(sys.argv) - 1:
        arguments.insert(0, "--debug")
    # Read when torch loads.
    for name, value in _waiting().items():
        os.environ.setdefault(name, value)
    # Else the interpreter goes through all that was ever imported, several times, before it ends.
    atexit.register(gc.freeze)
    _add_commands()
    _guard(app, is_debug="--debug" in arguments)
    _take_signals()
    app(arguments, prog_name=app.info.name)


def _add_commands() -> None:
    from feldspar.cli import (
        agree,
        calibrate,
        compare,
        doctor,
        export_data,
        frontier,
        gate,
        init,
        journal,
        learn,
        plan,
        preview,
        publish,
        quickstart,
        report,
        run,
        serve,
        studio,
        talk,
        taxonomy,
        verify,
        world,
    )

    app.command("init")(init.init)
    app.command("quickstart")(quickstart.quickstart)
    app.command("demo")(quickstart.demo)
    app.add_typer(taxonomy.app, name="taxonomy")
    app.command("doctor")(doctor.doctor)
    app.command("plan")(plan.plan)
    app.command("preview")(preview.preview)
    app.command("calibrate")(calibrate.calibrate)
    app.command("run")(run.run)
    for name, command in run.STEPS.items():
        app.command(name)(command)
    app.command("compare")(compare.compare)
    app.command("frontier")(frontier.frontier)
    app.command("gate")(gate.gate)
    app.command("agree")(agree.agree)
    app.command("report")(report.report)
    app.command("chat")(talk.chat)
    app.command("serve")(serve.serve)
    app.command("studio")(studio.studio)
    app.command("verify")(verify.verify)
    app.command("learn")(learn.learn)
    app.command("export-data")(export_data.export_data)
    app.command("publish", cls=publish.PublishCommand)(publish.publish)
    app.add_typer(journal.app, name="journal")
    app.add_typer(world.app, name="world")


def _guard(group: typer.Typer, *, is_debug: bool) -> None:
    """Let every command end with one line and its exit code where the user can mend it."""
    for command in group.registered_commands:
        assert command.callback is not None
        command.callback = _guarded(command.callback, is_debug)
    for sub in group.registered_groups:
        assert sub.typer_instance is not None
        _guard(sub.typer_instance, is_debug=is_debug)


def _guarded(command: Callable[..., Any], is_debug: bool) -> Callable[..., Any]:
    @functools.wraps(command)
    def guarded(*args: object, **kwargs: object) -> Any:
        try:
            return command(*args, **kwargs)
        except (FeldsparError, OSError, KeyboardInterrupt) as error:
            if is_debug or (stop := _what_to_say(error)) is None:
                raise
        from feldspar.text.printable import on_one_line

        message, exit_code = stop
        # The terminal may be gone.
        with contextlib.suppress(OSError):
            print(f"feldspar: {on_one_line(message)}", file=sys.stderr, flush=True)
        raise typer.Exit(exit_code)

    return guarded


def _what_to_say(error: BaseException) -> tuple[str, int] | None:
    """One line and an exit code, or None for what the user cannot mend."""
    if isinstance(error, FeldsparError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; nothing is lost, the same command goes on", INTERRUPTED
    assert isinstance(error, OSError)
    if isinstance(error, BrokenPipeError):
        # Whoever read the output has read enough: click ends in silence.
        return None
    is_of_disk = error.filename is not None or error.errno in _FULL
    exit_code = DiskError.exit_code if is_of_disk else FeldsparError.exit_code
    return f"{disk_fault(error)}; mend that and repeat the same command: nothing is lost", exit_code


def _take_signals() -> None:
    """End on what asks for it as on Ctrl-C, which a shell's background jobs begin without."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in _ENDING:
        number = getattr(signal, name, None)
        # Under nohup a run outlives its terminal.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(signum: int, frame: FrameType | None) -> None:
    """As Ctrl-C does at this moment: asyncio lets what is under way end well."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signum, frame)


if __name__ == "__main__":
    main()

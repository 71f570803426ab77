"""Inputs that once failed: each is copied, its commands are run, and what they say is compared.

    python benchmarks/cases.py --cases FOLDER [--only 'yaml*'] [--keep COPIES]

A case is a folder with a case.toml, in `benchmarks/cases/` or in FOLDER itself:

    input = "22-no-break-space"     # a folder of FOLDER; by default the one called as the case
    with = ["30-bom-in-recipe"]     # other folders of FOLDER that its commands go into
    ports = [8917]                  # replaced by free ones, in commands and in the copied files
    background = "python ../server.py 8917"     # runs until the case ends
    setup = "python make.py"        # must succeed
    [[step]]
    command = "feldspar taxonomy check taxonomy"
    exit = 3                        # or a list of codes that are all right; 0 by default
    says = ["FT002", "no-break"]    # regular expressions, each found in what is printed
    says_not = ["unknown key"]      # found nowhere; a traceback is never right
    seconds = 60                    # longest time; 120 by default

`feldspar` and `python` are those of this process. Ends with 1 where a case is not as it should be.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

OWN_CASES = Path(__file__).parent / "cases"
TEXT_SUFFIXES = (".toml", ".py", ".json", ".md", ".sh")
DEFAULT_SECONDS = 120
START_SECONDS = 30


class Case(NamedTuple):
    name: str
    folder: Path
    """Of its input."""
    says: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=Path, required=True, help="folder of inputs")
    parser.add_argument("--only", default="*", help="cases by name")
    parser.add_argument("--keep", type=Path, help="copy the inputs here, and leave them")
    arguments = parser.parse_args()
    wrong = 0
    cases = [case for case in find_cases(arguments.cases) if fnmatch(case.name, arguments.only)]
    for case in cases:
        start = time.monotonic()
        with _place(arguments.keep) as place:
            faults = run_case(case, arguments.cases, place)
        wrong += bool(faults)
        verdict = "wrong" if faults else "right"
        print(f"{case.name:40} {verdict}  {time.monotonic() - start:5.0f} s", flush=True)
        for fault in faults:
            print(f"    {fault}", flush=True)
    print(f"{len(cases) - wrong} of {len(cases)} cases are right")
    return 1 if wrong else 0


def find_cases(inputs: Path) -> list[Case]:
    """Every case whose input is there, by name; one beside its input comes before one of ours."""
    found: dict[str, Case] = {}
    for file in (*sorted(inputs.glob("*/case.toml")), *sorted(OWN_CASES.glob("*/case.toml"))):
        says = tomllib.loads(file.read_text(encoding="utf-8"))
        folder = inputs / str(says.get("input", file.parent.name))
        if folder.is_dir():
            found.setdefault(file.parent.name, Case(file.parent.name, folder, says))
        else:
            print(f"{file.parent.name:40} not run: {folder} is not there")
    return [found[name] for name in sorted(found)]


def run_case(case: Case, inputs: Path, place: Path) -> list[str]:
    """What was not as it should be."""
    ports = {str(port): str(_free_port()) for port in case.says.get("ports", ())}
    copied = _copy(case, inputs, place, ports)
    environment = _environment(place)
    with _background(_with_ports(case.says.get("background", ""), ports), copied, environment):
        for port in ports.values() if "background" in case.says else ():
            _wait_for(int(port))
        if setup := case.says.get("setup"):
            done = _run(_with_ports(setup, ports), copied, environment, DEFAULT_SECONDS)
            if done.code != 0:
                return [f"setup ended with {done.code}: {done.output.strip()[-300:]}"]
        faults = []
        for number, step in enumerate(case.says["step"], start=1):
            command = _with_ports(step["command"], ports)
            done = _run(command, copied, environment, step.get("seconds", DEFAULT_SECONDS))
            faults += [f"step {number}: {fault}" for fault in _faults(step, done)]
    return faults


class Done(NamedTuple):
    code: int | None
    """None: it did not end in time."""
    output: str


def _faults(step: Mapping[str, Any], done: Done) -> Iterator[str]:
    allowed = step.get("exit", 0)
    allowed = allowed if isinstance(allowed, list) else [allowed]
    last = done.output.strip().rpartition("\n")[2][:200]
    if done.code is None:
        yield f"it did not end in time; it said last: {last}"
    elif done.code not in allowed:
        yield f"exit code {done.code}, not {' or '.join(map(str, allowed))}; it said last: {last}"
    for pattern in step.get("says", ()):
        if not re.search(pattern, done.output, re.MULTILINE):
            yield f"it does not say {pattern!r}; it said last: {last}"
    for pattern in (*step.get("says_not", ()), r"Traceback \(most recent call last\)"):
        if found := re.search(pattern, done.output, re.MULTILINE):
            yield f"it says {found.group()!r}"


def _copy(case: Case, inputs: Path, place: Path, ports: Mapping[str, str]) -> Path:
    """The case's input and what lies beside it, writable, with other ports."""
    beside = place / "cases"
    beside.mkdir(parents=True, exist_ok=True)
    for name in (case.folder.name, *case.says.get("with", ())):
        shutil.rmtree(beside / name, ignore_errors=True)
        shutil.copytree(inputs / name, beside / name, symlinks=True)
    for file in inputs.iterdir():
        if file.is_file():
            (beside / file.name).unlink(missing_ok=True)
            shutil.copy(file, beside / file.name)
    data = inputs.resolve().parent / "data"
    if data.is_dir() and not (place / "data").exists():
        (place / "data").symlink_to(data)
    for path in [beside, *beside.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        if ports and path.is_file() and path.suffix in TEXT_SUFFIXES:
            text = path.read_bytes().decode("utf-8", "surrogateescape")
            changed = _with_ports(text, ports)
            if changed != text:
                path.write_bytes(changed.encode("utf-8", "surrogateescape"))
    return beside / case.folder.name


def _with_ports(text: str, ports: Mapping[str, str]) -> str:
    for port, free in ports.items():
        text = re.sub(rf"(?<!\d){port}(?!\d)", free, text)
    return text


def _environment(place: Path) -> dict[str, str]:
    """Where `feldspar` and `python` are those that run this script."""
    programs = place / "bin"
    programs.mkdir(exist_ok=True)
    python = shlex.quote(sys.executable)
    for name, command in (("feldspar", f"{python} -P -m feldspar.cli.main"), ("python", python)):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    own = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    own["FELDSPAR_CACHE"] = os.environ.get("FELDSPAR_CACHE", str(place / "cache"))
    root = str(Path(__file__).parents[1])
    own["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    own["OPENAI_API_KEY"] = "none"
    return os.environ | own


def _run(command: str, folder: Path, environment: dict[str, str], seconds: float) -> Done:
    with tempfile.TemporaryFile() as output:
        process = _start(command, folder, environment, output)
        try:
            code: int | None = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
        output.seek(0)
        return Done(code, output.read().decode("utf-8", "replace"))


def _start(
    command: str, folder: Path, environment: dict[str, str], output: Any
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command with all that it started: its process group, which is its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def _background(command: str, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    if not command:
        yield
        return
    process = _start(command, folder, environment, subprocess.DEVNULL)
    try:
        yield
    finally:
        _end(process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)


@contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory() as place:
        yield Path(place).resolve()


if __name__ == "__main__":
    sys.exit(main())

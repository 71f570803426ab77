"""Every command in README.md and docs/, run in a sandbox, or listed with why not.

    python benchmarks/doc_commands.py [--out PAGE.md]

Commands are the lines of fenced and indented blocks that begin with a program. Placeholders (RUN,
RECIPE, PATH, ...) stand for things that the sandbox has: a project of `feldspar init` on a tiny
untrained model, and three runs of it. Commands that serve until they are stopped are stopped when
they say where they listen. `publish --gguf` wants LLAMA_CPP and `xllamacpp`. Ends with 1 where a
command fails.
"""

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PROGRAMS = (
    *("feldspar", ".venv/bin/feldspar", "make", "pip", "uvx", "podman", "python"),
    *("torchrun", "srun", "export", "vllm", "llama-server"),
)
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```|((?:^    \S[^\n]*\n)+)", re.DOTALL | re.MULTILINE)
SHELL = {"", "sh", "bash"}
TIMEOUT_SECONDS = 300

WHY_NOT = {
    r"make (run|demo)|feldspar (quickstart|demo)\b": "minutes: wheel_and_sdist.py, or by hand",
    r"pip |uvx |podman ": "benchmarks/wheel_and_sdist.py; no container engine here",
    r"torchrun|srun|export MASTER|.*--nproc 8": "needs several machines or GPUs",
    r".*--push ": "needs an account on the hub",
    r"python benchmarks/": "hours, or its own result file in benchmarks/",
    r"feldspar agree": "needs a reward pair: tests/prefer/test_prefer_agree.py",
    r"feldspar .*--install-completion": "changes the user's shell: tests/cli/test_quickstart.py",
    r"feldspar .*--show-completion": "depends on the user's shell: tests/cli/test_quickstart.py",
    r"feldspar taxonomy diff": "needs a repository: tests/taxonomy/test_taxonomy_diff.py",
    r"feldspar taxonomy draft": "needs a teacher: tests/taxonomy/test_taxonomy_commands.py",
    r"feldspar gate .*gate.loss": "needs a retention exam: tests/evaluate/test_evaluate_gate.py",
    r"feldspar learn": "needs a base that can learn: tests/test_add_leaf.py",
    r".*(models/some-model|@MODEL)": "needs a model that is served or stands elsewhere",
    r"vllm|llama-server": "another program",
}
WHOLE_PAGES = {"first-leaf.md": "a real model: by hand, to its end"}
STAND_FOR = {
    r"\bRUN@skills\b": "my-model@skills",
    r"\bRUN\b": "my-model",
    r"\bOTHER\b": "slower",
    r"\bBASE\b": "demo",
    r"\bRECIPE\b": "my-model/recipe.toml",
    r"\bPATH-OR-HUB-ID\b": "world:tiny-llama",
    r"\bPATH\b": "my-model/taxonomy",
    r"\bFILE LEAF\b": "table.csv taxonomy/compositional_skills/imported",
    r"\bMODEL@REVISION\b": "someone@1",
    r"\bFOLDER\b": "runs",
    r"\bDIR\b": ".",
}
EXIT_CODES = {"feldspar gate": (0, 8)}
LISTENS = re.compile(r"https?://\S+")


class Command(NamedTuple):
    page: str
    line: str


class Result(NamedTuple):
    command: Command
    seconds: float
    says: str
    failed: bool = False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the table there too")
    parser.add_argument("--only", default="", help="commands alone that match this pattern")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        sandbox = Path(name)
        prepare(sandbox)
        for command in find_commands():
            if not re.search(arguments.only, command.line):
                continue
            results.append(do(command, sandbox))
            print(row(results[-1]), file=sys.stderr, flush=True)
    page = "\n".join([*head(results), *map(row, results)]) + "\n"
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")
    return int(any(result.failed for result in results))


def find_commands() -> Iterator[Command]:
    """Of each page in turn, each once."""
    seen = set()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for language, fenced, indented in BLOCK.findall(path.read_text(encoding="utf-8")):
            body = re.sub(r"\\\n *", "", fenced if language in SHELL else indented)
            for line in map(str.strip, body.splitlines()):
                plain = re.split(r"  +|\s#", line)[0]
                if line.split(" ")[0] in PROGRAMS and (path.name, plain) not in seen:
                    seen.add((path.name, plain))
                    yield Command(path.name, plain)


def prepare(sandbox: Path) -> None:
    """The project that the tutorial writes, on a tiny model, and its runs `slower` and `demo`."""
    base = "world:tiny-llama"
    run(["init", "my-model", "--base", base], sandbox)
    with (sandbox / "my-model" / "recipe.toml").open("a") as file:
        file.write("\n[world]\n")
    for name in ("my-model", "slower", "demo"):
        run(["run", "my-model/recipe.toml", "--set", f"name={name}"], sandbox)
    (sandbox / "table.csv").write_text(
        "question,answer\n" + "".join(f"What is {n} + 1?,{n + 1}\n" for n in range(5))
    )
    (sandbox / "recipe.toml").write_text((sandbox / "my-model" / "recipe.toml").read_text())
    (sandbox / "recipes").symlink_to(ROOT / "recipes")
    (sandbox / "taxonomy").mkdir()


def run(arguments: list[str], sandbox: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "feldspar.cli.main", *arguments]
    return subprocess.run(
        command,
        cwd=sandbox,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=arguments[0] in ("init", "run"),
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_SECONDS,
    )


def do(command: Command, sandbox: Path) -> Result:
    if why := WHOLE_PAGES.get(command.page):
        return Result(command, 0, f"not here: {why}")
    for pattern, why in WHY_NOT.items():
        if re.match(pattern, command.line):
            return Result(command, 0, f"not here: {why}")
    line = re.sub(r" \[[^\]]*\]", "", command.line) if "RE" in command.line else command.line
    line = re.sub(r" \[(PATH|--)[^\]]*\]", "", line)
    for placeholder, real in STAND_FOR.items():
        line = re.sub(placeholder, real, line)
    words = shlex.split(line)[1:]
    told = ""
    if words[0] == "init":
        # Each page begins a project of its own.
        words[1:2] = [f"{command.page}-{words[1]}"] if words[1] == "my-model" else [words[1]]
    if words[0] == "gate":
        words, told = [*words, "--set", "gate.learned=0.1"], ", with a bound"
    if words[0] == "frontier" and "--plan" not in words:
        words, told = [*words, "--plan"], ", with --plan"
    if "recipes/" in line and words[0] == "plan":
        words += ["--set", "taxonomy.path=my-model/taxonomy"]
    began = time.monotonic()
    if words[0] in ("studio", "serve"):
        says, failed = until_it_listens(words, sandbox)
        return Result(command, time.monotonic() - began, says, failed)
    try:
        done = run(words, sandbox)
    except subprocess.SubprocessError as error:
        return Result(command, time.monotonic() - began, f"FAILED: {error}", failed=True)
    allowed = EXIT_CODES.get(f"feldspar {words[0]}", (0,))
    failed = done.returncode not in allowed
    why = f"FAILED: {done.stderr.strip().splitlines()[-1:]}" if failed else f"runs{told}"
    return Result(command, time.monotonic() - began, why, failed)


def until_it_listens(words: list[str], sandbox: Path) -> tuple[str, bool]:
    """Start a server, wait for its address, and stop it as Ctrl-C does."""
    command = [sys.executable, "-m", "feldspar.cli.main", *words, "--port", "0"]
    with (sandbox / "said.txt").open("w+") as file:
        server = subprocess.Popen(
            command,
            cwd=sandbox,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (found := LISTENS.search((sandbox / "said.txt").read_text())):
            if server.poll() is not None or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        server.send_signal(signal.SIGINT)
        server.wait(60)
    said = (sandbox / "said.txt").read_text().strip().splitlines()
    return ("listens, and ends with Ctrl-C", False) if found else (f"FAILED: {said[-1:]}", True)


def head(results: list[Result]) -> list[str]:
    ran = sum(result.seconds > 0 and not result.failed for result in results)
    failed = sum(result.failed for result in results)
    return [
        "# The commands in the docs",
        "",
        "`python benchmarks/doc_commands.py --out PAGE.md`",
        "",
        f"{len(results)} commands in README.md and docs/: {ran} run, {failed} failed, "
        f"{len(results) - ran - failed} not run here, each with its reason.",
        "",
        "| page | command | seconds | result |",
        "|---|---|---:|---|",
    ]


def row(result: Result) -> str:
    line = result.command.line.replace("|", "\\|")
    seconds = f"{result.seconds:.1f}" if result.seconds else ""
    return f"| {result.command.page} | `{line}` | {seconds} | {result.says} |"


if __name__ == "__main__":
    sys.exit(main())

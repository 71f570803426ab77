"""Damage met by every command that reads a run or the journal, not only by `verify`.

    python benchmarks/damage_commands.py PROJECT/runs/NAME [--kinds 3] [--seed 1]

Works on a copy. For each kind of file, and for the kinds of damage that are drawn for it, each
command runs in this process: `told` where it ends with one line that names the file or its folder,
`same` where what it gives is what it gave before (it does not read the file, or the damage changes
no content), LESS where it gives something else without a word, NAMELESS where the line names no
file, TRACE where an exception came instead.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from damage import KINDS, files_of, write

from feldspar.cli import main as command_line


def report(run: Path) -> str:
    said = _cli("report", run)
    # The drawing has names of its own each time.
    page = re.sub(r"<svg.*?</svg>", "", _texts(run / "report.html"), flags=re.DOTALL)
    return said + _texts(run / "report.md") + page


def compare(run: Path) -> str:
    return _cli("compare", run, "--json")


def export_samples(run: Path) -> str:
    return _to_folder("export-data", run)


def export_phases(run: Path) -> str:
    return _to_folder("export-data", run, "--phases")


def publish(run: Path) -> str:
    return _to_folder("publish", run)


def chat(run: Path) -> str:
    stdin, sys.stdin = sys.stdin, io.StringIO("What is new?\n/why\n/quit\n")
    try:
        return _cli("chat", run, "--max-tokens", "4")
    finally:
        sys.stdin = stdin


def serve(run: Path) -> str:
    """Up to where it listens."""
    from feldspar.serve.start import run_to_serve

    def start() -> str:
        return str(type(run_to_serve(run)))

    return _said(start)


def learn(run: Path) -> str:
    """Up to where the new leaf's samples are asked for."""
    from feldspar.add_leaf import learning_recipe
    from feldspar.progress import SILENT

    def start() -> str:
        leaf = next(_leaves(run))
        return learning_recipe(run, leaf, [], SILENT).model_dump_json()

    return _said(start)


def taxonomy_diff(run: Path) -> str:
    return _cli("taxonomy diff", _compared(run), "--base", "main", "--json")


def journal(run: Path) -> str:
    folder = run.parents[1]
    out = folder / "answers.jsonl"
    # What is behind the journal's end makes it larger, and nothing else.
    said = re.sub(r'"size_bytes": \d+', "", _cli("journal stats", folder / "recipe.toml", "--json"))
    return said + _cli("journal export", folder / "recipe.toml", "--out", str(out)) + _texts(out)


COMMANDS: dict[str, Callable[[Path], str]] = {
    "report": report,
    "compare": compare,
    "export-data": export_samples,
    "export-data --phases": export_phases,
    "publish": publish,
    "chat": chat,
    "serve": serve,
    "learn": learn,
    "taxonomy diff": taxonomy_diff,
    "journal": journal,
}


class Told(Exception):
    """A command ended with one line."""


def _cli(name: str, *arguments: object) -> str:
    """What a command says. Raises Told where it says one line and fails."""
    _commands()

    def call() -> str:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = command_line.app([*name.split(), *map(str, arguments)], standalone_mode=False)
        if code:
            raise Told
        return out.getvalue()

    return _said(call)


def _said(call: Callable[[], str]) -> str:
    from feldspar.errors import FeldsparError

    err = io.StringIO()
    try:
        with contextlib.redirect_stderr(err):
            return call()
    except FeldsparError as error:
        raise Told(str(error)) from error
    except (Told, SystemExit):
        lines = [line for line in err.getvalue().split("\n") if line.startswith("feldspar: ")]
        assert len(lines) == 1, err.getvalue()[-800:]
        raise Told(lines[0]) from None


@cache
def _commands() -> None:
    command_line._add_commands()
    command_line._guard(command_line.app, is_debug=False)


def _to_folder(name: str, run: Path, *options: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        said = _cli(name, run, "--out", out, *options)
        files = sorted(path for path in out.iterdir() if path.suffix != ".safetensors")
        return said.replace(folder, "") + _texts(*files)


def _texts(*paths: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)


def _leaves(run: Path) -> Iterator[Path]:
    return (path.parent for path in sorted(_taxonomy(run).rglob("qna.yaml")))


def _taxonomy(run: Path) -> Path:
    from feldspar.runs import read_recipe_of

    taxonomy = read_recipe_of(run).taxonomy
    assert taxonomy is not None
    return Path(taxonomy.path)


def _compared(run: Path) -> Path:
    return run.parents[1] / "compared"


def repository_files(run: Path) -> dict[str, Path]:
    """Files of a git repository with the run's taxonomy, in which one leaf has changed since."""
    root = _compared(run)
    shutil.copytree(_taxonomy(run), root)
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    leaf = min(root.rglob("qna.yaml"))
    found = subprocess.run(
        [*git, "rev-parse", "HEAD:./" + leaf.relative_to(root).as_posix()],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    leaf.write_text(leaf.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    names = ["HEAD", "index", "refs/heads/main", f"objects/{found[:2]}/{found[2:]}"]
    return {f".git/{name[:12]}": root / ".git" / name for name in names}


def outcome(run: Path, command: Callable[[Path], str], before: str, path: Path) -> str:
    try:
        return "same" if command(run) == before else "LESS"
    except Told as told:
        said = str(told)
        places = [path, path.parent, path.name]
        # git names files by their place in the repository.
        places += [place.parent for place in path.parents if place.name == ".git"]
        is_named = any(str(place) in said for place in places)
        return "told" if is_named else f"NAMELESS {said[:300]}"
    except Exception as error:
        return f"TRACE {type(error).__name__}: {str(error)[:200]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--kinds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    dice = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "project"
        shutil.copytree(given.run.resolve().parents[1], project)
        run = project / "runs" / given.run.name
        commands = {n: c for n, c in COMMANDS.items() if given.only in n}
        of_git = repository_files(run)
        before = {n: command(run) for n, command in commands.items()}
        files = files_of(run) | {"the journal": next(project.glob(".feldspar/journal.sqlite"))}
        files |= of_git
        counts: dict[str, Counter[str]] = {n: Counter() for n in commands}
        for kind, path in files.items():
            for damage in dice.sample(sorted(KINDS), given.kinds):
                # A report says when its run ended, by the times of files.
                content, then = path.read_bytes(), path.stat().st_mtime_ns
                changed = KINDS[damage](content)
                if changed == content:
                    continue
                for n, command in commands.items():
                    # `taxonomy diff` reads no file of a run, and nothing else reads git's.
                    if (kind in of_git) != (n == "taxonomy diff"):
                        continue
                    write(path, changed, then)
                    found = outcome(run, command, before[n], path)
                    write(path, content, then)
                    counts[n][found.partition(" ")[0]] += 1
                    if found not in ("told", "same"):
                        print(f"{n}: {kind}: {damage}: {found}", flush=True)
    print("| command | told | same | wrong |\n|---|---:|---:|---:|")
    for n, found_of in counts.items():
        wrong = found_of.total() - found_of["told"] - found_of["same"]
        print(f"| `{n}` | {found_of['told']} | {found_of['same']} | {wrong} |")
    sys.exit(any(c.total() - c["told"] - c["same"] for c in counts.values()))


if __name__ == "__main__":
    main()

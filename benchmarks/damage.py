"""Twenty kinds of damage to every kind of file of a run: `feldspar verify` must name each.

    python benchmarks/damage.py PROJECT/runs/NAME > benchmarks/damage_DATE.md

Works on a copy of the run, of which one file of each kind is damaged: `told` where a line names
the file (or its folder), `same` where what it says is unchanged (a JSON file that gained a blank),
`again` where it is made again without a change of results (a cache of answers that is gone;
which precision `auto` means, which the next run finds anew on this machine, and says),
MISSED where nothing is said, TRACE where an exception came instead of a line.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from feldspar.student.precision import PRECISION_FILE
from feldspar.verify import verify_run

Damage = Callable[[bytes], bytes | None]


def middle(content: bytes) -> int:
    return len(content) // 2


def flip(content: bytes, at: int, bit: int = 0x10) -> bytes:
    changed = bytearray(content)
    if changed:
        changed[at] ^= bit
    return bytes(changed)


KINDS: dict[str, Damage] = {
    "emptied": lambda c: b"",
    "first byte only": lambda c: c[:1],
    "cut in half": lambda c: c[: middle(c)],
    "last byte cut": lambda c: c[:-1],
    "last line cut": lambda c: c[: c.rstrip(b"\n").rfind(b"\n") + 1],
    "first byte cut": lambda c: c[1:],
    "byte cut out": lambda c: c[: middle(c)] + c[middle(c) + 1 :],
    "bit of first": lambda c: flip(c, 0),
    "bit of middle": lambda c: flip(c, middle(c)),
    "low bit": lambda c: flip(c, middle(c), 1),
    "bit of last": lambda c: flip(c, -1),
    "all zeros": lambda c: bytes(len(c)),
    "zeros at end": lambda c: c[: middle(c)] + bytes(len(c) - middle(c)),
    "0xff at start": lambda c: b"\xff" * min(16, len(c)) + c[16:],
    "twice": lambda c: c + c,
    "halves swapped": lambda c: c[middle(c) :] + c[: middle(c)],
    "blank added": lambda c: c + b"\n",
    "null": lambda c: b"null",
    "empty object": lambda c: b"{}",
    "deleted": lambda c: None,
}


NAMING = ("recipe.json", "current.json", "done.json")
"""Files without which others are not looked at: they are damaged by themselves."""


def kind_of(path: Path, run: Path) -> str:
    """`steps/trained/*/metrics.jsonl` for each of its like."""
    name = path.relative_to(run).as_posix()
    name = re.sub(r"[0-9a-f]{16}-[0-9a-f]{16}", "*", name)
    name = re.sub(r"(?<=/)[0-9a-f]{8,64}(?=/)", "*", name)
    return re.sub(r"step-\d+", "step-*", name)


def files_of(run: Path) -> dict[str, Path]:
    """One file of each kind that a result is read from."""
    current = set(json.loads((run / "current.json").read_text()).values())
    known = {key[:8] for key in current}
    made_again = {
        "lock",
        "digests.json",
        "project.json",
        "progress.json",
        "report.html",
        "report.md",
    }
    found: dict[str, Path] = {}
    for path in sorted(p for p in run.rglob("*") if p.is_file()):
        parts = path.relative_to(run).parts
        is_old = parts[0] == "steps" and parts[2] not in known
        if not is_old and path.suffix != ".lock" and path.name not in made_again:
            found.setdefault(kind_of(path, run), path)
    return found


def outcomes(run: Path, files: dict[str, Path], damage: Damage) -> dict[str, str]:
    """Of the same damage to all of these files at once, by their kinds."""
    before = {kind: path.read_bytes() for kind, path in files.items()}
    after = {kind: damage(content) for kind, content in before.items()}
    for kind, path in files.items():
        write(path, after[kind])
    try:
        faults = verify_run(run).faults
    except Exception as error:
        return dict.fromkeys(files, f"TRACE {type(error).__name__}")
    finally:
        for kind, path in files.items():
            write(path, before[kind])
    return {k: outcome(p, before[k], after[k], faults) for k, p in files.items()}


def write(path: Path, content: bytes | None, then: int | None = None) -> None:
    """`then`: when the file was written, in nanoseconds, if that is to stay."""
    if content is None:
        path.unlink()
        return
    path.write_bytes(content)
    if then is not None:
        os.utime(path, ns=(then, then))


def outcome(path: Path, content: bytes, changed: bytes | None, faults: list[str]) -> str:
    if changed == content:
        return "same"
    places = (str(path), str(path.parent))
    if any(f"{place}: damaged" in fault for fault in faults for place in places):
        return "told"
    if changed is None and path.parent.name == "answers":
        return "again"
    if changed in (None, b"{}") and path.name == PRECISION_FILE:
        return "again"
    return "same" if says_the_same(path, content, changed) else "MISSED"


def says_the_same(path: Path, content: bytes, changed: bytes | None) -> bool:
    try:
        return path.suffix == ".json" and json.loads(content) == json.loads(changed or b"")
    except ValueError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    given = parser.parse_args().run.resolve()
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "project"
        shutil.copytree(given.parents[1], project)
        run = project / given.parent.name / given.name
        before = verify_run(run).faults
        assert not before, before
        files = files_of(run)
        rows: dict[str, dict[str, str]] = {kind: {} for kind in files}
        for group in ("recipe.json", "current.json", "done.json", ""):
            some = {k: p for k, p in files.items() if (p.name if p.name in NAMING else "") == group}
            for name, damage in KINDS.items():
                for kind, found in outcomes(run, some, damage).items():
                    rows[kind][name] = found
    print("| file |", " | ".join(KINDS), "|")
    print("|---|" + "---|" * len(KINDS))
    for kind, row in rows.items():
        print(f"| `{kind}` |", " | ".join(row.values()), "|")
    everything = [found for row in rows.values() for found in row.values()]
    counts = {word: everything.count(word) for word in ("told", "same", "again")}
    bad = len(everything) - sum(counts.values())
    print(
        f"\n{len(everything)} of {len(rows)} kinds of file: {counts}, missed or a traceback: {bad}"
    )


if __name__ == "__main__":
    main()

"""What changed in a taxonomy since a commit: leaves that are new, changed, removed or renamed.

What is compared is the working tree, files that git does not know yet included, with the commit at
which it left the base, as a pull request is.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from feldspar.errors import TaxonomyError
from feldspar.taxonomy.documents.find import QNA
from feldspar.taxonomy.findings import Findings
from feldspar.taxonomy.nodes import MAX_FILE_BYTES, YamlFault, compose
from feldspar.taxonomy.qna import read_qna
from feldspar.text import on_one_line

MIN_SHARED = 0.5
"""A leaf that is gone and one that is new are one that moved when they share this part of seeds."""

Change = Literal["new", "changed", "removed", "renamed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafChange:
    """One leaf that is not as it was; `path` is that of its folder below the one compared."""

    change: Change
    path: str
    old_path: str = ""
    """Where a renamed leaf was."""
    num_added: int = 0
    """Seeds that are there now and were not."""
    num_removed: int = 0
    files: tuple[str, ...] = ()
    """Other files of the leaf that changed: documents, attribution.txt."""


@dataclass(frozen=True, slots=True)
class _LeafState:
    """A leaf's files by name, each with the hash of its content, and its seeds."""

    files: dict[str, str]
    seeds: frozenset[str]


def diff_taxonomy(root: Path, base: str) -> list[LeafChange]:
    """The leaves below `root` that changed since it left `base`, in path order.

    Raises TaxonomyError where there is no git repository, or no such commit.
    """
    git = _Git(root)
    commit = git.left_at(base)
    before, after = git.files_at(commit), git.files_now()
    old, new = _leaves(before), _leaves(after)
    changed = [leaf for leaf in {*old, *new} if old.get(leaf) != new.get(leaf)]
    was = {leaf: _state(old[leaf], git.blob(old[leaf][QNA])) for leaf in changed if leaf in old}
    now = {leaf: _state(new[leaf], _content(root / leaf / QNA)) for leaf in changed if leaf in new}
    renamed = dict(_renamed(was, now))
    changes = [_change(leaf, renamed, was, now) for leaf in changed]
    return sorted((c for c in changes if c is not None), key=lambda change: change.path)


def _change(
    leaf: str, renamed: dict[str, str], was: dict[str, _LeafState], now: dict[str, _LeafState]
) -> LeafChange | None:
    if leaf not in now:
        if leaf in renamed.values():
            return None
        return LeafChange(change="removed", path=leaf, num_removed=len(was[leaf].seeds))
    old_leaf = leaf if leaf in was else renamed.get(leaf, "")
    before = was.get(old_leaf, _LeafState({}, frozenset()))
    names = {*before.files, *now[leaf].files} - {QNA}
    return LeafChange(
        change="changed" if leaf in was else "renamed" if old_leaf else "new",
        path=leaf,
        old_path=renamed.get(leaf, ""),
        num_added=len(now[leaf].seeds - before.seeds),
        num_removed=len(before.seeds - now[leaf].seeds),
        files=tuple(sorted(n for n in names if before.files.get(n) != now[leaf].files.get(n))),
    )


def _renamed(was: dict[str, _LeafState], now: dict[str, _LeafState]) -> Iterable[tuple[str, str]]:
    """New and old path of leaves that moved, those that share most first."""
    gone = [leaf for leaf in was if leaf not in now]
    come = [leaf for leaf in now if leaf not in was]
    shares = [(_shared(was[old], now[new]), new, old) for new in come for old in gone]
    taken: set[str] = set()
    for share, new, old in sorted(shares, key=lambda pair: (-pair[0], *pair[1:])):
        if share >= MIN_SHARED and not taken & {new, old}:
            taken |= {new, old}
            yield new, old


def _shared(one: _LeafState, other: _LeafState) -> float:
    if one.files[QNA] == other.files[QNA]:
        return 1.0
    return len(one.seeds & other.seeds) / max(len(one.seeds), len(other.seeds), 1)


def _leaves(files: dict[str, str]) -> dict[str, dict[str, str]]:
    """Files by leaf: each belongs to the nearest folder above it with a qna.yaml."""
    folders = {str(PurePosixPath(path).parent) for path in files if PurePosixPath(path).name == QNA}
    leaves: dict[str, dict[str, str]] = {folder: {} for folder in folders}
    for path, digest in files.items():
        for parent in PurePosixPath(path).parents:
            if str(parent) in leaves:
                leaves[str(parent)][str(PurePosixPath(path).relative_to(parent))] = digest
                break
    return leaves


def _state(files: dict[str, str], content: bytes) -> _LeafState:
    try:
        qna = read_qna(compose(content[:MAX_FILE_BYTES].decode()).root, Findings(Path()))
    except (YamlFault, UnicodeDecodeError):
        # A leaf that cannot be read has changed all the same; `check` says what is wrong.
        qna = None
    return _LeafState(files, frozenset(seed.id for seed in qna.seeds) if qna else frozenset())


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


class _Git:
    """Reads the repository that a folder is in; writes nothing."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise TaxonomyError(f"{root}: no such folder; name the folder that holds the leaves")
        self._root = root
        prefix = self._run("rev-parse", "--show-prefix", cure="name a folder in a git repository")
        self._prefix = prefix.decode("utf-8", "surrogateescape").strip("\n")

    def left_at(self, base: str) -> str:
        cure = "name a branch, a tag or a commit, and fetch it first"
        commit = f"{base}^{{commit}}"
        found = self._run("rev-parse", "--verify", "--quiet", "--end-of-options", commit, cure=cure)
        named = found.decode().split()[-1]
        done = self._start("merge-base", named, "HEAD")
        return done.stdout.decode().strip() if done.returncode == 0 else named

    def files_at(self, commit: str) -> dict[str, str]:
        listing = self._run("ls-tree", "-r", "-z", "--full-tree", commit, "--", self._prefix or ".")
        files = {}
        for line in listing.split(b"\0")[:-1]:
            facts, _, name = line.partition(b"\t")
            if not facts.startswith(b"100"):
                # A link, or another repository: neither is read as a file of a leaf.
                continue
            path = name.decode("utf-8", "surrogateescape").removeprefix(self._prefix)
            files[path] = facts.split()[2].decode()
        return files

    def files_now(self) -> dict[str, str]:
        listing = self._run("ls-files", "-z", "--cached", "--others", "--exclude-standard")
        names = dict.fromkeys(listing.split(b"\0")[:-1])
        # git takes one path a line; a name with a line break is no leaf's anyway.
        there = [name for name in names if b"\n" not in name and self._is_plain(name)]
        # It reads paths from the top of the repository on, wherever it is started.
        top = os.fsencode(self._prefix)
        given = b"".join(top + name + b"\n" for name in there)
        hashes = self._run("hash-object", "--stdin-paths", given=given)
        decoded = (name.decode("utf-8", "surrogateescape") for name in there)
        return dict(zip(decoded, hashes.decode().split(), strict=True))

    def blob(self, digest: str) -> bytes:
        return self._run("cat-file", "blob", digest)

    def _is_plain(self, name: bytes) -> bool:
        path = self._root / name.decode("utf-8", "surrogateescape")
        return path.is_file() and not path.is_symlink()

    def _start(self, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = ["git", "-C", str(self._root), *arguments]
        try:
            return subprocess.run(command, input=given, capture_output=True, check=False)
        except OSError as error:
            raise TaxonomyError(f"git cannot be run: {error.strerror}; install it") from error

    def _run(
        self, *arguments: str, given: bytes = b"", cure: str = "look at the repository"
    ) -> bytes:
        done = self._start(*arguments, given=given)
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            why = said[-1] if said else f"git knows no {arguments[-1].partition('^')[0]}"
            raise TaxonomyError(on_one_line(f"{self._root}: {why}; {cure}"))
        return done.stdout

"""The documents of a git repository at one commit, fetched with the system's git.

Nothing is checked out: no hook, filter or link of the repository comes to life. Files are read out
of git one by one, those that can be documents, into a folder laid out as the repository is.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple
from urllib.parse import urlsplit

from feldspar.taxonomy.documents.addresses import (
    addresses_of,
    port_of,
    split_url,
    without_credentials,
)
from feldspar.taxonomy.text_files import MAX_DOCUMENT_BYTES, READ_SUFFIXES, ReadFault

TIMEOUT_SECONDS = 300
MAX_PACK_BYTES = 2_000_000_000
MAX_FILES = 20_000
MAX_TOTAL_BYTES = 500_000_000
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_WHOLE_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SSH = re.compile(r"(?:ssh://)?(?:[^@/\s]+@)([\w.-]+)(?::\d+/|[:/])(.+)")
_PLAIN_FILE_MODES = ("100644", "100755")


def web_url(repo: str, *, allows_file: bool) -> str:
    """The https URL of a repository; `git@host:owner/name` is read as one."""
    ssh = _SSH.fullmatch(repo.strip())
    url = f"https://{ssh.group(1)}/{ssh.group(2)}" if ssh is not None else repo.strip()
    if allows_file and urlsplit(url).scheme == "file":
        return url
    split_url(url, ("https",))
    return url


def fetch_commit(
    url: str, commit: str, folder: Path, *, allows_private: bool, allows_file: bool
) -> None:
    """Write the documents of `commit` below `folder`, which is there. Raises ReadFault."""
    commit = commit.lower()
    if not _COMMIT.fullmatch(commit):
        raise ReadFault("its commit is no commit: a branch or a tag moves, so its hash is needed")
    options = [] if allows_file else _pinned(url, allows_private=allows_private)
    with TemporaryDirectory(dir=folder.parent) as place:
        git = _GitFolder(Path(place, "shallow.git"), tuple(options), allows_file)
        if not _WHOLE_COMMIT.fullmatch(commit):
            commit = _whole(url, commit, git._replace(folder=Path(place, "names.git")))
        git.run("init", "--quiet", "--bare", str(git.folder), is_inside=False)
        git.run("fetch", "--quiet", "--depth=1", "--no-tags", url, commit)
        _write_documents(git, commit, folder)


def _pinned(url: str, *, allows_private: bool) -> list[str]:
    """Options that keep git to the addresses that were checked."""
    parts = split_url(url, ("https",))
    host, port = parts.hostname or "", port_of(parts)
    addresses = addresses_of(host, port, allows_private=allows_private)
    written = ",".join(f"[{a}]" if ":" in a else a for a in addresses)
    resolve = f"http.curloptResolve={host}:{port}:{written}"
    return ["-c", resolve, "-c", "http.followRedirects=false"]


class _GitFolder(NamedTuple):
    folder: Path
    options: tuple[str, ...]
    allows_file: bool

    def command(self, *arguments: str, is_inside: bool = True) -> list[str]:
        # A file that grows past the limit ends git: a repository has no size that it could tell.
        # Where a lower limit stands already, that one counts.
        script = 'ulimit -f "$0" 2>/dev/null; exec git "$@"'
        limited = ["sh", "-c", script, str(MAX_PACK_BYTES // 512)]
        inside = ["--git-dir", str(self.folder)] if is_inside else []
        return [*limited, "-c", "core.askPass=", *self.options, *inside, *arguments]

    def environment(self) -> dict[str, str]:
        asking = ("SSH_ASKPASS",)
        kept = {k: v for k, v in os.environ.items() if k[:4] != "GIT_" and k not in asking}
        protocols = "https:file" if self.allows_file else "https"
        return kept | {
            "GIT_ALLOW_PROTOCOL": protocols,
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C",
        }

    def run(self, *arguments: str, is_inside: bool = True) -> bytes:
        try:
            done = subprocess.run(
                self.command(*arguments, is_inside=is_inside),
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ReadFault(f"git took more than {TIMEOUT_SECONDS} seconds") from error
        except OSError as error:
            raise ReadFault(f"git cannot be run: {error.strerror}") from error
        if done.returncode != 0:
            said = without_credentials(done.stderr.decode("utf-8", "replace")).strip()
            raise ReadFault(f"git: {said.splitlines()[-1] if said else 'it was ended'}")
        return done.stdout


def _whole(url: str, commit: str, git: _GitFolder) -> str:
    """The full name of a shortened commit: all commits are asked for, without their files."""
    folder = str(git.folder)
    git.run("clone", "--quiet", "--bare", "--filter=blob:none", url, folder, is_inside=False)
    return git.run("rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}").decode().strip()


class _Entry(NamedTuple):
    name: str
    blob: str
    size_bytes: int


def _write_documents(git: _GitFolder, commit: str, folder: Path) -> None:
    entries = list(_entries(git.run("ls-tree", "-r", "-l", "-z", "--full-tree", commit)))
    total = sum(min(entry.size_bytes, MAX_DOCUMENT_BYTES) for entry in entries)
    if len(entries) > MAX_FILES or total > MAX_TOTAL_BYTES:
        raise ReadFault(f"the repository holds {len(entries)} documents with {total} bytes")
    with subprocess.Popen(
        git.command("cat-file", "--batch"),
        env=git.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None
        for entry in entries:
            path = folder / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.size_bytes > MAX_DOCUMENT_BYTES:
                # Without its content, but of its size: what reads it says why it is left out.
                with path.open("wb") as file:
                    file.truncate(entry.size_bytes)
                continue
            reader.stdin.write(f"{entry.blob}\n".encode())
            reader.stdin.flush()
            _, _, size = reader.stdout.readline().split()
            path.write_bytes(reader.stdout.read(int(size)))
            reader.stdout.read(1)


def _entries(listing: bytes) -> Iterator[_Entry]:
    """Plain files that may be documents, with names that stay in their folder."""
    for line in listing.split(b"\0"):
        facts, tab, raw = line.partition(b"\t")
        if not tab:
            continue
        mode, _, blob, size = facts.decode("ascii").split()
        name = raw.decode("utf-8", "surrogateescape")
        parts = PurePosixPath(name).parts
        is_safe = not any(part in ("..", "/") or part.startswith(".") for part in parts)
        is_document = PurePosixPath(name).suffix.lower() in READ_SUFFIXES
        if mode in _PLAIN_FILE_MODES and is_safe and is_document:
            yield _Entry(name, blob, int(size))

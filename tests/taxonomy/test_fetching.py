"""Documents from elsewhere: what comes, what is refused, and that nothing secret is told."""

from __future__ import annotations

import gzip
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from feldspar.cli.taxonomy import app
from feldspar.config import TaxonomyConfig
from feldspar.errors import TaxonomyError
from feldspar.taxonomy import Fetcher, LeafFile, inspect_taxonomy, read_taxonomy
from feldspar.taxonomy.documents.addresses import is_public, without_credentials
from feldspar.taxonomy.documents.fetch_git import web_url
from feldspar.taxonomy.documents.fetch_url import fetch_url
from feldspar.taxonomy.text_files import MAX_DOCUMENT_BYTES, ReadFault

PAGE = b"<h1>Phoenix</h1><p>A bird.</p>"
SEEDS = "seed_examples: [{question: q, answer: a}]\n"


class Handler(BaseHTTPRequestHandler):
    """Answers by path; `/to/URL` redirects there."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        if self.path.startswith("/to/"):
            self.answer(302, b"", Location=self.path[4:])
        elif self.path.startswith("/loop"):
            self.answer(302, b"", Location="/loop")
        elif self.path == "/packed.html":
            self.answer(200, gzip.compress(b"0" * 9_000_000), **{"Content-Encoding": "gzip"})
        elif self.path == "/big.txt":
            self.answer(200, b"0" * 2000)
        elif self.path == "/endless.txt":
            self.answer(200, b"0" * 2000, is_told=False)
        elif self.path == "/short.txt":
            self.answer(200, b"0" * 10, num_told=99)
        elif self.path == "/drip.txt":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            self.close_connection = True
            for _ in range(100):
                try:
                    self.wfile.write(b"x")
                except OSError:
                    return
                time.sleep(0.05)
        elif self.path == "/picture":
            self.answer(200, b"x", **{"Content-Type": "image/png"})
        elif self.path == "/absent.txt":
            self.answer(404, b"")
        else:
            self.answer(200, PAGE, **{"Content-Type": "text/html; charset=utf-8"})

    def answer(
        self, status: int, data: bytes, is_told: bool = True, num_told: int = 0, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if is_told:
            self.send_header("Content-Length", str(num_told or len(data)))
        self.send_header("Connection", "close")
        self.close_connection = True
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.paths = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def here(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_address[1]}"


def test_a_page_is_fetched_and_its_kind_is_told_by_the_server(here: str) -> None:
    for path in ("/phoenix", "/phoenix.html?x=1", "/to//phoenix", f"/to/{here}/phoenix"):
        assert fetch_url(f"{here}{path}", allows_private=True) == (PAGE, ".html")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/to/file:///etc/passwd", "file: only http and https"),
        ("/to/ftp://example.org/a.txt", "ftp: only"),
        ("/to/http://user:secret@example.org/a.txt", "holds a user name"),
        ("/loop", "more than 5 redirects"),
        ("/packed.html", "packed as gzip"),
        ("/big.txt", "2000 bytes; 1000 are"),
        ("/endless.txt", "more than 1000 bytes"),
        ("/short.txt", "broke off|took too long"),
        ("/picture", "image/png is no document"),
        ("/absent.txt", "answers 404"),
    ],
)
def test_what_is_refused_says_why(here: str, path: str, reason: str) -> None:
    with pytest.raises(ReadFault, match=reason) as caught:
        fetch_url(f"{here}{path}", allows_private=True, max_bytes=1000)
    assert "secret" not in str(caught.value)


@pytest.mark.timeout(2, func_only=True)
def test_a_server_that_drips_is_left(here: str) -> None:
    with pytest.raises(ReadFault, match=r"took too long|no document from"):
        fetch_url(f"{here}/drip.txt", allows_private=True, max_seconds=0.3)


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1/", "http://localhost/", "http://[::1]/", "http://10.0.0.8/a.md"),
        *("http://169.254.169.254/latest", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/"),
        *("http://2130706433/", "http://0x7f.1/", "http://[fe80::1]/", "http://[64:ff9b::7f00:1]/"),
        *("http://[2002:7f00:1::]/", "http://224.0.0.1/", "http://100.64.0.1/"),
    ],
)
def test_private_addresses_are_refused(url: str) -> None:
    with pytest.raises(ReadFault, match=r"private address|not known here"):
        fetch_url(url, allows_private=False)


def test_a_refused_address_is_never_asked(server: ThreadingHTTPServer, here: str) -> None:
    num_before = len(server.paths)  # type: ignore[attr-defined]
    with pytest.raises(ReadFault, match="private address"):
        fetch_url(f"{here}/phoenix", allows_private=False)
    assert len(server.paths) == num_before  # type: ignore[attr-defined]


def test_public_addresses_are_public() -> None:
    assert all(is_public(address) for address in ("8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"))


def git(folder: Path, *arguments: str) -> str:
    told = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    for role in ("AUTHOR", "COMMITTER"):
        told |= {f"GIT_{role}_NAME": "a", f"GIT_{role}_EMAIL": "a@example.org"}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, env=os.environ | told, capture_output=True, check=True)
    return done.stdout.decode().strip()


class Origin:
    """A bare repository with two commits; `first` is the one that leaves name."""

    def __init__(self, folder: Path) -> None:
        work = folder / "work"
        (work / "more").mkdir(parents=True)
        git(folder, "init", "--quiet", str(work))
        (work / "phoenix.md").write_text("# Phoenix\n\nA bird.\n")
        (work / "more" / "other.md").write_text("Other.\n")
        (work / "program.py").write_text("no document\n")
        (work / "link.md").symlink_to("/etc/passwd")
        with (work / "huge.md").open("wb") as file:
            file.truncate(MAX_DOCUMENT_BYTES + 1)
        (work / ".gitattributes").write_text("*.md filter=evil export-ignore\n")
        git(work, "add", ".")
        git(work, "commit", "--quiet", "-m", "one")
        self.first = git(work, "rev-parse", "HEAD")
        (work / "phoenix.md").write_text("Later.\n")
        git(work, "commit", "--quiet", "-am", "two")
        git(folder, "clone", "--quiet", "--bare", str(work), str(folder / "owner" / "docs.git"))
        self.url = f"file://{folder}/owner/docs.git"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    return Origin(tmp_path_factory.mktemp("origin"))


def knowledge(root: Path, document: str) -> Path:
    leaf = root / "tree" / "knowledge" / "phoenix"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(f"{SEEDS}document:\n  {document}\n")
    return root / "tree"


def inspected(tree: Path, fetcher: Fetcher | None) -> LeafFile:
    (leaf_file,) = inspect_taxonomy(tree, None, fetcher)
    return leaf_file


@pytest.mark.slow
def test_the_named_commit_is_fetched_and_only_its_documents(tmp_path: Path, origin: Origin) -> None:
    tree = knowledge(
        tmp_path, f"{{repo: '{origin.url}', commit: {origin.first}, patterns: ['**/*']}}"
    )
    cache = tmp_path / "cache"
    leaf_file = inspected(tree, Fetcher(cache=cache, allows_file=True))
    prefix = f"owner/docs@{origin.first}/"
    assert {d.name: d.text for d in leaf_file.documents} == {
        f"{prefix}phoenix.md": "# Phoenix\n\nA bird.\n",
        f"{prefix}more/other.md": "Other.\n",
    }
    (left_out,) = (f.message for f in leaf_file.findings if f.code == "FT036")
    assert "huge.md" in left_out
    assert f"{MAX_DOCUMENT_BYTES + 1} bytes" in left_out
    assert not [path for path in cache.rglob("*") if path.is_symlink() or path.suffix == ".py"]
    # Nothing but the documents is left, and no network is needed again.
    (commit_folder,) = (path.parent for path in cache.rglob("phoenix.md"))
    assert [path.name for path in commit_folder.parent.iterdir()] == [origin.first]
    again = inspected(tree, Fetcher(cache=cache, allows_file=True))
    assert again.documents == leaf_file.documents


@pytest.mark.slow
def test_a_shortened_commit_is_completed(tmp_path: Path, origin: Origin) -> None:
    folder = Fetcher(cache=tmp_path, allows_file=True).repository(origin.url, origin.first[:9])
    assert (folder / "phoenix.md").read_text() == "# Phoenix\n\nA bird.\n"


@pytest.mark.parametrize(
    ("repo", "commit", "reason"),
    [
        ("file:///srv/docs.git", "0" * 40, "file: only https"),
        ("http://example.org/a/b", "0" * 40, "http: only https"),
        ("ext::sh -c touch% /tmp/x", "0" * 40, "only https"),
        ("https://user:secret@example.org/a/b", "0" * 40, "holds a user name"),
        ("https://127.0.0.1/a/b", "0" * 40, "private address"),
        ("git@localhost:a/b.git", "0" * 40, "private address"),
        ("https://8.8.8.8/a/b", "main", "a branch or a tag moves"),
        ("https://8.8.8.8/a/b", "--upload-pack=x", "a branch or a tag moves"),
    ],
)
def test_a_repository_is_refused_with_a_reason(
    tmp_path: Path, repo: str, commit: str, reason: str
) -> None:
    tree = knowledge(tmp_path, f"{{repo: '{repo}', commit: '{commit}', patterns: ['*.md']}}")
    leaf_file = inspected(tree, Fetcher(cache=tmp_path / "cache"))
    (finding,) = (f for f in leaf_file.findings if f.code == "FT038")
    assert reason in finding.message
    assert (finding.line, finding.severity) == (3, "error")
    assert not any("secret" in f"{f.message}{f.cure}" for f in leaf_file.findings)


def test_an_absent_commit_or_repository_says_what_git_says(tmp_path: Path, origin: Origin) -> None:
    fetcher = Fetcher(cache=tmp_path, allows_file=True)
    for repo, commit in (
        (origin.url, "1" * 40),
        (origin.url, "1" * 9),
        ("file:///no/where", "1" * 40),
    ):
        with pytest.raises(ReadFault, match=r"^git: "):
            fetcher.repository(repo, commit)
    assert not [path for path in tmp_path.rglob("*") if not path.is_dir()]


def test_ssh_addresses_are_read_as_https() -> None:
    for repo in ("git@github.com:owner/name.git", "ssh://git@github.com/owner/name.git"):
        assert web_url(repo, allows_file=False) == "https://github.com/owner/name.git"


def test_credentials_are_taken_out() -> None:
    told = without_credentials("fatal: https://user:secret@host/a and https://x@y/")
    assert told == "fatal: https://host/a and https://y/"


def test_a_page_of_a_leaf_becomes_its_document(tmp_path: Path, here: str) -> None:
    tree = knowledge(tmp_path, f"{{url: '{here}/phoenix.html?token=secret'}}")
    assert "FT033" in {f.code for f in inspected(tree, None).findings}
    leaf_file = inspected(tree, Fetcher(cache=tmp_path / "cache", allows_private=True))
    (document,) = leaf_file.documents
    assert (document.name, document.text) == (f"{here}/phoenix.html", "# Phoenix\n\nA bird.\n")
    refused = inspected(tree, Fetcher(cache=tmp_path / "other"))
    assert any("private address" in f.message for f in refused.findings)
    assert not any("secret" in f.message for f in refused.findings)


def test_a_run_fetches_and_is_told_what_is_refused(tmp_path: Path, here: str) -> None:
    tree = knowledge(tmp_path, f"{{url: '{here}/phoenix.html'}}")
    with pytest.raises(TaxonomyError, match=r"qna\.yaml:3:3: .*private address 127\.0\.0\.1"):
        list(read_taxonomy(TaxonomyConfig(path=str(tree))))
    with pytest.raises(TaxonomyError, match=r"`taxonomy\.fetch = true`"):
        list(read_taxonomy(TaxonomyConfig(path=str(tree), fetch=False)))


def test_check_asks_the_network_only_when_told_to(
    tmp_path: Path, server: ThreadingHTTPServer, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    tree = knowledge(tmp_path, f"{{url: '{here}/phoenix.html'}}")
    told = CliRunner().invoke(app, ["check", str(tree)])
    assert (told.exit_code, "FT033" in told.output) == (0, True)
    asked = CliRunner().invoke(app, ["check", str(tree), "--documents"])
    assert (asked.exit_code, "FT038" in asked.output) == (3, True)
    assert not (tmp_path / "cache" / "documents-1" / "git").exists()

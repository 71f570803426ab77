"""Given on: to a hub that a small server plays, to a converter, and under which licence."""

import asyncio
import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from aiohttp import web

from feldspar.errors import RunError
from feldspar.publish.licence import find_licence, licence_of_base
from feldspar.publish.push import check_hub, find_converter, push_to_hub, write_gguf
from feldspar.serve import listening


class Hub:
    """What of the hub's protocol an upload of small files meets; keeps what it was given."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/api/repos/create", self.create)
        app.router.add_post("/api/models/{owner}/{name}/preupload/main", self.preupload)
        app.router.add_post("/api/models/{owner}/{name}/commit/main", self.commit)
        app.router.add_get("/api/models/{owner}/{name}", self.info)
        app.router.add_get("/api/models/{owner}/{name}/revision/main", self.info)
        app.router.add_post("/api/validate-yaml", self.validate)
        app.router.add_get("/api/whoami-v2", self.whoami)
        return app

    async def create(self, request: web.Request) -> web.Response:
        self.tokens.add(request.headers.get("Authorization", ""))
        if request.headers.get("Authorization") != "Bearer right":
            return web.json_response({"error": "Invalid credentials"}, status=401)
        return web.json_response({"url": f"{self.url}/someone/model", "id": "1"})

    async def whoami(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer right":
            return web.json_response({"error": "Invalid credentials"}, status=401)
        return web.json_response({"type": "user", "name": "someone"})

    async def info(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer right":
            return web.json_response({"error": "Invalid credentials"}, status=401)
        return web.json_response({"id": "someone/model", "sha": "0" * 40, "siblings": []})

    async def validate(self, request: web.Request) -> web.Response:
        return web.json_response({"errors": [], "warnings": []})

    async def preupload(self, request: web.Request) -> web.Response:
        asked = (await request.json())["files"]
        files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked]
        return web.json_response({"files": files})

    async def commit(self, request: web.Request) -> web.Response:
        for line in (await request.read()).splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                self.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
        commit = {"commitUrl": f"{self.url}/someone/model/commit/{'1' * 40}"}
        return web.json_response(commit | {"commitOid": "1" * 40})


@contextmanager
def hub() -> Iterator[Hub]:
    """The hub in a thread of its own: uploads block."""
    played = Hub()
    loop = asyncio.new_event_loop()
    is_up, stop = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with listening(played.app()) as url:
            played.url = url.removesuffix("/v1")
            is_up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    is_up.wait(10)
    try:
        yield played
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_the_hub_has_every_file_and_saw_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# model\n")
    (tmp_path / "model.safetensors").write_bytes(bytes(range(200)))
    with hub() as played:
        monkeypatch.setenv("HF_ENDPOINT", played.url)
        monkeypatch.setenv("HF_TOKEN", "right")
        assert push_to_hub(tmp_path, "someone/model") == f"{played.url}/someone/model/commit/" + (
            "1" * 40
        )
        expected = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.is_file()}
        assert {name: played.files[name] for name in expected} == expected
        assert played.tokens == {"Bearer right"}
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(RunError, match="HF_TOKEN"):
            push_to_hub(tmp_path, "someone/model")


CONVERTER = """
import sys
folder, path = sys.argv[1], sys.argv[3]
if not open(f"{folder}/config.json").read():
    sys.exit("Model architecture not supported")
open(path, "wb").write(b"GGUF")
"""


def test_gguf_is_made_by_the_converter_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama_cpp, folder = tmp_path / "llama.cpp", tmp_path / "published"
    folder.mkdir()
    monkeypatch.setenv("LLAMA_CPP", str(llama_cpp))
    with pytest.raises(RunError, match=r"clone llama\.cpp"):
        find_converter()
    llama_cpp.mkdir()
    (llama_cpp / "convert_hf_to_gguf.py").write_text(CONVERTER)
    (folder / "config.json").write_text("{}")
    assert write_gguf(folder, "demo").read_bytes() == b"GGUF"
    missing = "raise ModuleNotFoundError(\"No module named 'sentencepiece'\")"
    (llama_cpp / "convert_hf_to_gguf.py").write_text(missing)
    with pytest.raises(RunError, match="; pip install sentencepiece"):
        write_gguf(folder, "demo")
    (llama_cpp / "convert_hf_to_gguf.py").write_text(CONVERTER)
    (folder / "config.json").write_text("")
    with pytest.raises(RunError, match="not supported"):
        write_gguf(folder, "demo")
    assert not list(folder.glob("*.part"))


@pytest.mark.parametrize(
    ("stated", "base", "data", "name", "warns"),
    [
        ("", "apache-2.0", ["Apache-2.0", "CC BY 4.0", ""], "apache-2.0", ""),
        ("", "apache-2.0", ["CC-BY-SA-4.0"], "apache-2.0", "cc-by-sa-4.0 does not go with"),
        ("cc-by-sa-4.0", "mit", ["CC BY-SA 4.0"], "cc-by-sa-4.0", ""),
        ("mit", "cc-by-nc-4.0", [], "mit", "the base is under cc-by-nc-4.0"),
        ("apache-2.0", "llama2", [], "apache-2.0", "the base is under llama2"),
        ("", "", ["MIT"], "unknown", "set publish.licence"),
        ("cc-by-nc-4.0", "", ["CC BY-NC 4.0", "CC BY-ND 4.0"], "cc-by-nc-4.0", "cc-by-nd-4.0"),
    ],
)
def test_the_licence_follows_base_and_data(
    stated: str, base: str, data: list[str], name: str, warns: str
) -> None:
    found = find_licence(stated, base, data)
    assert found.name == name
    assert len(found.warnings) == bool(warns)
    assert warns in "".join(found.warnings)


def test_the_bases_licence_is_read_from_its_readme(tmp_path: Path) -> None:
    assert licence_of_base(str(tmp_path)) == ""
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\ntags: [a]\n---\n# base\n")
    assert licence_of_base(str(tmp_path)) == "apache-2.0"


def test_the_hub_is_asked_before_anything_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "right")
    with hub() as played:
        monkeypatch.setenv("HF_ENDPOINT", played.url)
        check_hub("someone/model")
        monkeypatch.setenv("HF_TOKEN", "wrong")
        with pytest.raises(RunError, match=r"^someone/model: not pushed: .*HF_TOKEN"):
            check_hub("someone/model")
    # Nobody is there any more.
    with pytest.raises(RunError, match=r"^someone/model: not pushed: .*reachable"):
        check_hub("someone/model")
    for name in ("model", "../x", "a/b/c", ""):
        with pytest.raises(RunError, match="not pushed"):
            check_hub(name)

"""A small server that speaks the hub's protocol: uploads of regular and large files, downloads."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from feldspar.serve import listening

LARGE_BYTES = 10_000
"""From this size on a file goes by git-lfs."""
TOKEN = "right"


class Hub:
    """One repository, `someone/model`; keeps what it was given, and shows it to who has the token.

    `revisions`: by branch, tag or commit the commit; `commits`: its files.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        self.url = ""
        self.made: dict[str, Any] = {}
        """What a repository was asked for with."""
        self.objects: dict[str, bytes] = {}
        """Large files by their sha256."""
        self.uploads: list[str] = []
        self.refused: set[str] = set()
        """Objects whose upload breaks."""
        self.revisions: dict[str, str] = {}
        self.commits: dict[str, dict[str, bytes]] = {}

    def app(self) -> web.Application:
        app = web.Application()
        one = "/api/{kind}/{owner}/{name}"
        app.router.add_post("/api/repos/create", self.create)
        app.router.add_post(f"{one}/preupload/main", self.preupload)
        app.router.add_post(f"{one}/commit/main", self.commit)
        app.router.add_get(one, self.info)
        app.router.add_get(f"{one}/revision/{{revision}}", self.info)
        app.router.add_get(f"{one}/tree/{{revision}}", self.tree)
        app.router.add_post("/api/validate-yaml", self.validate)
        app.router.add_get("/api/whoami-v2", self.whoami)
        app.router.add_post("/{owner}/{name}.git/info/lfs/objects/batch", self.batch)
        app.router.add_put("/objects/{oid}", self.put)
        for kind in ("", "/datasets"):
            place = f"{kind}/{{owner}}/{{name}}/resolve/{{revision}}/{{path:.+}}"
            app.router.add_get(place, self.resolve)
        return app

    def add(self, files: dict[str, bytes], *names: str) -> str:
        """A commit with these files, under its own name and these; gives it."""
        text = json.dumps(sorted((n, hashlib.sha1(c).hexdigest()) for n, c in files.items()))
        commit = hashlib.sha1(text.encode()).hexdigest()
        self.commits[commit] = files
        self.revisions |= dict.fromkeys((commit, *names), commit)
        return commit

    def may(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "")
        self.tokens.add(given)
        return given == f"Bearer {TOKEN}"

    async def create(self, request: web.Request) -> web.Response:
        if not self.may(request):
            return _refusal()
        self.made = await request.json()
        return web.json_response({"url": f"{self.url}/someone/model", "id": "1"})

    async def whoami(self, request: web.Request) -> web.Response:
        if not self.may(request):
            return _refusal()
        return web.json_response({"type": "user", "name": "someone"})

    async def info(self, request: web.Request) -> web.Response:
        if not self.may(request):
            return _refusal()
        commit = self.revisions.get(request.match_info.get("revision", "main"))
        if self.commits and commit is None:
            return _missing("RevisionNotFound")
        names = [{"rfilename": name} for name in self.commits.get(commit or "", {})]
        sha = commit or "0" * 40
        return web.json_response({"id": "someone/model", "sha": sha, "siblings": names})

    async def tree(self, request: web.Request) -> web.Response:
        if not self.may(request):
            return _refusal()
        commit = self.revisions.get(request.match_info["revision"])
        files = self.files if commit is None else self.commits[commit]
        rows = [
            {"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
            for n, c in files.items()
        ]
        return web.json_response(rows)

    async def resolve(self, request: web.Request) -> web.Response:
        if not self.may(request):
            return _refusal()
        commit = self.revisions[request.match_info["revision"]]
        content = self.commits[commit].get(request.match_info["path"])
        if content is None:
            return _missing("EntryNotFound")
        headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
        return web.Response(body=content, headers=headers)

    async def validate(self, request: web.Request) -> web.Response:
        return web.json_response({"errors": [], "warnings": []})

    async def preupload(self, request: web.Request) -> web.Response:
        asked = (await request.json())["files"]
        files = [
            {
                "path": f["path"],
                "uploadMode": "lfs" if f["size"] >= LARGE_BYTES else "regular",
                "shouldIgnore": False,
            }
            for f in asked
        ]
        return web.json_response({"files": files})

    async def batch(self, request: web.Request) -> web.Response:
        asked = (await request.json())["objects"]
        objects = [
            {"oid": o["oid"], "size": o["size"]}
            | ({} if o["oid"] in self.objects else {"actions": self._upload(o["oid"])})
            for o in asked
        ]
        return web.json_response({"transfer": "basic", "objects": objects})

    async def put(self, request: web.Request) -> web.Response:
        oid, content = request.match_info["oid"], await request.read()
        if oid in self.refused:
            return web.Response(status=403)
        assert hashlib.sha256(content).hexdigest() == oid
        self.objects[oid] = content
        self.uploads.append(oid)
        return web.Response()

    async def commit(self, request: web.Request) -> web.Response:
        for line in (await request.read()).splitlines():
            row = json.loads(line)
            if row["key"] == "file":
                self.files[row["value"]["path"]] = base64.b64decode(row["value"]["content"])
            elif row["key"] == "deletedFile":
                del self.files[row["value"]["path"]]
            elif row["key"] == "lfsFile":
                self.files[row["value"]["path"]] = self.objects[row["value"]["oid"]]
        commit = {"commitUrl": f"{self.url}/someone/model/commit/{'1' * 40}"}
        return web.json_response(commit | {"commitOid": "1" * 40})

    def _upload(self, oid: str) -> dict[str, object]:
        return {"upload": {"href": f"{self.url}/objects/{oid}"}}


@contextmanager
def hub() -> Iterator[Hub]:
    """The hub in a thread of its own: the hub's client blocks."""
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


def _refusal() -> web.Response:
    return web.json_response({"error": "Invalid credentials"}, status=401)


def _missing(code: str) -> web.Response:
    return web.json_response({"error": code}, status=404, headers={"X-Error-Code": code})
